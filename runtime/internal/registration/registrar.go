// Package registration keeps the registrations of a process's servers in etcd: one lease, and the records under it. Package etcd calls
// it; it uses link.
//
// One goroutine, Registrar.run, owns the lease and all records. Register and Deregister send requests to it and wait. The keeper of
// the lease (keeper) and the watches of the records (watch) run on other goroutines, and tell it what they see. run works towards a
// wanted state: a request, a loss or a failure changes which records are pending, lost or to be removed, and reconcile makes etcd
// follow.
//
// The lease:
//
//	           grant                    etcd says that it is gone (keepalive, write, check)
//	(no lease) ─────> held ─────────────────────────────> (no lease, all records lost) ──grant──> held
//	     ^              │ last record removed and drained
//	     └──release─────┘
//
// A record:
//
//	          write            deleted by others; lease gone
//	pending ────────> standing ──────────────────────────> lost ──write if missing──> standing
//	   │                │   another process wrote it           │ another process wrote it
//	   │                └─────────────> taken <────────────────┘   taken ──missing at a check──> lost
//	   │ Deregister, from any of them; what operators' marks add is in marks.go
//	   └──> removing ──delete if ours──> draining ──> gone
//
// A lease is not lost because etcd does not answer: the keeper asks until etcd says whether the lease lives. Nothing is written
// meanwhile, so an outage of any length costs no attempts.
package registration

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cloudwego/kitex/pkg/klog"
	"github.com/cloudwego/kitex/pkg/registry"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/kitex-contrib/kitex-etcd/runtime/internal/link"
	"github.com/kitex-contrib/kitex-etcd/runtime/retry"
)

const (
	// registerTimeout bounds Register: Kitex calls it under the server's lock and cannot be stopped meanwhile.
	registerTimeout = 3 * time.Second
	// backgroundTimeout is how long Register waits for etcd before it leaves the rest to the background.
	backgroundTimeout = 500 * time.Millisecond
	// deregisterTimeout bounds the part of Deregister that needs etcd; the drain delay comes on top.
	deregisterTimeout = 3 * time.Second
	// rpcTimeout bounds one request of the registrar to etcd.
	rpcTimeout = 2 * time.Second
	// callRetryDelay is the pause between two attempts while a Register or Deregister waits for the outcome.
	callRetryDelay = 200 * time.Millisecond
	// recheckDelay is how long after a reconnection the records are checked.
	recheckDelay = 500 * time.Millisecond
	// reclaimDelay is how long a process that took over a key has to put its record back when its lease is gone, repairDelay when
	// its lease lives: then the record was deleted, by it or by somebody else.
	reclaimDelay = 5 * time.Second
	repairDelay  = 300 * time.Millisecond
	// shutdownTimeout bounds the removal of the records by Close: long enough for a second request, when the connection of the first is dead.
	shutdownTimeout = 3 * time.Second
)

// Config is what a Registrar is made of.
type Config struct {
	Link       *link.Link
	Prefix     string        // of all keys
	LeaseTTL   time.Duration // to ask etcd for, in whole seconds
	DrainDelay time.Duration // how long Deregister waits after the records are gone
	Retry      *retry.Config // how what is lost is repaired
	Notify     func(Event)   // is told what happens; never nil, must not block
}

// Registrar keeps in etcd what the servers of a Conn registered. Its methods may be called concurrently.
type Registrar struct {
	cfg  Config
	link *link.Link

	mu      sync.Mutex
	inbox   []*request
	started bool // the first Register starts run
	ended   bool // run takes no more requests

	wake chan struct{} // holds a token when the inbox has something
	done chan struct{} // closed when run has returned
	err  error         // what Close returns; readable once done is closed

	published atomic.Pointer[statuses] // for Registered; nil before the first Register

	answers chan answer     // from the keeper
	news    chan recordNews // from the watches

	// All below is run's own.

	lease  clientv3.LeaseID              // 0: none
	ttl    time.Duration                 // of the last lease, or what will be asked for
	leases map[clientv3.LeaseID]struct{} // all leases that this Conn ever had: a record under one of them is ours
	keeper keeper

	confirmed time.Time // when etcd last confirmed the lease, or a former one

	rev   int64 // etcd's revision at the last write
	doubt bool  // a write under the lease got no answer: it may still arrive

	regs     map[*registry.Info]*registration // what servers want in etcd
	refused  map[*registry.Info]struct{}      // whose address was taken: Kitex deregisters them nevertheless
	entries  map[string]*entry                // by key: all records wanted or to be removed
	pending  map[*registration]struct{}
	lost     map[*entry]struct{}
	removing map[*entry]struct{}
	draining map[*registration]struct{}
	waiting  map[*registration]struct{} // somebody waits for call
	watches  map[string]*watch          // by service
	marks    marks                      // of operators
	events   []Event                    // that publish will tell of

	retryAt   time.Time // not before this is etcd tried again
	lastErr   error     // of the last reconcile; nil when it succeeded
	failures  uint      // of the current repair
	observeAt time.Time // when the records are checked next
	silent    bool      // the keeper waits for an answer
}

// New returns a Registrar that does nothing until the first Register.
func New(cfg Config) *Registrar {
	return &Registrar{
		cfg:      cfg,
		link:     cfg.Link,
		ttl:      cfg.LeaseTTL,
		wake:     make(chan struct{}, 1),
		done:     make(chan struct{}),
		answers:  make(chan answer),
		news:     make(chan recordNews),
		leases:   make(map[clientv3.LeaseID]struct{}),
		regs:     make(map[*registry.Info]*registration),
		refused:  make(map[*registry.Info]struct{}),
		entries:  make(map[string]*entry),
		pending:  make(map[*registration]struct{}),
		lost:     make(map[*entry]struct{}),
		removing: make(map[*entry]struct{}),
		draining: make(map[*registration]struct{}),
		waiting:  make(map[*registration]struct{}),
		watches:  make(map[string]*watch),
		marks:    newMarks(),
	}
}

// Register puts the records of the server that info identifies into etcd, all or none, and keeps them there until
// Deregister or Close. It returns within 3 s, with an error when etcd did not take them; with background it returns nil when
// etcd has not answered within 500 ms, and the work goes on.
//
// current returns the records as they would be now, for a server whose address is one of the host's, which may change; nil where
// the address is given.
func (r *Registrar) Register(info *registry.Info, records []Record, current func() ([]Record, error), background bool) error {
	c := newCall(registerTimeout)
	if background {
		c = newCall(backgroundTimeout)
		c.background = true
	}
	if err := r.post(&request{call: c, info: info, records: entriesOf(records), current: current}); err != nil {
		return err
	}
	select {
	case err := <-c.done:
		return err
	case <-r.link.Closing().Done():
		return link.ErrClosed
	}
}

// Deregister removes what Register put there for info, unless another process has taken it over, and waits the drain
// delay. records matter only for an info that was not registered itself, and whose content was. It returns nil when there
// is nothing to remove, and an error within 3 s when etcd could not be reached: the records end with the lease then.
func (r *Registrar) Deregister(info *registry.Info, records []Record) error {
	c := newCall(deregisterTimeout)
	if err := r.post(&request{call: c, info: info, records: entriesOf(records), remove: true}); err != nil {
		return err
	}
	return <-c.done
}

// post hands a request to run, which settles its call.
func (r *Registrar) post(req *request) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended {
		return link.ErrClosed
	}
	if !r.started {
		if req.update != nil {
			req.call.settle(req.update.notRegistered())
			return nil
		}
		if req.remove {
			req.call.settle(nil) // nothing was ever registered
			return nil
		}
		if !r.link.Start(r.run) {
			return link.ErrClosed
		}
		r.started = true
	}
	r.inbox = append(r.inbox, req)
	select {
	case r.wake <- struct{}{}:
	default:
	}
	return nil
}

// Close waits until what is registered is removed, which the end of the link's Closing begins. It comes before the link's
// Stop.
func (r *Registrar) Close() error {
	r.mu.Lock()
	started := r.started
	r.ended = r.ended || !started
	r.mu.Unlock()
	if !started {
		return nil
	}
	<-r.done
	return r.err
}

func (r *Registrar) run(running context.Context) {
	defer close(r.done)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-r.link.Closing().Done():
			r.err = r.shutdown(running)
			r.publish()
			return
		case <-r.wake:
		case a := <-r.answers:
			r.applyAnswer(a)
		case n := <-r.news:
			r.applyNews(n)
		case <-timer.C:
		}
		r.takeRequests() // whatever woke it: requests come first
		r.expireCalls()
		r.publish() // etcd may take its time to answer
		if r.dirty() && !time.Now().Before(r.retryAt) {
			r.reconcile()
			r.publish()
		}
		r.settleUpdates()
		r.finishDrained(r.link.Closing())
		if r.observing() && !time.Now().Before(r.observeAt) {
			r.observe()
			r.publish()
		}
		r.keep()
		timer.Reset(time.Until(r.nextTime()))
	}
}

// dirty says whether etcd differs from what is wanted.
func (r *Registrar) dirty() bool {
	return len(r.pending)+len(r.lost)+len(r.removing) > 0 || r.marks.dirty()
}

// observing says whether there is something to check.
func (r *Registrar) observing() bool { return len(r.entries) > 0 }

// nextTime is when run has something to do, if nothing happens before.
func (r *Registrar) nextTime() time.Time {
	next := time.Now().Add(time.Hour)
	sooner := func(t time.Time) {
		if t.Before(next) {
			next = t
		}
	}
	if r.dirty() {
		sooner(r.retryAt)
	}
	if r.observing() {
		sooner(r.observeAt)
	}
	for reg := range r.waiting {
		sooner(reg.call.deadline)
	}
	for reg := range r.draining {
		sooner(reg.drainEnd)
	}
	return next
}

func (r *Registrar) takeRequests() {
	r.mu.Lock()
	inbox := r.inbox
	r.inbox = nil
	r.mu.Unlock()
	for _, req := range inbox {
		switch {
		case req.update != nil:
			r.update(req)
		case req.remove:
			r.deregister(req)
		default:
			r.register(req)
		}
	}
}

// shutdown deletes all records that are in etcd, for Close.
func (r *Registrar) shutdown(running context.Context) error {
	r.mu.Lock()
	r.ended = true
	r.mu.Unlock()
	r.takeRequests()
	for reg := range r.waiting {
		if _, wanted := r.pending[reg]; wanted {
			reg.call.settle(link.ErrClosed)
		}
	}
	clear(r.waiting) // the time is Close's now
	for _, reg := range r.regs {
		r.withdraw(reg, nil)
	}
	r.publish()
	ctx, cancel := context.WithTimeout(running, shutdownTimeout)
	defer cancel()
	var err error
	for len(r.removing) > 0 {
		if err = r.round(ctx); err != nil && !link.Sleep(ctx, link.Jitter(callRetryDelay)) {
			break
		}
	}
	for len(r.draining) > 0 {
		var end time.Time
		for reg := range r.draining {
			if reg.drainEnd.After(end) {
				end = reg.drainEnd
			}
		}
		r.keep()
		r.drainUntil(running, end)
		r.finishDrained(running)
	}
	r.finishDrained(running) // without records there may still be a lease
	r.keeper.stop()
	for _, w := range r.watches {
		w.stop()
	}
	for _, w := range r.marks.watches {
		w.stop()
	}
	if len(r.removing) == 0 {
		return nil
	}
	err = link.Failed(r.link.Explain(err), fmt.Sprintf("close: %d records could not be removed at %s and end with their lease, in %v at most", len(r.removing), r.link.Target(), r.ttl))
	for e := range r.removing {
		r.event(Deregistered, e, err)
		if e.reg != nil {
			e.reg.call.settle(err)
		}
	}
	klog.Warnf("%v", err)
	return err
}

// drainUntil waits until end and keeps those who send to run from waiting for it.
func (r *Registrar) drainUntil(ctx context.Context, end time.Time) {
	timer := time.NewTimer(time.Until(end))
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
			return
		case <-ctx.Done():
			return
		case <-r.answers:
		case <-r.news:
		}
	}
}
