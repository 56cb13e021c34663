// Server serves Orders and Stock on one port until SIGTERM or Ctrl-C.
package main

import (
	"flag"
	"log"
	"net"
	"strings"

	"github.com/cloudwego/kitex/server"

	"github.com/kitex-contrib/kitex-etcd/example/multi"
	"github.com/kitex-contrib/kitex-etcd/example/multi/kitex_gen/shop/orders"
	"github.com/kitex-contrib/kitex-etcd/example/multi/kitex_gen/shop/stock"
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
	// Run registers the server under every name given here, or, when one of them cannot be, under none.
	opts := conn.ServerOptions(orders.OrdersServiceName, stock.StockServiceName)
	opts = append(opts, server.WithServiceAddr(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})) // a free port
	svr := server.NewServer(opts...)
	if err := orders.RegisterService(svr, new(multi.Orders)); err != nil {
		return err
	}
	if err := stock.RegisterService(svr, new(multi.Stock)); err != nil {
		return err
	}
	return svr.Run()
}
