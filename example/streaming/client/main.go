// Client reads one stream of Ticker until Ctrl-C.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/cloudwego/kitex/client/streamclient"

	"github.com/kitex-contrib/kitex-etcd/example/streaming/kitex_gen/pb"
	"github.com/kitex-contrib/kitex-etcd/example/streaming/kitex_gen/pb/ticker"
	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
)

func main() {
	endpoints := flag.String("etcd", "127.0.0.1:2379", "comma-separated `endpoints` of etcd")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *endpoints); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, endpoints string) error {
	conn, err := etcd.Connect(strings.Split(endpoints, ","))
	if err != nil {
		return err
	}
	defer conn.Close()
	// Kitex's default of 50 ms to connect is short for a busy machine.
	//lint:ignore SA1019 what shall take its place asks for Kitex's -streamx
	cli, err := ticker.NewTickerStreamClientWithEtcd(conn, streamclient.WithConnectTimeout(time.Second))
	if err != nil {
		return err
	}
	// Kitex closes a client, and its streams with it, when nothing refers to the client any more.
	defer runtime.KeepAlive(cli)
	stream, err := cli.Watch(ctx, &pb.WatchRequest{IntervalMs: 300})
	if err != nil {
		return err
	}
	for {
		tick, err := stream.Recv()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		fmt.Println("tick", tick.Number)
	}
}
