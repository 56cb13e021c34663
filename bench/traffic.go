package main

import (
	"context"
	"sync"
	"time"
)

const callsPerSecond = 200

// traffic is calls at a steady rate, a goroutine each, through a client as a program has it.
type traffic struct {
	stop func() // waits for the last calls

	mu       sync.Mutex
	calls    []outcome
	attempts []outcome // of which a call may take several: Kitex hides a failed one from the caller by another
}

// outcome is what became of a call, or of an attempt.
type outcome struct {
	addr         string // empty if it did not come that far
	begun, ended time.Time
	err          error
}

// startTraffic calls a service through lib's client, and returns when a second's worth of calls has been made: the connections
// stand and the list is known before anything is done to a server.
func (b *bench) startTraffic(ctx context.Context, lib, service string, o callerOptions) (*traffic, error) {
	t := new(traffic)
	var call func(context.Context) (string, error)
	if onGRPC(lib) {
		attempt, err := b.grpcCaller(lib, service, o.timeout)
		if err != nil {
			return nil, err
		}
		call = func(ctx context.Context) (string, error) {
			begun := time.Now()
			addr, err := attempt(ctx)
			t.attempted(addr, begun, err)
			return addr, err
		}
	} else {
		o.endpoints, o.attempted = b.etcd.endpoints, t.attempted
		c, err := b.newCaller(lib, service, o)
		if err != nil {
			return nil, err
		}
		call = c.call
	}
	return t, b.run(ctx, t, call)
}

// run calls until t.stop, or the end of the family.
func (b *bench) run(ctx context.Context, t *traffic, call func(context.Context) (string, error)) error {
	running, cancel := context.WithCancel(ctx)
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
					begun := time.Now()
					addr, err := call(context.WithoutCancel(ctx))
					t.mu.Lock()
					defer t.mu.Unlock()
					t.calls = append(t.calls, outcome{addr, begun, time.Now(), err})
				})
			case <-running.Done():
				return
			}
		}
	}()
	t.stop = func() { cancel(); <-done }
	b.cleanup(t.stop)
	return await(ctx, "the first calls", 10*time.Second, func() bool {
		t.mu.Lock()
		defer t.mu.Unlock()
		return len(t.calls) >= callsPerSecond
	})
}

func (t *traffic) attempted(addr string, begun time.Time, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.attempts = append(t.attempts, outcome{addr, begun, time.Now(), err})
}

// failedAttempts returns when those attempts at addr began that failed since begin: as times after it, which are negative for
// what was under way. An empty addr means any.
func (t *traffic) failedAttempts(addr string, begin time.Time) []float64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return failed(t.attempts, addr, begin)
}

// failedCalls is the same for calls.
func (t *traffic) failedCalls(begin time.Time) []float64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return failed(t.calls, "", begin)
}

func failed(all []outcome, addr string, begin time.Time) (after []float64) {
	for _, o := range all {
		if o.err != nil && o.ended.After(begin) && (addr == "" || o.addr == "" || o.addr == addr) {
			after = append(after, float64(o.begun.Sub(begin)))
		}
	}
	return after
}

// later are those that are greater than least.
func later(times []float64, least time.Duration) (found []float64) {
	for _, at := range times {
		if at > float64(least) {
			found = append(found, at)
		}
	}
	return found
}

// attemptsAt is how many attempts at addr began after since.
func (t *traffic) attemptsAt(addr string, since time.Time) (n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, o := range t.attempts {
		if o.addr == addr && o.begun.After(since) {
			n++
		}
	}
	return n
}

// answered says whether addr has answered an attempt that began after since.
func (t *traffic) answered(addr string, since time.Time) bool { return t.answers(addr, since) > 0 }

// answers is how many attempts that began after since addr has answered.
func (t *traffic) answers(addr string, since time.Time) (n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, o := range t.attempts {
		if o.err == nil && o.addr == addr && o.begun.After(since) {
			n++
		}
	}
	return n
}

// reaches waits until each of the addresses has answered.
func (t *traffic) reaches(ctx context.Context, addrs ...string) error {
	since := time.Now()
	for _, addr := range addrs {
		if err := await(ctx, "an answer of "+addr, 20*time.Second, func() bool { return t.answered(addr, since) }); err != nil {
			return err
		}
	}
	return nil
}
