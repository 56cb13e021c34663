package main

import (
	"context"
	"fmt"
	"os/exec"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/kitex-contrib/kitex-etcd/example/plain/kitex_gen/api/hello"
	"github.com/kitex-contrib/kitex-etcd/example/streaming/kitex_gen/pb/ticker"
	"github.com/kitex-contrib/kitex-etcd/runtime/etcdtest"
)

// bound is what the demo never exceeds; it takes about half of that.
const bound = 18 * time.Second

func demo(ctx context.Context, endpoints string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, bound, fmt.Errorf("the demo did not end within %v", bound))
	defer cancel()

	if endpoints == "" {
		cluster, err := etcdtest.New()
		if err != nil {
			return err
		}
		defer cluster.Close()
		endpoints = cluster.Endpoints()[0]
		say("an embedded etcd serves on %s", endpoints)
	}
	conn, err := connect(endpoints)
	if err != nil {
		return err
	}
	defer conn.Close()
	records := records{conn.Client()}
	if err := records.ping(ctx); err != nil {
		return fmt.Errorf("no etcd answers at %s; start one, or leave out -etcd to use an embedded one: %w", endpoints, err)
	}

	servers := servers{endpoints: endpoints, running: make(map[string]*exec.Cmd)}
	defer servers.stopAll()
	for _, name := range []string{"ticker-1", "hello-1", "hello-2", "hello-3"} {
		if err := servers.start(name); err != nil {
			return err
		}
	}
	if err := records.await(ctx, ticker.TickerServiceName, "ticker-1"); err != nil {
		return err
	}
	if err := records.await(ctx, hello.HelloServiceName, "hello-1", "hello-2", "hello-3"); err != nil {
		return err
	}

	tally := newTally()
	calling, hangUp := context.WithCancel(ctx)
	defer hangUp()
	clients, ctx := errgroup.WithContext(calling)
	clients.Go(func() error { return callHello(ctx, conn, tally.answer) })
	clients.Go(func() error { return watchTicker(ctx, conn, tally.tick) })
	clients.Go(func() error { return tally.report(ctx) })
	say("a client calls Hello every 5 ms, another holds a stream of Ticker open")
	if err := pause(ctx, 2*time.Second); err != nil {
		return err
	}

	say("hello-2 is told to stop (SIGTERM) …")
	if err := servers.stop("hello-2"); err != nil {
		return err
	}
	say("… and has ended")
	if err := records.await(ctx, hello.HelloServiceName, "hello-1", "hello-3"); err != nil {
		return err
	}
	if err := pause(ctx, time.Second); err != nil {
		return err
	}

	say("hello-4 starts …")
	if err := servers.start("hello-4"); err != nil {
		return err
	}
	if err := records.await(ctx, hello.HelloServiceName, "hello-1", "hello-3", "hello-4"); err != nil {
		return err
	}
	if err := pause(ctx, 2*time.Second); err != nil {
		return err
	}

	hangUp()
	if err := clients.Wait(); err != nil {
		return err
	}
	return tally.sumUp()
}

var began = time.Now()

// say prints a line that begins with the seconds since the program started.
func say(format string, args ...any) {
	fmt.Printf("%5.1fs  %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
}

// pause waits for d, or for what ends ctx, which it returns.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
