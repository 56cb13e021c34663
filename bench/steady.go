package main

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/stats"

	"github.com/cloudwego/kitex/pkg/loadbalance"
)

// steadyFamily is what clients cost etcd while nothing changes. Each client is as if in a process of its own.
func steadyFamily(clients, n int) family {
	return family{
		name:  "steady",
		quick: 2,
		about: fmt.Sprintf("What %d clients of a service of %d, a process each, ask of etcd while nothing changes: means over all of the turns, "+
			"which are 20 s each, or 5 s in a quick run, and count on during those of the other side", clients, n),
		rows: []row{
			{name: "steady_reads", what: "answers that hold instances", unit: perSec, mean: true, targets: []target{atMost(0)}},
			{name: "steady_requests", what: "all Range requests, those included that only look for a newer revision", unit: perSec, mean: true},
			{name: "steady_bytes", what: "both directions, HTTP/2 and its pings included", unit: sizeRate, mean: true, targets: []target{atMost(1000)}},
		},
		open: func(b *bench) ([]side, error) {
			server, err := b.serve()
			if err != nil {
				return nil, err
			}
			const service = "bench-steady"
			if err := peers[0].seed(b, service, n); err != nil {
				return nil, err
			}
			var sides []side
			var counts []*steady
			for _, lib := range []string{ours, before} {
				s := new(steady)
				if s.proxy, err = b.proxy(); err != nil {
					return nil, err
				}
				for range clients {
					c, err := b.newCaller(lib, service, callerOptions{
						endpoints: s.proxy.endpoints(),
						etcd:      func(c *clientv3.Config) { c.DialOptions = []grpc.DialOption{grpc.WithStatsHandler(s)} },
						server:    server,
						balancer:  loadbalance.NewWeightedBalancer(),
					})
					if err != nil {
						return nil, err
					}
					if _, err := c.call(b.ctx); err != nil {
						return nil, err
					}
					b.keepCalling(c)
				}
				counts = append(counts, s)
				sides = append(sides, side{lib, func(ctx context.Context) (values, error) {
					return s.turn(ctx, time.Duration(b.pick(20, 5))*time.Second)
				}})
			}
			// A Conn that has connected compares each list with etcd once, within 10 s: that is of the beginning, too.
			if err := pause(b.ctx, 12*time.Second); err != nil {
				return nil, err
			}
			for _, s := range counts {
				s.forget()
			}
			return sides, nil
		},
	}
}

// keepCalling keeps Kitex from dropping a client's service as one that is not called any more.
func (b *bench) keepCalling(c *caller) {
	ctx, stop := context.WithCancel(b.ctx)
	b.cleanup(stop)
	go func() {
		for ctx.Err() == nil {
			_, _ = c.call(ctx)
			select {
			case <-time.After(2 * time.Second):
			case <-ctx.Done():
			}
		}
	}()
}

// steady counts what the clients of one side ask.
type steady struct {
	proxy    *proxy
	requests atomic.Int64
	reads    atomic.Int64
	since    time.Time // of what is counted
}

// forget begins to count: what it took to begin is not counted.
func (s *steady) forget() {
	s.requests.Store(0)
	s.reads.Store(0)
	s.proxy.bytes.Store(0)
	s.since = time.Now()
}

// turn lets time pass and counts since the turn before, other sides' turns included: they are in nobody's way here.
func (s *steady) turn(ctx context.Context, length time.Duration) (values, error) {
	select {
	case <-time.After(length):
	case <-ctx.Done():
	}
	now := time.Now()
	per := 1 / now.Sub(s.since).Seconds()
	s.since = now
	return values{
		"steady_requests": {float64(s.requests.Swap(0)) * per},
		"steady_reads":    {float64(s.reads.Swap(0)) * per},
		"steady_bytes":    {float64(s.proxy.bytes.Swap(0)) * per},
	}, ctx.Err()
}

type rangeRequest struct{}

func (s *steady) TagRPC(ctx context.Context, info *stats.RPCTagInfo) context.Context {
	if info.FullMethodName == "/etcdserverpb.KV/Range" {
		s.requests.Add(1)
		return context.WithValue(ctx, rangeRequest{}, true)
	}
	return ctx
}

func (s *steady) HandleRPC(ctx context.Context, rs stats.RPCStats) {
	const two = 200 // bytes: more than a key alone takes, less than two instances
	if in, ok := rs.(*stats.InPayload); ok && ctx.Value(rangeRequest{}) != nil && in.Length > two {
		s.reads.Add(1)
	}
}

func (s *steady) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (s *steady) HandleConn(context.Context, stats.ConnStats)                       {}
