// Client calls Stock and Orders once each.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"strings"
	"time"

	"github.com/cloudwego/kitex/client"

	"github.com/kitex-contrib/kitex-etcd/example/multi/kitex_gen/shop"
	"github.com/kitex-contrib/kitex-etcd/example/multi/kitex_gen/shop/orders"
	"github.com/kitex-contrib/kitex-etcd/example/multi/kitex_gen/shop/stock"
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
	timeout := client.WithConnectTimeout(time.Second) // Kitex's default of 50 ms is short for a busy machine
	// The clients do not know that one server has both.
	stocked, err := stock.NewStockClientWithEtcd(conn, timeout)
	if err != nil {
		return err
	}
	ordered, err := orders.NewOrdersClientWithEtcd(conn, timeout)
	if err != nil {
		return err
	}
	item := &shop.Item{Name: "apples", Quantity: 3}
	for _, call := range []func() (*shop.Reply, error){
		func() (*shop.Reply, error) { return stocked.Count(ctx, item) },
		func() (*shop.Reply, error) { return ordered.Place(ctx, item) },
	} {
		reply, err := call()
		if err != nil {
			return err
		}
		fmt.Println(reply.Text)
	}
	return nil
}
