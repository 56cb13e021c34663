package main

import (
	"context"
	"fmt"
	"time"

	"github.com/cloudwego/kitex/client"
	clientv3 "go.etcd.io/etcd/client/v3"

	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
)

// drainFamily is a server that an operator takes out of service while it runs.
func drainFamily() family {
	const viewers = 5
	return family{
		name:  "drain",
		quick: 1,
		about: fmt.Sprintf("An operator's mark drains one of three servers, with %d calls per second and %d more clients, each with a Conn of its own. Then the "+
			"server is stopped and started at its address while the mark stands. registry-etcd has no such thing", callsPerSecond, viewers),
		rows: []row{
			{name: "drain_calls", what: "failed calls, until the mark has ended", unit: count, targets: []target{atMost(0)}},
			{name: "drain_follow", what: "from the writing of the mark until the server's record is gone", unit: duration},
			{name: "drain_out", what: "from when it is gone until no client's balancer has it", unit: duration,
				targets: []target{atMost(float64(10 * time.Millisecond))}},
			{name: "drain_restart", what: "attempts at the server in the 3 s after it has started again", unit: count, targets: []target{atMost(0)}},
			{name: "drain_back", what: "from the end of the mark until it has answered a call", unit: duration, targets: []target{atMost(float64(time.Second))}},
		},
		open: func(b *bench) ([]side, error) {
			turns := 0
			return []side{{ours, func(ctx context.Context) (values, error) {
				turns++
				return drainTurn(ctx, b, fmt.Sprintf("bench-drain-%d", turns), viewers)
			}}}, nil
		},
	}
}

func drainTurn(ctx context.Context, b *bench, service string, viewers int) (values, error) {
	servers, err := b.startServers(ctx, serverOf{lib: ours, service: service}, 3)
	if err != nil {
		return nil, err
	}
	defer func() { killAll(servers) }()
	drained := servers[0].addr
	v := victim{addr: drained, others: []string{servers[1].addr, servers[2].addr}}
	views := []*view{newView()}
	t, err := v.traffic(ctx, b, ours, service, callerOptions{timeout: crashTimeout, balancer: views[0], options: []client.Option{longPool()}})
	if err != nil {
		return nil, err
	}
	defer t.stop()
	for range viewers {
		seen := newView()
		c, err := b.newCaller(ours, service, callerOptions{endpoints: b.etcd.endpoints, balancer: seen})
		if err != nil {
			return nil, err
		}
		if _, err := c.call(ctx); err != nil {
			return nil, err
		}
		views = append(views, seen)
	}
	operator, err := b.connect()
	if err != nil {
		return nil, err
	}
	gone, err := b.deletion(ctx, kitexRecord(service, drained).key)
	if err != nil {
		return nil, err
	}
	begin := time.Now()
	mark, _, err := operator.SetMark(ctx, service, drained, etcd.Mark{Drain: true}, 0)
	if err != nil {
		return nil, err
	}
	went, err := gone()
	if err != nil {
		return nil, err
	}
	for _, seen := range views {
		for seen.has(drained) {
			if time.Since(went) > againLimit {
				return nil, fmt.Errorf("%s is drained, and still in a picker", drained)
			}
			time.Sleep(100 * time.Microsecond) // polled more often than await does: it takes a millisecond
		}
	}
	out := time.Since(went)
	if err := servers[0].stop(); err != nil {
		return nil, err
	}
	if servers[0], err = b.startServer(ctx, serverOf{lib: ours, service: service, addr: drained, drained: true}); err != nil {
		return nil, err
	}
	again := time.Now()
	if err := pause(ctx, 3*time.Second); err != nil {
		return nil, err
	}
	attempts := t.attemptsAt(drained, again)
	at := time.Now()
	if _, err := operator.ClearMark(ctx, service, drained, mark.Revision); err != nil {
		return nil, err
	}
	back := within(ctx, at, againLimit, func() bool { return t.answered(drained, at) })
	t.stop()
	return values{
		"drain_calls":   {float64(len(t.failedCalls(begin)))},
		"drain_follow":  {float64(went.Sub(begin))},
		"drain_out":     {float64(max(0, out))},
		"drain_restart": {float64(attempts)},
		"drain_back":    {back},
	}, ctx.Err()
}

// deletion watches a key. gone returns when that is deleted.
func (b *bench) deletion(ctx context.Context, key string) (gone func() (time.Time, error), err error) {
	ctx, cancel := context.WithTimeout(ctx, againLimit)
	changes := b.etcd.client.Watch(ctx, key, clientv3.WithFilterPut(), clientv3.WithCreatedNotify())
	if resp := <-changes; resp.Err() != nil {
		cancel()
		return nil, resp.Err()
	}
	return func() (time.Time, error) {
		defer cancel()
		if resp := <-changes; len(resp.Events) == 0 {
			return time.Time{}, fmt.Errorf("%s is not deleted: %w", key, ctx.Err())
		}
		return time.Now(), nil
	}, nil
}
