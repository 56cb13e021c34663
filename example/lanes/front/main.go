// Front serves Front, in the base or, with -lane, in a lane, until SIGTERM or Ctrl-C.
package main

import (
	"cmp"
	"flag"
	"log"
	"net"
	"strings"
	"time"

	"github.com/cloudwego/kitex/client"
	"github.com/cloudwego/kitex/pkg/registry"
	"github.com/cloudwego/kitex/server"

	"github.com/kitex-contrib/kitex-etcd/example/lanes"
	"github.com/kitex-contrib/kitex-etcd/example/lanes/kitex_gen/lanes/back"
	"github.com/kitex-contrib/kitex-etcd/example/lanes/kitex_gen/lanes/front"
	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
)

func main() {
	endpoints := flag.String("etcd", "127.0.0.1:2379", "comma-separated `endpoints` of etcd")
	lane := flag.String("lane", "", "the `lane` of this server; empty for the base")
	flag.Parse()
	if err := run(*endpoints, *lane); err != nil {
		log.Fatal(err)
	}
}

func run(endpoints, lane string) error {
	conn, err := etcd.Connect(strings.Split(endpoints, ","))
	if err != nil {
		return err
	}
	defer conn.Close()
	cli, err := back.NewBackClientWithEtcd(conn, append(lanes.ClientOptions(),
		client.WithConnectTimeout(time.Second))...) // Kitex's default of 50 ms is short for a busy machine
	if err != nil {
		return err
	}
	tags := make(map[string]string)
	if lane != "" {
		tags[lanes.Tag] = lane
	}
	svr, err := front.NewFrontServerWithEtcd(&lanes.FrontHandler{Name: "front of " + cmp.Or(lane, "base"), Back: cli}, conn,
		lanes.ServerOption(),
		server.WithRegistryInfo(&registry.Info{Tags: tags}),
		server.WithServiceAddr(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})) // a free port
	if err != nil {
		return err
	}
	return svr.Run()
}
