package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// freshInstances begin where no other address is, so that none arrives twice.
const freshInstances = 1 << 20

// propagationFamily is how long a new instance is unknown to a client that calls its service.
func propagationFamily() family {
	return family{
		name:  "propagation",
		quick: 2,
		about: "From the beginning of the Put of a new instance until the next call can pick it: of a stock Kitex client for ours and " +
			"registry-etcd; for the others, until the instance is on the library's own list; the floor is a raw watch. Instances come " +
			"one at a time, 10 ms apart; registry-etcd's, which nobody can wait for, are spread over 5 s",
		rows: []row{
			{name: "propagation_p50", what: "half of the instances", unit: duration, from: "propagation", targets: []target{timesOf(nothing, 1.5)}},
			{name: "propagation_p99", what: "99 of 100", unit: duration, from: "propagation", quantile: 0.99, targets: []target{timesOf(nothing, 2)}},
		},
		plots: []drawing{{title: "From the Put of an instance until it can be picked", from: "propagation"}},
		open: func(b *bench) ([]side, error) {
			server, err := b.serve()
			if err != nil {
				return nil, err
			}
			var sides []side
			for _, p := range peers {
				s, err := propagationSide(b, p, server)
				if err != nil {
					return nil, fmt.Errorf("%s: %w", p.name, err)
				}
				sides = append(sides, s)
			}
			return sides, nil
		},
	}
}

func propagationSide(b *bench, p peer, server string) (side, error) {
	pr := &propagation{b: b, peer: p, service: p.service("propagation"), next: freshInstances}
	if err := p.seed(b, pr.service, 1); err != nil {
		return side{}, err
	}
	if p.watch != nil {
		if err := p.watch(b, pr.service, pr.arrivals.saw); err != nil {
			return side{}, err
		}
		return side{p.name, pr.turn}, pr.settle()
	}
	var err error
	if pr.caller, err = b.newCaller(p.name, pr.service, callerOptions{
		endpoints: b.etcd.endpoints, server: server, balancer: newProbe(nil, pr.arrivals.saw),
	}); err != nil {
		return side{}, err
	}
	if _, err := pr.caller.call(b.ctx); err != nil {
		return side{}, err
	}
	b.keepCalling(pr.caller)
	if p.name == before {
		return side{p.name, pr.slowTurn}, nil
	}
	return side{p.name, pr.turn}, pr.settle()
}

type propagation struct {
	b        *bench
	peer     peer
	service  string
	caller   *caller // of sides that are Kitex clients
	next     int     // the next fresh address
	arrivals arrivals
}

// settle puts instances until one arrives: only then does the watch stand.
func (pr *propagation) settle() error {
	for range 10 {
		if _, err := pr.put(pr.b.ctx, 500*time.Millisecond); err == nil {
			return pr.remove(pr.b.ctx)
		}
	}
	return fmt.Errorf("no new instance of %s ever arrives", pr.service)
}

// put writes a fresh instance and returns how long it took to arrive.
func (pr *propagation) put(ctx context.Context, limit time.Duration) (time.Duration, error) {
	addr := address(pr.next)
	pr.next++
	arrived := pr.arrivals.expect(addr)
	record := pr.peer.record(pr.service, addr)
	begin := time.Now()
	if _, err := pr.b.etcd.client.Put(ctx, record.key, record.value); err != nil {
		return 0, err
	}
	select {
	case at := <-arrived:
		return at.Sub(begin), nil
	case <-time.After(limit):
		return 0, fmt.Errorf("%s did not arrive in %v", addr, limit)
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// remove deletes the fresh instances and gives the deletes time to get there, so that they are not in the way of what
// is measured next.
func (pr *propagation) remove(ctx context.Context) error {
	from := pr.peer.record(pr.service, address(freshInstances))
	until := pr.peer.record(pr.service, address(freshInstances+1<<19))
	_, err := pr.b.etcd.client.Delete(ctx, from.key, clientv3.WithRange(until.key))
	time.Sleep(50 * time.Millisecond) // nothing tells when every side has seen the deletions; they may not disturb the next instance
	return err
}

func (pr *propagation) turn(ctx context.Context) (values, error) {
	var times []float64
	for range pr.b.pick(5, 1) {
		for range 40 {
			took, err := pr.put(ctx, 10*time.Second)
			if err != nil {
				return nil, err
			}
			times = append(times, float64(took))
			time.Sleep(10 * time.Millisecond) // one change at a time: rates of changes are another family's
		}
		if err := pr.verify(ctx); err != nil {
			return nil, err
		}
		if err := pr.remove(ctx); err != nil {
			return nil, err
		}
	}
	return values{"propagation": times}, nil
}

// verify makes calls until one goes to the instance that arrived last.
func (pr *propagation) verify(ctx context.Context) error {
	if pr.caller == nil {
		return nil
	}
	last := address(pr.next - 1)
	for range 2000 {
		if addr, err := pr.caller.call(ctx); err != nil || addr == last {
			return err
		}
	}
	return fmt.Errorf("%s arrived, but is never picked", last)
}

// slowTurn is the turn of a side that looks every 5 s: its instances begin evenly over such a period.
func (pr *propagation) slowTurn(ctx context.Context) (values, error) {
	n := pr.b.pick(20, 5)
	times, errs := make([]float64, n), make([]error, n)
	var all sync.WaitGroup
	var mu sync.Mutex // guards pr.next
	for i := range n {
		all.Go(func() {
			// This side looks at fixed times. How long an instance waits depends on when in the period it comes: one comes in each part.
			time.Sleep(time.Duration(i) * 5 * time.Second / time.Duration(n)) // the part of the period that is measured
			mu.Lock()
			addr := address(pr.next)
			pr.next++
			mu.Unlock()
			arrived := pr.arrivals.expect(addr)
			record := pr.peer.record(pr.service, addr)
			begin := time.Now()
			if _, errs[i] = pr.b.etcd.client.Put(ctx, record.key, record.value); errs[i] != nil {
				return
			}
			select {
			case at := <-arrived:
				times[i] = float64(at.Sub(begin))
			case <-time.After(30 * time.Second):
				errs[i] = fmt.Errorf("%s did not arrive in 30 s", addr)
			}
		})
	}
	all.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	if err := pr.verify(ctx); err != nil {
		return nil, err
	}
	return values{"propagation": times}, pr.remove(ctx)
}
