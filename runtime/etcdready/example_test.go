package etcdready_test

import (
	"fmt"
	"log"
	"net/http/httptest"

	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
	"github.com/kitex-contrib/kitex-etcd/runtime/etcdready"
)

func Example() {
	conn, err := etcd.Connect([]string{"127.0.0.1:2379"})
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	handler := etcdready.Handler(conn) // http.Handle("/ready", handler)

	w := httptest.NewRecorder() // no server has registered yet
	handler.ServeHTTP(w, httptest.NewRequest("GET", "/ready", nil))
	fmt.Print(w.Code, " ", w.Body)
	// Output: 503 nothing is registered
}
