package main

import (
	"net"

	"github.com/cloudwego/kitex/pkg/registry"
	"github.com/cloudwego/kitex/server"

	"github.com/kitex-contrib/kitex-etcd/example/plain"
	"github.com/kitex-contrib/kitex-etcd/example/plain/kitex_gen/api/hello"
	"github.com/kitex-contrib/kitex-etcd/example/streaming"
	"github.com/kitex-contrib/kitex-etcd/example/streaming/kitex_gen/pb/ticker"
	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
)

// serveHello registers a server of Hello and serves until SIGTERM or SIGINT. Then it takes its record out of etcd,
// gives the clients a moment to see that, answers what is under way, and returns.
func serveHello(conn *etcd.Conn, name string) error {
	svr, err := hello.NewHelloServerWithEtcd(&plain.Handler{Name: name}, conn, serverOptions(name)...)
	if err != nil {
		return err
	}
	return svr.Run()
}

// serveTicker does the same for Ticker, a streaming service.
func serveTicker(conn *etcd.Conn, name string) error {
	svr, err := ticker.NewTickerServerWithEtcd(new(streaming.Handler), conn, serverOptions(name)...)
	if err != nil {
		return err
	}
	return svr.Run()
}

// serverOptions are plain Kitex options: a free port, as there are several servers on this machine, and a tag, which
// clients find in the record.
func serverOptions(name string) []server.Option {
	return []server.Option{
		server.WithServiceAddr(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}),
		server.WithRegistryInfo(&registry.Info{Tags: map[string]string{"name": name}}),
	}
}
