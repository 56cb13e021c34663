package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"time"

	"go.etcd.io/etcd/server/v3/etcdmain"

	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
)

// startGRPCProxy starts etcd's proxy in front of endpoint, and returns when it serves.
func startGRPCProxy(ctx context.Context, endpoint string) (c *child, addr string, err error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, "", err
	}
	addr = ln.Addr().String()
	ln.Close()
	if c, err = startChild("grpcproxy", []string{endpoint, addr}); err != nil {
		return nil, "", err
	}
	client, err := newClient([]string{addr})
	if err == nil {
		defer client.Close()
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		_, err = client.Get(ctx, etcd.DefaultPrefix)
	}
	if err != nil {
		c.close()
		return nil, "", fmt.Errorf("start the gRPC proxy at %s: %w", addr, err)
	}
	return c, addr, nil
}

// serveGRPCProxy is what the process does.
func serveGRPCProxy(args []string) (err error) {
	if os.Stderr, err = os.OpenFile(os.DevNull, os.O_WRONLY, 0); err != nil { // its log
		return err
	}
	go func() {
		awaitParent()
		os.Exit(0)
	}()
	os.Args = []string{"etcd", "grpc-proxy", "start", "--endpoints", args[0], "--listen-addr", args[1]}
	etcdmain.Main(os.Args)
	return nil
}
