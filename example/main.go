// Example shows servers and clients with etcd. To copy something, use the folders beside it: plain, multi, streaming, chain,
// lanes.
//
//	go run ./example [-etcd host:port,...]
//
// starts three servers of Hello and one of Ticker, each in a separate process, and calls them without a pause while one
// server stops and another starts. It shows what is in etcd meanwhile, and prints a summary. The etcd is embedded, or, with
// -etcd, yours. The services are those of plain and streaming.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/cloudwego/kitex/pkg/klog"

	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
)

// prefix keeps the example's records apart from those of real services in the same etcd.
const prefix = "kitex-etcd-example"

func main() {
	klog.SetLevel(klog.LevelWarn)
	endpoints := flag.String("etcd", "", "comma-separated `endpoints` of an etcd cluster (default an embedded one)")
	flag.Parse()
	if os.Getenv(followVar) != "" {
		go follow()
	}
	if err := run(*endpoints, flag.Arg(0)); err != nil {
		fmt.Fprintln(os.Stderr, "example:", err)
		os.Exit(1)
	}
}

func run(endpoints, name string) error {
	if name == "" {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		return demo(ctx, endpoints)
	}

	if endpoints == "" {
		return fmt.Errorf("server %s needs -etcd host:port", name)
	}
	// One Conn per process, however many servers and clients use it.
	conn, err := connect(endpoints)
	if err != nil {
		return err
	}
	defer conn.Close()
	switch {
	case strings.HasPrefix(name, "hello-"):
		return serveHello(conn, name)
	case strings.HasPrefix(name, "ticker-"):
		return serveTicker(conn, name)
	}
	return fmt.Errorf("no server is called %q: want hello-… or ticker-…", name)
}

func connect(endpoints string) (*etcd.Conn, error) {
	return etcd.Connect(strings.Split(endpoints, ","), etcd.WithEtcdServicePrefix(prefix))
}
