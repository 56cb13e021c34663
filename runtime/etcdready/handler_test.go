package etcdready_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/cloudwego/kitex/pkg/registry"
	"github.com/cloudwego/kitex/pkg/utils"

	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
	"github.com/kitex-contrib/kitex-etcd/runtime/etcdready"
	"github.com/kitex-contrib/kitex-etcd/runtime/etcdtest"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/faultproxy"
)

const (
	addr        = "127.0.0.1:8888"
	otherAddr   = "127.0.0.1:7777"
	record      = etcd.DefaultPrefix + "/Hello/" + addr + "\n"
	otherRecord = etcd.DefaultPrefix + "/Hello/" + otherAddr + "\n"
)

func connect(t *testing.T, endpoint string, opts ...etcd.Option) *etcd.Conn {
	t.Helper()
	conn, err := etcd.Connect([]string{endpoint}, append([]etcd.Option{etcd.WithDrainDelay(0)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func register(t *testing.T, conn *etcd.Conn, addr string) {
	t.Helper()
	if err := conn.Registry().Register(&registry.Info{ServiceName: "Hello", Addr: utils.NewNetAddr("tcp", addr)}); err != nil {
		t.Fatal(err)
	}
}

// wait asks the handler until its answer is this one.
func wait(t *testing.T, conn *etcd.Conn, code int, body string) {
	t.Helper()
	for begin := time.Now(); ; time.Sleep(2 * time.Millisecond) { // the handler reads memory: there is no event to wait for
		w := httptest.NewRecorder()
		etcdready.Handler(conn).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/ready", nil))
		if w.Code == code && w.Body.String() == body {
			if got := w.Header().Get("Cache-Control"); got != "no-store" {
				t.Errorf("Cache-Control is %q", got)
			}
			return
		}
		if time.Since(begin) > 20*time.Second {
			t.Fatalf("the answer is %d %q, want %d %q", w.Code, w.Body, code, body)
		}
	}
}

// TestUnknownIsReady: while etcd is away, what it confirmed last holds, and a server that it never heard of is not ready.
func TestUnknownIsReady(t *testing.T) {
	proxy := faultproxy.Start(t, etcdtest.Start(t).Endpoints()[0])
	conn := connect(t, proxy.Addr(), etcd.WithLeaseTTL(2*time.Second))
	wait(t, conn, http.StatusServiceUnavailable, "nothing is registered\n")
	register(t, conn, addr)
	wait(t, conn, http.StatusOK, "standing "+record)

	proxy.Refuse()
	wait(t, conn, http.StatusOK, "unknown "+record)
	late := connect(t, proxy.Addr(), etcd.WithBackgroundRegister())
	register(t, late, otherAddr)
	wait(t, late, http.StatusServiceUnavailable, "lost "+otherRecord)

	proxy.Forward()
	wait(t, conn, http.StatusOK, "standing "+record)
	wait(t, late, http.StatusOK, "standing "+otherRecord)
}

// TestDrainedIsReady: an operator's will is as it should be; an address that another process took is not.
func TestDrainedIsReady(t *testing.T) {
	cluster := etcdtest.Start(t)
	conn := connect(t, cluster.Endpoints()[0])
	register(t, conn, addr)
	if _, _, err := conn.SetMark(context.Background(), "Hello", addr, etcd.Mark{Drain: true}, 0); err != nil {
		t.Fatal(err)
	}
	wait(t, conn, http.StatusOK, "drained "+record)
	if _, err := conn.ClearMark(context.Background(), "Hello", addr, 0); err != nil {
		t.Fatal(err)
	}
	wait(t, conn, http.StatusOK, "standing "+record)

	// One of two records is enough to be unready.
	register(t, conn, otherAddr)
	wait(t, conn, http.StatusOK, "standing "+otherRecord+"standing "+record)
	register(t, connect(t, cluster.Endpoints()[0]), addr)
	wait(t, conn, http.StatusServiceUnavailable, "standing "+otherRecord+"taken "+record)
}
