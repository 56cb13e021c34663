// Server serves Ticker until SIGTERM or Ctrl-C.
package main

import (
	"flag"
	"log"
	"net"
	"strings"

	"github.com/cloudwego/kitex/server"

	"github.com/kitex-contrib/kitex-etcd/example/streaming"
	"github.com/kitex-contrib/kitex-etcd/example/streaming/kitex_gen/pb/ticker"
	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
)

func main() {
	endpoints := flag.String("etcd", "127.0.0.1:2379", "comma-separated `endpoints` of etcd")
	flag.Parse()
	if err := run(*endpoints); err != nil {
		log.Fatal(err)
	}
}

func run(endpoints string) error {
	conn, err := etcd.Connect(strings.Split(endpoints, ","))
	if err != nil {
		return err
	}
	defer conn.Close()
	svr, err := ticker.NewTickerServerWithEtcd(new(streaming.Handler), conn,
		server.WithServiceAddr(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})) // a free port
	if err != nil {
		return err
	}
	return svr.Run()
}
