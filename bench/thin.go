package main

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
)

// plain is an etcd client that does the same reads and watches as ours, and nothing else.
const plain = "plain clientv3"

// followers are those whose way to etcd is slow. follow returns when the list of a service has n instances, which it tells, and
// then one more.
var followers = []struct {
	name string
	open func(b *bench) (follow follower, err error)
}{
	{ours, func(b *bench) (follower, error) {
		conn, err := b.connect()
		return func(ctx context.Context, service string, n int, known func()) error {
			for ctx.Err() == nil { // the first list may be late
				for list, err := range conn.Watch(ctx, service) {
					switch {
					case err != nil:
					case len(list) > n:
						return nil
					case len(list) == n:
						known()
					}
				}
			}
			return ctx.Err()
		}, err
	}},
	{plain, func(b *bench) (follower, error) {
		cli, err := newClient(b.etcd.endpoints)
		if err != nil {
			return nil, err
		}
		b.cleanup(func() { cli.Close() })
		return func(ctx context.Context, service string, n int, known func()) error {
			prefix := etcd.DefaultPrefix + "/" + service + "/"
			resp, err := cli.Get(ctx, prefix, clientv3.WithPrefix())
			if err != nil {
				return err
			}
			if len(resp.Kvs) == n {
				known()
			}
			for resp := range cli.Watch(ctx, prefix, clientv3.WithPrefix(), clientv3.WithRev(resp.Header.Revision+1)) {
				if err := resp.Err(); err != nil || len(resp.Events) > 0 {
					return err
				}
			}
			return ctx.Err()
		}, nil
	}},
}

type follower func(ctx context.Context, service string, n int, known func()) error

// A thin way is one on which much takes its time.
type thin struct {
	name, about  string
	services     int
	instances    int // of each
	rate         int
	delay        time.Duration // there, and as much back
	busy         bool          // the machine is
	rounds       int
	known, watch target
}

func thinFamilies() []family {
	twice := target{of: plain, times: 2, plus: float64(5 * time.Second)}
	return []family{
		thin{name: "narrow", about: "1,000 services (150 in a quick run) over a line of 60 kB/s", services: 1000, instances: 1, rate: 60_000, rounds: 2,
			known: twice, watch: twice}.family(),
		thin{name: "busy", about: "1,000 services (150 in a quick run) over a line of 60 kB/s, while other processes use all processors twice over",
			services: 1000, instances: 1, rate: 60_000, busy: true, rounds: 2, known: twice, watch: twice}.family(),
		thin{name: "far", about: "300 services (45 in a quick run) of an etcd that is 100 ms away, there and back", services: 300, instances: 1,
			delay: 50 * time.Millisecond, rounds: 2, watch: timesOf(plain, 1.5)}.family(),
		thin{name: "large", about: "One service of 5,000 over a line of 100 kB/s", services: 1, instances: 5000, rate: 100_000, rounds: 2,
			known: timesOf(plain, 2)}.family(),
	}
}

func (th thin) family() family {
	bound := func(t target) []target {
		if t == (target{}) {
			return nil
		}
		return []target{t}
	}
	return family{
		name:   th.name,
		rounds: th.rounds,
		quick:  1,
		about:  th.about + ", followed at once; each gets one more instance when all are known",
		rows: []row{
			{name: th.name + "_known", what: "until all are known", unit: duration, targets: bound(th.known)},
			{name: th.name + "_watched", what: "until the last has seen the new instance", unit: duration, targets: bound(th.watch)},
			{name: th.name + "_conns", what: "connections that were made", unit: count, targets: []target{atMost(2)}},
		},
		open: func(b *bench) ([]side, error) {
			if th.services > 1 {
				th.services = b.pick(th.services, th.services*3/20)
			}
			var sides []side
			for _, f := range followers {
				sides = append(sides, side{f.name, func(ctx context.Context) (values, error) { return th.turn(ctx, b, f.open) }})
			}
			return sides, nil
		},
	}
}

func (th thin) turn(ctx context.Context, b *bench, open func(*bench) (follower, error)) (values, error) {
	service := func(i int) string { return fmt.Sprintf("bench-%s-%d", th.name, i) }
	if _, err := b.etcd.client.Delete(ctx, etcd.DefaultPrefix, clientv3.WithPrefix()); err != nil {
		return nil, err
	}
	var records, more []pair
	for i := range th.services {
		for j := range th.instances {
			records = append(records, kitexRecord(service(i), address(j)))
		}
		more = append(more, kitexRecord(service(i), address(freshInstances)))
	}
	if err := b.etcd.put(ctx, records); err != nil {
		return nil, err
	}
	if th.busy {
		c, err := startChild("burn", nil)
		if err != nil {
			return nil, err
		}
		defer c.close()
	}
	px, err := b.proxy()
	if err != nil {
		return nil, err
	}
	px.narrow(th.rate, th.delay)
	own := &bench{ctx: ctx, etcd: &etcdProcess{endpoints: px.endpoints()}}
	defer own.close()
	defer px.narrow(0, 0) // what ends need not wait
	follow, err := open(own)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	var known, watched sync.WaitGroup
	errs := make(chan error, th.services)
	begin := time.Now()
	for i := range th.services {
		known.Add(1)
		watched.Go(func() {
			once := sync.OnceFunc(known.Done)
			defer once()
			if err := follow(ctx, service(i), th.instances, once); err != nil {
				errs <- fmt.Errorf("%s after %v: %w", service(i), time.Since(begin).Round(time.Second), err)
				cancel()
			}
		})
	}
	known.Wait()
	read := time.Since(begin)
	putErr := b.etcd.put(ctx, more)
	watched.Wait()
	took := time.Since(begin)
	select {
	case err := <-errs:
		return nil, err
	default:
	}
	return values{
		th.name + "_known":   {float64(read)},
		th.name + "_watched": {float64(took)},
		th.name + "_conns":   {float64(px.made.Load())},
	}, putErr
}

// burn is what a process does that keeps the machine busy.
func burn([]string) error {
	var done atomic.Bool
	for range 2 * runtime.NumCPU() {
		go func() {
			for !done.Load() {
			}
		}()
	}
	awaitParent()
	done.Store(true)
	return nil
}
