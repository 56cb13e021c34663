package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/cloudwego/kitex/pkg/loadbalance"
)

const settled = 6 * time.Second // longer than Kitex looks away

// A fault is what is done to three servers that leave on purpose. What it leads to is over soon after do has returned.
type fault struct {
	name, about string
	do          func(ctx context.Context, b *bench, lib, service string, servers []*backend) error
}

func faultFamilies() []family {
	return []family{
		fault{"stop", "SIGTERM to one of three servers",
			func(_ context.Context, _ *bench, _, _ string, servers []*backend) error { return servers[0].stop() }}.family(),
		fault{"roll", "Each of three servers is stopped after its successor has come", roll}.family(),
	}
}

func roll(ctx context.Context, b *bench, lib, service string, servers []*backend) error {
	for i, s := range servers {
		next, err := b.startBackend(ctx, lib, service)
		if err != nil {
			return err
		}
		if err := pause(ctx, settled); err != nil { // as careful deployments do
			next.kill()
			return err
		}
		err = s.stop()
		servers[i] = next
		if err != nil {
			return err
		}
	}
	return nil
}

func (f fault) family() family {
	return family{
		name:  f.name,
		quick: 1,
		about: fmt.Sprintf("%s, with %d calls per second through a Kitex client. A failed attempt may be hidden from the caller by Kitex's choice of "+
			"another server; a failed call is not", f.about, callsPerSecond),
		rows: []row{
			{name: f.name + "_attempts", what: "failed attempts", unit: count, targets: []target{atMost(0)}},
			{name: f.name + "_calls", what: "failed calls", unit: count, targets: []target{atMost(0)}},
			{name: f.name + "_last", what: "from the fault to the beginning of the last failed attempt", unit: duration},
		},
		plots: []drawing{{title: "Failed attempts: " + f.about, from: f.name + "_times", each: f.name + "_attempts"}},
		open: func(b *bench) ([]side, error) {
			turns := 0
			return eachSide(func(ctx context.Context, lib string) (values, error) {
				turns++
				return f.trial(ctx, b, lib, fmt.Sprintf("bench-%s-%d", f.name, turns))
			}), nil
		},
	}
}

// beside runs n trials at once and collects their values.
func beside(n int, trial func(i int) (values, error)) (values, error) {
	found, errs := make([]values, n), make([]error, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { found[i], errs[i] = trial(i) })
	}
	all.Wait()
	v := make(values)
	for i := range n {
		if errs[i] != nil {
			return nil, errs[i]
		}
		for name, values := range found[i] {
			v[name] = append(v[name], values...)
		}
	}
	return v, nil
}

// inGroups runs n trials, some at once.
func inGroups(n, atOnce int, trial func(i int) (values, error)) (values, error) {
	all := make(values)
	for begin := 0; begin < n; begin += atOnce {
		v, err := beside(min(atOnce, n-begin), func(i int) (values, error) { return trial(begin + i) })
		if err != nil {
			return nil, err
		}
		for name, found := range v {
			all[name] = append(all[name], found...)
		}
	}
	return all, nil
}

// trial does the fault once, to servers and a client of its own.
func (f fault) trial(ctx context.Context, b *bench, lib, service string) (values, error) {
	servers, err := b.startServers(ctx, serverOf{lib: lib, service: service}, 3)
	if err != nil {
		return nil, err
	}
	defer func() { killAll(servers) }()
	t, err := b.startTraffic(ctx, lib, service, callerOptions{balancer: loadbalance.NewWeightedBalancer()})
	if err != nil {
		return nil, err
	}
	begin := time.Now()
	if err := f.do(ctx, b, lib, service, servers); err != nil {
		return nil, err
	}
	if err := pause(ctx, settled); err != nil {
		return nil, err
	}
	t.stop()
	attempts, calls := t.failedAttempts("", begin), t.failedCalls(begin)
	last := 0.0
	for _, at := range attempts {
		last = max(last, at)
	}
	return values{
		f.name + "_attempts": {float64(len(attempts))},
		f.name + "_calls":    {float64(len(calls))},
		f.name + "_last":     {last},
		f.name + "_times":    attempts, // for the plot
	}, nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
