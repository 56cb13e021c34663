package main

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/cloudwego/kitex/pkg/registry"
	"github.com/cloudwego/kitex/server"

	"github.com/kitex-contrib/kitex-etcd/example/kitex_gen/api"
	"github.com/kitex-contrib/kitex-etcd/example/kitex_gen/api/hello"
	"github.com/kitex-contrib/kitex-etcd/example/kitex_gen/pb"
	"github.com/kitex-contrib/kitex-etcd/example/kitex_gen/pb/ticker"
	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
)

// serveHello registers a server of Hello and serves until SIGTERM or SIGINT. Then it takes its record out of etcd,
// gives the clients a moment to see that, answers what is under way, and returns.
func serveHello(conn *etcd.Conn, name string) error {
	svr, err := hello.NewHelloServerWithEtcd(&helloImpl{name}, conn, serverOptions(name)...)
	if err != nil {
		return err
	}
	return svr.Run()
}

// serveTicker does the same for Ticker, a streaming service.
func serveTicker(conn *etcd.Conn, name string) error {
	svr, err := ticker.NewTickerServerWithEtcd(new(tickerImpl), conn, serverOptions(name)...)
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

type helloImpl struct{ name string }

func (h *helloImpl) Echo(ctx context.Context, req *api.Request) (*api.Response, error) {
	return &api.Response{Message: req.Message, Server: h.name}, nil
}

type tickerImpl struct{}

func (t *tickerImpl) Watch(req *pb.WatchRequest, stream pb.Ticker_WatchServer) error {
	if req.IntervalMs <= 0 {
		return fmt.Errorf("interval_ms is %d, want more than 0", req.IntervalMs)
	}
	ticks := time.NewTicker(time.Duration(req.IntervalMs) * time.Millisecond)
	defer ticks.Stop()
	for n := int64(1); ; n++ {
		if err := stream.Send(&pb.Tick{Number: n}); err != nil {
			return err
		}
		select {
		case <-ticks.C:
		case <-stream.Context().Done():
			return nil
		}
	}
}
