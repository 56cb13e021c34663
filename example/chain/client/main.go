// Client calls Checkout once.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"strings"
	"time"

	"github.com/cloudwego/kitex/client"

	"github.com/kitex-contrib/kitex-etcd/example/chain/kitex_gen/shop/checkout"
	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
)

func main() {
	endpoints := flag.String("etcd", "127.0.0.1:2379", "comma-separated `endpoints` of etcd")
	flag.Parse()
	if err := run(context.Background(), *endpoints); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, endpoints string) error {
	conn, err := etcd.Connect(strings.Split(endpoints, ","))
	if err != nil {
		return err
	}
	defer conn.Close()
	cli, err := checkout.NewCheckoutClientWithEtcd(conn,
		client.WithConnectTimeout(time.Second)) // Kitex's default of 50 ms is short for a busy machine
	if err != nil {
		return err
	}
	total, err := cli.Total(ctx, []string{"apples", "pears"})
	if err != nil {
		return err
	}
	fmt.Println("total", total)
	return nil
}
