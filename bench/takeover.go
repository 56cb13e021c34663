package main

import (
	"context"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// takenFamily is an address that two processes register.
func takenFamily() family {
	const limit = 40 * time.Second
	return family{
		name:   "taken",
		rounds: 3,
		quick:  1,
		about: fmt.Sprintf("A newer process registers the address of an older one and deregisters it; the older one serves on. Three at once; %s mean not by "+
			"then, registry-etcd looks every 30 s", duration.format(float64(limit))),
		rows: []row{
			{name: "taken", what: "from when the newer one's record is gone until a Kitex client can pick the older one", unit: duration,
				targets: []target{atMost(float64(500 * time.Millisecond))}},
		},
		open: func(b *bench) ([]side, error) {
			turns := 0
			return eachSide(func(ctx context.Context, lib string) (values, error) {
				turns++
				return beside(b.pick(3, 1), func(i int) (values, error) {
					return takenTrial(ctx, b, lib, fmt.Sprintf("bench-taken-%d-%d", turns, i), limit)
				})
			}), nil
		},
	}
}

func takenTrial(ctx context.Context, b *bench, lib, service string, limit time.Duration) (values, error) {
	server, err := b.serve()
	if err != nil {
		return nil, err
	}
	for _, addr := range []string{address(0), address(1)} { // the other stays
		if _, _, err := b.registered(lib, service, addr); err != nil {
			return nil, err
		}
	}
	seen := newView()
	c, err := b.newCaller(lib, service, callerOptions{endpoints: b.etcd.endpoints, server: server, balancer: seen})
	if err != nil {
		return nil, err
	}
	if _, err := c.call(ctx); err != nil {
		return nil, err
	}
	b.keepCalling(c)
	newer, info, err := b.registered(lib, service, address(0))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	changes := b.etcd.client.Watch(ctx, kitexRecord(service, address(0)).key, clientv3.WithCreatedNotify())
	<-changes
	if err := pause(ctx, time.Second); err != nil { // the older one has seen that it is replaced
		return nil, err
	}
	done := make(chan error, 1)
	go func() { done <- newer.Deregister(info) }()
	var gone time.Time
	end := time.After(limit)
	for back := false; !back; {
		select {
		case resp := <-changes:
			for _, ev := range resp.Events {
				if ev.Type == clientv3.EventTypeDelete && gone.IsZero() {
					gone = time.Now()
				}
				back = !gone.IsZero() && ev.Type == clientv3.EventTypePut
			}
		case <-end:
			return values{"taken": {float64(limit)}}, <-done
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	took := within(ctx, gone, limit, func() bool { return seen.has(address(0)) })
	return values{"taken": {took}}, <-done
}
