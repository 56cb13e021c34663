package main

import (
	"context"
	"fmt"
	"runtime"
	"time"

	"github.com/cloudwego/kitex/client"
	"github.com/cloudwego/kitex/client/streamclient"

	"github.com/kitex-contrib/kitex-etcd/example/plain/kitex_gen/api"
	"github.com/kitex-contrib/kitex-etcd/example/plain/kitex_gen/api/hello"
	"github.com/kitex-contrib/kitex-etcd/example/streaming/kitex_gen/pb"
	"github.com/kitex-contrib/kitex-etcd/example/streaming/kitex_gen/pb/ticker"
	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
)

// callHello calls Hello every 5 ms until ctx ends, and tells done which server answered, or how the call failed.
func callHello(ctx context.Context, conn *etcd.Conn, done func(server string, err error)) error {
	cli, err := hello.NewHelloClientWithEtcd(conn,
		client.WithConnectTimeout(time.Second), // Kitex's default of 50 ms is short for a busy machine
		client.WithRPCTimeout(3*time.Second))
	if err != nil {
		return err
	}
	for ctx.Err() == nil {
		resp, err := cli.Echo(context.Background(), &api.Request{Message: "hello"}) // a call that was begun may end
		if err != nil {
			done("", err)
		} else {
			done(resp.Server, nil)
		}
		time.Sleep(5 * time.Millisecond) // the rate of calls that the show wants
	}
	return nil
}

// watchTicker reads one stream of Ticker until ctx ends, and tells done of every tick.
func watchTicker(ctx context.Context, conn *etcd.Conn, done func()) error {
	//lint:ignore SA1019 what shall take its place asks for Kitex's -streamx
	cli, err := ticker.NewTickerStreamClientWithEtcd(conn, streamclient.WithConnectTimeout(time.Second))
	if err != nil {
		return err
	}
	// Kitex closes a client, and its streams with it, when nothing refers to the client any more.
	defer runtime.KeepAlive(cli)
	stream, err := cli.Watch(ctx, &pb.WatchRequest{IntervalMs: 100})
	for err == nil {
		if _, err = stream.Recv(); err == nil {
			done()
		}
	}
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("stream of Ticker: %w", err)
}
