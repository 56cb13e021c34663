package main

import (
	"context"
	"fmt"
	"time"

	"github.com/cloudwego/kitex/pkg/loadbalance"
	"github.com/cloudwego/kitex/pkg/loadbalance/lbcache"
)

// idleFamily is clients that do not call for so long that Kitex forgets what it had found.
func idleFamily() family {
	const clients, calls = 5, 50
	return family{
		name:   "idle",
		rounds: 1,
		about: fmt.Sprintf("etcd is down, and %d clients do not call for 60 s: Kitex forgets a service after 15 to 30 s. Then each calls %d times at "+
			"once. In a quick run Kitex is told to forget it after 2 to 4 s, and they wait for 5 s", clients, calls),
		rows: []row{
			{name: "idle_failed", what: fmt.Sprintf("failed calls of a client, of %d; one that takes longer than 5 s has failed", calls), unit: count,
				targets: []target{atMost(0)}},
			{name: "idle_slowest", what: "the slowest call of a client", unit: duration},
		},
		open: func(b *bench) ([]side, error) {
			server, err := b.serve()
			if err != nil {
				return nil, err
			}
			var cache lbcache.Options
			if b.quick {
				cache.ExpireInterval = 2 * time.Second
			}
			return eachSide(func(ctx context.Context, lib string) (values, error) {
				callers := make([]*caller, clients)
				for i := range callers {
					service := fmt.Sprintf("bench-idle-%s-%d", lib, i)
					if err := b.etcd.put(ctx, []pair{kitexRecord(service, address(0)), kitexRecord(service, address(1))}); err != nil {
						return nil, err
					}
					if callers[i], err = b.newCaller(lib, service, callerOptions{
						endpoints: b.etcd.endpoints, server: server, balancer: loadbalance.NewWeightedBalancer(), cache: cache,
					}); err != nil {
						return nil, err
					}
					if _, err := callers[i].call(ctx); err != nil {
						return nil, err
					}
				}
				if err := b.etcd.command("stop"); err != nil {
					return nil, err
				}
				if err := pause(ctx, time.Duration(b.pick(60, 5))*time.Second); err != nil {
					return nil, err
				}
				v, err := beside(clients, func(i int) (values, error) { return callAtOnce(ctx, callers[i], calls) })
				if err != nil {
					return nil, err
				}
				return v, b.etcd.command("start")
			}), nil
		},
	}
}

func callAtOnce(ctx context.Context, c *caller, calls int) (values, error) {
	const patience = 5 * time.Second
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	answers := make(chan error, calls)
	begin := time.Now()
	for range calls {
		go func() {
			_, err := c.call(ctx)
			answers <- err
		}()
	}
	failed := calls
	for range calls {
		select {
		case err := <-answers:
			if err == nil {
				failed--
			}
		case <-ctx.Done(): // calls do not always look at it
		}
	}
	return values{"idle_failed": {float64(failed)}, "idle_slowest": {float64(time.Since(begin))}}, nil
}
