package main

import (
	"context"
	"fmt"
	"time"
)

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
	service := fmt.Sprintf("bench-last-%d", i)
	r, info, err := b.registered(lib, service, address(i))
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
