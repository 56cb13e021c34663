package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/cloudwego/kitex/pkg/discovery"
	"github.com/cloudwego/kitex/pkg/loadbalance"
	old "github.com/kitex-contrib/registry-etcd"
)

// An outage is etcd away for a while.
type outage struct {
	name  string
	wiped bool // it comes back empty
	limit time.Duration
}

// enough is when a side that is not back will not be waited for any longer.
const enough = 2 * time.Minute

// outlived is when no record stands any more whose lease nobody has kept since etcd is back.
const outlived = 75 * time.Second

func outageFamilies() []family {
	return []family{
		outage{name: "outage", limit: 3 * time.Second}.family(),
		outage{name: "rebuilt", wiped: true, limit: 30 * time.Second}.family(),
	}
}

func (o outage) family() family {
	registered, without := "until a server that runs is registered again", ""
	if o.wiped {
		without = " and comes back without its data"
	} else {
		registered += fmt.Sprintf(", and still is after %s (not looked for in a quick run): a lease that nobody keeps outlives the outage by "+
			"all of its life, which is 60 s for registry-etcd", duration.format(float64(outlived)))
	}
	return family{
		name:   o.name,
		rounds: 1,
		about: fmt.Sprintf("etcd is away for 90 s (5 s in a quick run)%s, with %d calls per second through a Kitex client. Times are from when "+
			"it serves again; %s means not within that time", without, callsPerSecond, duration.format(float64(enough))),
		rows: []row{
			{name: o.name + "_resolved", what: "until Resolve tells of an instance that is new since then", unit: duration,
				targets: []target{atMost(float64(o.limit))}},
			{name: o.name + "_blocked", what: "the longest Resolve of all since the beginning", unit: duration, quantile: 1,
				targets: []target{atMost(float64(10 * time.Millisecond))}},
			{name: o.name + "_calls", what: "failed calls since the beginning", unit: count, targets: []target{atMost(0)}},
			{name: o.name + "_registered", what: registered, unit: duration, targets: []target{atMost(float64(o.limit))}},
		},
		open: func(b *bench) ([]side, error) {
			server, err := b.serve()
			if err != nil {
				return nil, err
			}
			return eachSide(func(ctx context.Context, lib string) (values, error) { return o.turn(ctx, b, lib, server) }), nil
		},
	}
}

func (o outage) turn(ctx context.Context, b *bench, lib, server string) (values, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	service := "bench-" + o.name + "-" + lib
	var keys []string
	for i := range 5 {
		if _, _, err := b.registered(lib, service, address(i)); err != nil {
			return nil, err
		}
		keys = append(keys, kitexRecord(service, address(i)).key)
	}
	askers := make([]*asker, len(keys))
	for i := range askers {
		var err error
		if askers[i], err = b.ask(ctx, lib, service); err != nil {
			return nil, err
		}
	}
	t, err := b.startTraffic(ctx, lib, service, callerOptions{server: server, balancer: loadbalance.NewWeightedBalancer()})
	if err != nil {
		return nil, err
	}
	if err := b.etcd.command("stop"); err != nil {
		return nil, err
	}
	if err := pause(ctx, time.Duration(b.pick(90, 5))*time.Second); err != nil {
		return nil, err
	}
	if o.wiped {
		if err := b.etcd.command("wipe"); err != nil {
			return nil, err
		}
	}
	if err := b.etcd.command("start"); err != nil {
		return nil, err
	}
	begin := time.Now()
	fresh := address(freshInstances)
	if err := b.etcd.put(ctx, []pair{kitexRecord(service, fresh)}); err != nil {
		return nil, err
	}
	var hold time.Duration
	if !o.wiped && !b.quick {
		hold = outlived
	}
	v, err := beside(len(keys), func(i int) (values, error) {
		var all sync.WaitGroup
		var resolved, registered float64
		all.Go(func() { resolved = within(ctx, begin, enough, func() bool { return askers[i].tells(fresh) }) })
		all.Go(func() { registered = b.registeredAgain(ctx, keys[i], begin, hold) })
		all.Wait()
		return values{o.name + "_resolved": {resolved}, o.name + "_registered": {registered}}, ctx.Err()
	})
	if err != nil {
		return nil, err
	}
	for _, a := range askers {
		v[o.name+"_blocked"] = append(v[o.name+"_blocked"], float64(a.blocked()))
	}
	t.stop()
	v[o.name+"_calls"] = []float64{float64(len(t.failedCalls(time.Time{})))}
	return v, nil
}

// registeredAgain returns when, after begin, a record came to stand that still does after hold.
func (b *bench) registeredAgain(ctx context.Context, key string, begin time.Time, hold time.Duration) float64 {
	var since time.Duration
	missing := false
	for time.Since(begin) < enough {
		stands := b.stands(ctx, key)
		if missing && stands {
			since = time.Since(begin)
		}
		if missing = !stands; stands && time.Since(begin) >= hold {
			return float64(since)
		}
		_ = pause(ctx, 50*time.Millisecond)
	}
	return float64(enough)
}

// An asker keeps asking a resolver for one service.
type asker struct {
	mu      sync.Mutex
	since   time.Time // of the question that has no answer yet; zero when there is none
	longest time.Duration
	addrs   []string // of the last answer
}

// ask returns an asker that ends with ctx.
func (b *bench) ask(ctx context.Context, lib, service string) (*asker, error) {
	r, err := b.resolver(lib)
	if err != nil {
		return nil, err
	}
	if _, err := r.Resolve(ctx, service); err != nil {
		return nil, err
	}
	a := new(asker)
	go func() {
		for pause(ctx, 10*time.Millisecond) == nil {
			a.mu.Lock()
			a.since = time.Now()
			a.mu.Unlock()
			begin := time.Now()               // without the wait for the lock
			res, _ := r.Resolve(ctx, service) // an error tells of no instances
			a.answered(time.Since(begin), res.Instances)
		}
	}()
	return a, nil
}

func (a *asker) answered(took time.Duration, instances []discovery.Instance) {
	addrs := make([]string, len(instances))
	for i, in := range instances {
		addrs[i] = in.Address().String()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.longest, a.since = max(a.longest, took), time.Time{}
	a.addrs = addrs
}

func (a *asker) tells(addr string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Contains(a.addrs, addr)
}

// blocked is how long the longest question waited, be it answered or not.
func (a *asker) blocked() time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.since.IsZero() {
		return max(a.longest, time.Since(a.since))
	}
	return a.longest
}

// resolver returns one of lib as a program has it.
func (b *bench) resolver(lib string) (discovery.Resolver, error) {
	if lib == before {
		return old.NewEtcdResolver(b.etcd.endpoints, quietly)
	}
	conn, err := b.connect()
	if err != nil {
		return nil, err
	}
	return conn.Resolver(), nil
}
