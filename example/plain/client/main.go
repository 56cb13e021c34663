// Client calls Hello three times a second, until Ctrl-C.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/cloudwego/kitex/client"

	"github.com/kitex-contrib/kitex-etcd/example/plain/kitex_gen/api"
	"github.com/kitex-contrib/kitex-etcd/example/plain/kitex_gen/api/hello"
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
	cli, err := hello.NewHelloClientWithEtcd(conn,
		client.WithConnectTimeout(time.Second)) // Kitex's default of 50 ms is short for a busy machine
	if err != nil {
		return err
	}
	for ctx.Err() == nil {
		resp, err := cli.Echo(context.Background(), &api.Request{Message: "hello"}) // a call that was begun may end
		if err != nil {
			fmt.Println("failed:", err)
		} else {
			fmt.Println(resp.Message, "from", resp.Server)
		}
		select {
		case <-time.After(time.Second / 3):
		case <-ctx.Done():
		}
	}
	return nil
}
