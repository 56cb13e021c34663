package main

import (
	"context"
	"time"

	"github.com/cloudwego/kitex/pkg/loadbalance"
)

// clustersFamily is a process with clients of two etcd clusters, of which one is down.
func clustersFamily() family {
	return family{
		name:   "clusters",
		rounds: 1,
		about: "A process calls services of two etcd clusters, one of which is down. Instances of the other come, one a second; 40 s (8 s in " +
			"a quick run) mean that one was not seen by then",
		rows: []row{
			{name: "clusters_up", what: "from the beginning of the Put of an instance until the next call can pick it, before the outage", unit: duration},
			{name: "clusters_down", what: "the same during the outage", unit: duration, targets: []target{atMost(float64(time.Second))}},
		},
		open: func(b *bench) ([]side, error) {
			other, err := startEtcd()
			if err != nil {
				return nil, err
			}
			b.cleanup(other.close)
			server, err := b.serve()
			if err != nil {
				return nil, err
			}
			return eachSide(func(ctx context.Context, lib string) (values, error) { return clustersTurn(ctx, b, other, lib, server) }), nil
		},
	}
}

func clustersTurn(ctx context.Context, b *bench, other *etcdProcess, lib, server string) (values, error) {
	service := "bench-clusters-" + lib
	seen := newView()
	for e, balancer := range map[*etcdProcess]loadbalance.Loadbalancer{b.etcd: seen, other: loadbalance.NewWeightedBalancer()} {
		if err := e.put(ctx, []pair{kitexRecord(service, address(0))}); err != nil {
			return nil, err
		}
		c, err := b.newCaller(lib, service, callerOptions{endpoints: e.endpoints, server: server, balancer: balancer})
		if err != nil {
			return nil, err
		}
		if _, err := c.call(ctx); err != nil {
			return nil, err
		}
		b.keepCalling(c)
	}
	n := b.pick(5, 2)
	arrive := func(name string, from int) (values, error) {
		return beside(n, func(i int) (values, error) {
			if err := pause(ctx, time.Duration(i)*time.Second); err != nil {
				return nil, err
			}
			addr := address(freshInstances + from + i)
			begin := time.Now()
			if err := b.etcd.put(ctx, []pair{kitexRecord(service, addr)}); err != nil {
				return nil, err
			}
			return values{name: {within(ctx, begin, time.Duration(b.pick(40, 8))*time.Second, func() bool { return seen.has(addr) })}}, nil
		})
	}
	v, err := arrive("clusters_up", 0)
	if err != nil {
		return nil, err
	}
	if err := other.command("stop"); err != nil {
		return nil, err
	}
	if err := pause(ctx, settled); err != nil { // Kitex has looked at the one that is down
		return nil, err
	}
	down, err := arrive("clusters_down", n)
	if err != nil {
		return nil, err
	}
	v["clusters_down"] = down["clusters_down"]
	return v, other.command("start")
}
