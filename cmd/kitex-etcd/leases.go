package main

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/term"

	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
)

const (
	// leaseTimeout bounds one question; leaseQuestions is how many are asked at once. More are no faster, as etcd answers about one lease at a time
	// and one connection carries them all; they only keep etcd from others.
	leaseTimeout   = 5 * time.Second
	leaseQuestions = 64
	// maxFailures is how many questions in a row may fail before no more are asked.
	maxFailures = leaseQuestions
	// progressAfter is the time after which, and every which, progress is shown.
	progressAfter = time.Second
)

// leases asks etcd how long leases have left, many at a time, in the order of the records.
type leases struct {
	answers map[clientv3.LeaseID]*leaseAnswer

	mu       sync.Mutex
	asked    int
	failed   int
	failures int   // in a row
	err      error // why the last one failed
}

// leaseAnswer is what etcd says of one lease, readable once done is closed.
type leaseAnswer struct {
	done         chan struct{}
	ttl, granted int64 // seconds
	err          error
}

// askLeases begins to ask; wait waits until all is asked.
func askLeases(ctx context.Context, conn *etcd.Conn, records []etcd.Record) (l *leases, wait func()) {
	l = &leases{answers: make(map[clientv3.LeaseID]*leaseAnswer)}
	var order []clientv3.LeaseID
	for _, r := range records {
		if r.Lease != clientv3.NoLease && l.answers[r.Lease] == nil {
			l.answers[r.Lease] = &leaseAnswer{done: make(chan struct{})}
			order = append(order, r.Lease)
		}
	}
	next := make(chan clientv3.LeaseID, len(order))
	for _, id := range order {
		next <- id
	}
	close(next)
	var workers sync.WaitGroup
	for range min(leaseQuestions, len(order)) {
		workers.Go(func() {
			for id := range next {
				l.ask(ctx, conn.Client(), id)
			}
		})
	}
	return l, workers.Wait
}

func (l *leases) ask(ctx context.Context, cli *clientv3.Client, id clientv3.LeaseID) {
	answer := l.answers[id]
	defer close(answer.done)
	l.mu.Lock()
	answer.err = l.err
	over := l.failures >= maxFailures
	l.mu.Unlock()
	if !over {
		ctx, cancel := context.WithTimeout(ctx, leaseTimeout)
		defer cancel()
		var resp *clientv3.LeaseTimeToLiveResponse
		if resp, answer.err = cli.TimeToLive(ctx, id); answer.err == nil {
			answer.ttl, answer.granted = max(resp.TTL, 0), resp.GrantedTTL // -1 when it has ended
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked++
	if l.failures++; answer.err == nil {
		l.failures = 0
	} else {
		l.failed++
		l.err = answer.err
	}
}

// of waits for the answer about a lease.
func (l *leases) of(id clientv3.LeaseID) *leaseAnswer {
	answer := l.answers[id]
	if answer != nil {
		<-answer.done
	}
	return answer
}

// explain says why some are unknown.
func (l *leases) explain(p *program) {
	if l.failed > 0 {
		p.say("? instead of a lease: etcd did not say how long %d of %d leases have left: %v", l.failed, len(l.answers), l.err)
	}
}

// progress shows on stderr, every second, how far it is, until stop is called. Rows on the same terminal are progress enough.
func (l *leases) progress(p *program) (stop func()) {
	if f, ok := p.stdout.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return func() {}
	}
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		ticker := time.NewTicker(progressAfter)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				l.mu.Lock()
				asked := l.asked
				l.mu.Unlock()
				p.say("etcd was asked about %d of %d leases", asked, len(l.answers))
			case <-quit:
				return
			}
		}
	}()
	return func() { close(quit); <-done }
}

// late says whether a server has renewed its lease later than it should: every third of it.
func (a *leaseAnswer) late() bool {
	return a != nil && a.err == nil && a.granted > 1 && 2*a.ttl < a.granted
}

// text is the LEASE of a row. A record without one stays until somebody deletes it.
func (a *leaseAnswer) text() string {
	switch {
	case a == nil:
		return "none"
	case a.err != nil:
		return "?"
	}
	text := fmt.Sprintf("%s of %s", duration(time.Duration(a.ttl)*time.Second), duration(time.Duration(a.granted)*time.Second))
	if a.late() {
		text += " !"
	}
	return text
}
