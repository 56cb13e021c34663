package main

import (
	"context"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
)

const (
	// leaseFresh is how long an answer about a lease serves all pages.
	leaseFresh = 2 * time.Second
	// maxAsked is how many leases one request may be about.
	maxAsked = 500
)

// leaseBook asks etcd about the leases that pages show, and keeps the answers for as long as they are fresh: what it costs etcd does not
// depend on the number of pages. Safe for concurrent use.
type leaseBook struct {
	conn  *etcd.Conn
	limit chan struct{} // holds a token for each question that may be under way

	mu      sync.Mutex
	answers map[clientv3.LeaseID]*bookedAnswer
}

// bookedAnswer is readable once done is closed.
type bookedAnswer struct {
	asked time.Time
	done  chan struct{}
	leaseAnswer
}

func newLeaseBook(conn *etcd.Conn) *leaseBook {
	return &leaseBook{conn: conn, limit: make(chan struct{}, leaseQuestions), answers: make(map[clientv3.LeaseID]*bookedAnswer)}
}

// of returns what etcd says about ids. Those that it does not answer about before ctx ends are left out.
func (b *leaseBook) of(ctx context.Context, ids []clientv3.LeaseID) map[clientv3.LeaseID]*bookedAnswer {
	booked := make(map[clientv3.LeaseID]*bookedAnswer, len(ids))
	b.mu.Lock()
	now := time.Now()
	for id, a := range b.answers {
		if now.Sub(a.asked) > leaseFresh {
			delete(b.answers, id)
		}
	}
	for _, id := range ids {
		if b.answers[id] == nil {
			b.answers[id] = &bookedAnswer{asked: now, done: make(chan struct{})}
			go b.ask(id, b.answers[id])
		}
		booked[id] = b.answers[id]
	}
	b.mu.Unlock()
	for id, a := range booked {
		select {
		case <-a.done:
		case <-ctx.Done():
			delete(booked, id)
		}
	}
	return booked
}

// ask takes leaseTimeout at most, waiting for its turn included.
func (b *leaseBook) ask(id clientv3.LeaseID, a *bookedAnswer) {
	defer close(a.done)
	ctx, cancel := context.WithTimeout(context.Background(), leaseTimeout)
	defer cancel()
	select {
	case b.limit <- struct{}{}:
		defer func() { <-b.limit }()
	case <-ctx.Done():
		a.err = ctx.Err()
		return
	}
	resp, err := b.conn.Client().TimeToLive(ctx, id)
	if a.err = err; err == nil {
		a.ttl, a.granted = max(resp.TTL, 0), resp.GrantedTTL
	}
}
