package main

import (
	"context"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/cloudwego/kitex/pkg/loadbalance"
)

const (
	callsPerSecond = 200
	settled        = 6 * time.Second // longer than Kitex looks away
)

// traffic is calls at a steady rate, a goroutine each, through a Kitex client as a program has it.
type traffic struct {
	stop func() // waits for the last calls

	mu       sync.Mutex
	calls    int
	failed   int         // calls
	attempts []time.Time // that failed, when they began; Kitex may have hidden them from the caller by another
}

func (b *bench) startTraffic(ctx context.Context, lib, service string, o callerOptions) (*traffic, error) {
	t := new(traffic)
	o.endpoints = b.etcd.endpoints
	o.attempted = func(begin time.Time, err error) {
		if err != nil {
			t.mu.Lock()
			defer t.mu.Unlock()
			t.attempts = append(t.attempts, begin)
		}
	}
	c, err := b.newCaller(lib, service, o)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		var calls sync.WaitGroup
		defer calls.Wait()
		ticker := time.NewTicker(time.Second / callsPerSecond)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				calls.Go(func() {
					_, err := c.call(context.WithoutCancel(ctx))
					t.mu.Lock()
					defer t.mu.Unlock()
					t.calls++
					if err != nil {
						t.failed++
					}
				})
			case <-ctx.Done():
				return
			}
		}
	}()
	t.stop = func() { cancel(); <-done }
	b.cleanup(t.stop)
	// The connections stand and the list is known before anything is done to a server.
	return t, await(ctx, "the first calls", 10*time.Second, func() bool {
		t.mu.Lock()
		defer t.mu.Unlock()
		return t.calls >= callsPerSecond
	})
}

// since returns the failed attempts, as times after begin, and how many calls failed.
func (t *traffic) since(begin time.Time) (attempts []float64, failedCalls int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, at := range t.attempts {
		attempts = append(attempts, float64(at.Sub(begin)))
	}
	return attempts, t.failed
}

// A fault is what is done to three servers. What it leads to is over soon after do has returned.
type fault struct {
	name, about string
	rounds      int // turns of each side
	atOnce      int // times in each turn, side by side: most of the time of long faults is waiting
	targets     func(row string) []target
	do          func(ctx context.Context, b *bench, lib, service string, servers []*backend) error
}

func faultFamilies() []family {
	none := func(row string) []target {
		if row == "last" {
			return nil
		}
		return []target{atMost(0)}
	}
	gone := func(row string) []target { // the default lease of 10 s, and 2 s
		if row == "last" {
			return []target{atMost(float64(12 * time.Second))}
		}
		return nil
	}
	signalled := func(s os.Signal) func(context.Context, *bench, string, string, []*backend) error {
		return func(ctx context.Context, b *bench, _, _ string, servers []*backend) error {
			if err := servers[0].cmd.Process.Signal(s); err != nil {
				return err
			}
			key := servers[0].key
			return await(ctx, "the end of "+key, 2*time.Minute, func() bool { return !b.stands(ctx, key) })
		}
	}
	return []family{
		fault{"stop", "SIGTERM to one of three servers", 5, 1, none,
			func(_ context.Context, _ *bench, _, _ string, servers []*backend) error { return servers[0].stop() }}.family(),
		fault{"roll", "Each of three servers is stopped after its successor has come", 5, 1, none, roll}.family(),
		fault{"kill", "kill -9 of one of three servers", 2, 3, gone, signalled(syscall.SIGKILL)}.family(),
		fault{"hang", "SIGSTOP of one of three servers", 2, 3, gone, signalled(syscall.SIGSTOP)}.family(),
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
		name:   f.name,
		rounds: f.rounds,
		quick:  1,
		about: fmt.Sprintf("%s, with %d calls per second through a Kitex client. A failed attempt may be hidden from the caller by Kitex's choice of "+
			"another server; a failed call is not", f.about, callsPerSecond),
		rows: []row{
			{name: f.name + "_attempts", what: "failed attempts", unit: count, targets: f.targets("attempts")},
			{name: f.name + "_calls", what: "failed calls", unit: count, targets: f.targets("calls")},
			{name: f.name + "_last", what: "from the fault to the beginning of the last failed attempt", unit: duration, targets: f.targets("last")},
		},
		plot: &drawing{title: "Failed attempts: " + f.about, from: f.name + "_times", each: f.name + "_attempts"},
		open: func(b *bench) ([]side, error) {
			turns := 0
			return eachSide(func(ctx context.Context, lib string) (values, error) {
				turns++
				return beside(b.pick(f.atOnce, 1), func(i int) (values, error) {
					return f.trial(ctx, b, lib, fmt.Sprintf("bench-%s-%d-%d", f.name, turns, i))
				})
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

// trial does the fault once, to servers and a client of its own.
func (f fault) trial(ctx context.Context, b *bench, lib, service string) (values, error) {
	servers, err := b.startBackends(ctx, lib, service, 3)
	if err != nil {
		return nil, err
	}
	defer func() {
		for _, s := range servers {
			s.kill()
		}
	}()
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
	attempts, failed := t.since(begin)
	last := 0.0
	for _, at := range attempts {
		last = max(last, at)
	}
	return values{
		f.name + "_attempts": {float64(len(attempts))},
		f.name + "_calls":    {float64(failed)},
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
