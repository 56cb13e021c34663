package main

import (
	"context"
	"slices"
	"sync/atomic"
	"time"

	"github.com/cloudwego/kitex/pkg/discovery"
	"github.com/cloudwego/kitex/pkg/loadbalance"
)

// A view is Kitex's standard balancer, which tells from which instances the next call can pick.
type view struct {
	loadbalance.Loadbalancer
	list atomic.Pointer[[]discovery.Instance]
}

func newView() *view { return &view{Loadbalancer: loadbalance.NewWeightedBalancer()} }

func (v *view) GetPicker(res discovery.Result) loadbalance.Picker {
	v.list.CompareAndSwap(nil, &res.Instances) // no change tells of the first list
	return v.Loadbalancer.GetPicker(res)
}

func (v *view) Rebalance(ch discovery.Change) {
	v.Loadbalancer.(loadbalance.Rebalancer).Rebalance(ch)
	v.list.Store(&ch.Result.Instances)
}

func (v *view) Delete(ch discovery.Change) { v.Loadbalancer.(loadbalance.Rebalancer).Delete(ch) }

func (v *view) has(addr string) bool {
	list := v.list.Load()
	return list != nil && slices.ContainsFunc(*list, func(i discovery.Instance) bool { return i.Address().String() == addr })
}

func (v *view) empty() bool {
	list := v.list.Load()
	return list != nil && len(*list) == 0
}

// lastFamily is a service whose last server goes.
func lastFamily() family {
	const clients = 3
	limit := func(b *bench) time.Duration { return time.Duration(b.pick(15, 6)) * time.Second }
	return family{
		name:   "last",
		rounds: 2,
		quick:  1,
		about: "The only server of a service deregisters. Kitex looks every 5 s: 15 s (6 s in a quick run) mean that its client had " +
			"not seen it by then, and has a server that is gone",
		rows: []row{
			{name: "last", what: "until a Kitex client has nothing left to pick", unit: duration, targets: []target{atMost(float64(100 * time.Millisecond))}},
		},
		open: func(b *bench) ([]side, error) {
			server, err := b.serve()
			if err != nil {
				return nil, err
			}
			next := 0
			return eachSide(func(ctx context.Context, lib string) (values, error) {
				next += clients
				return beside(clients, func(i int) (values, error) { return lastTrial(ctx, b, lib, server, next+i, limit(b)) })
			}), nil
		},
	}
}

func lastTrial(ctx context.Context, b *bench, lib, server string, i int, limit time.Duration) (values, error) {
	addr := address(i)
	service := "bench-last-" + addr[:len(addr)-len(":8888")]
	r, info, err := b.registered(lib, service, addr)
	if err != nil {
		return nil, err
	}
	v := newView()
	c, err := b.newCaller(lib, service, callerOptions{endpoints: b.etcd.endpoints, server: server, balancer: v})
	if err != nil {
		return nil, err
	}
	if _, err := c.call(ctx); err != nil {
		return nil, err
	}
	b.keepCalling(c)
	gone := make(chan error, 1)
	begin := time.Now()
	go func() { gone <- r.Deregister(info) }()
	took := within(ctx, begin, limit, v.empty)
	return values{"last": {took}}, <-gone
}

// eachSide returns ours and the predecessor, which take the same turn.
func eachSide(turn func(ctx context.Context, lib string) (values, error)) []side {
	var sides []side
	for _, lib := range []string{ours, before} {
		sides = append(sides, side{lib, func(ctx context.Context) (values, error) { return turn(ctx, lib) }})
	}
	return sides
}
