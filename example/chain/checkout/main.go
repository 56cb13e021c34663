// Checkout serves Checkout, and calls Prices for it, until SIGTERM or Ctrl-C.
package main

import (
	"flag"
	"log"
	"net"
	"strings"
	"time"

	"github.com/cloudwego/kitex/client"
	"github.com/cloudwego/kitex/server"

	"github.com/kitex-contrib/kitex-etcd/example/chain"
	"github.com/kitex-contrib/kitex-etcd/example/chain/kitex_gen/shop/checkout"
	"github.com/kitex-contrib/kitex-etcd/example/chain/kitex_gen/shop/prices"
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
	conn, err := etcd.Connect(strings.Split(endpoints, ",")) // one, for the server and the client
	if err != nil {
		return err
	}
	// Last of all, when Run has returned: until then, handlers may be calling Prices.
	defer conn.Close()
	cli, err := prices.NewPricesClientWithEtcd(conn,
		client.WithConnectTimeout(time.Second)) // Kitex's default of 50 ms is short for a busy machine
	if err != nil {
		return err
	}
	svr, err := checkout.NewCheckoutServerWithEtcd(&chain.CheckoutHandler{Prices: cli}, conn,
		server.WithServiceAddr(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})) // a free port
	if err != nil {
		return err
	}
	return svr.Run()
}
