// Server serves Hello until SIGTERM or Ctrl-C.
package main

import (
	"flag"
	"log"
	"net"
	"strings"

	"github.com/cloudwego/kitex/server"

	"github.com/kitex-contrib/kitex-etcd/example/plain"
	"github.com/kitex-contrib/kitex-etcd/example/plain/kitex_gen/api/hello"
	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
)

func main() {
	endpoints := flag.String("etcd", "127.0.0.1:2379", "comma-separated `endpoints` of etcd")
	name := flag.String("name", "hello-1", "the server's `name` in its answers")
	flag.Parse()
	if err := run(*endpoints, *name); err != nil {
		log.Fatal(err)
	}
}

func run(endpoints, name string) error {
	conn, err := etcd.Connect(strings.Split(endpoints, ","))
	if err != nil {
		return err
	}
	defer conn.Close()
	svr, err := hello.NewHelloServerWithEtcd(&plain.Handler{Name: name}, conn,
		server.WithServiceAddr(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})) // a free port, for several on one machine
	if err != nil {
		return err
	}
	// Run registers the server. When the process is told to stop, it takes the record out of etcd, gives the clients a
	// moment to see that, answers what is under way, and returns.
	return svr.Run()
}
