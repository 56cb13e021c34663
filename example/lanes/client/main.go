// Client calls Front once, in the base or in a lane.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"strings"
	"time"

	"github.com/bytedance/gopkg/cloud/metainfo"
	"github.com/cloudwego/kitex/client"

	"github.com/kitex-contrib/kitex-etcd/example/lanes"
	"github.com/kitex-contrib/kitex-etcd/example/lanes/kitex_gen/lanes/front"
	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
)

func main() {
	endpoints := flag.String("etcd", "127.0.0.1:2379", "comma-separated `endpoints` of etcd")
	lane := flag.String("lane", "", "the `lane` to call in; empty for the base")
	flag.Parse()
	if err := run(context.Background(), *endpoints, *lane); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, endpoints, lane string) error {
	conn, err := etcd.Connect(strings.Split(endpoints, ","))
	if err != nil {
		return err
	}
	defer conn.Close()
	cli, err := front.NewFrontClientWithEtcd(conn, append(lanes.ClientOptions(),
		client.WithConnectTimeout(time.Second))...) // Kitex's default of 50 ms is short for a busy machine
	if err != nil {
		return err
	}
	if lane != "" {
		ctx = metainfo.WithPersistentValue(ctx, lanes.Tag, lane)
	}
	places, err := cli.Places(ctx)
	if err != nil {
		return err
	}
	fmt.Println(strings.Join(places, ", "))
	return nil
}
