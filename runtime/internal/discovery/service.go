package discovery

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cloudwego/kitex/pkg/discovery"

	"github.com/kitex-contrib/kitex-etcd/runtime/internal/link"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/roster"
)

// Service is one service of a Directory: what its watcher shares with everybody else. Safe for concurrent use.
type Service struct {
	dir    *Directory
	name   string
	prefix string // of its keys

	latest   atomic.Pointer[snapshot] // never nil
	settled  atomic.Pointer[snapshot] // what Kitex's cache is told; nil until the first
	synced   atomic.Int64             // when etcd last confirmed it, in Unix nanoseconds
	used     atomic.Bool              // set by every use, cleared by the watcher
	readers  atomic.Int32             // who watch it
	waiting  atomic.Int32             // who wait for its first snapshot
	standing atomic.Bool              // there is a watch

	watcher *watcher           // of whoever runs it
	cancel  context.CancelFunc // ends the watcher; nil while there is none; guarded by the Directory's mutex, as is the rest
	roused  bool               // was used since its watcher last wanted to rest
	leaving bool               // its watcher was evicted
	seq     int64              // in the order in which watchers were started

	changes   atomic.Uint64 // lists that differed from the one before
	invalid   atomic.Int64  // keys that are not instances, and
	protected atomic.Int64  // instances that etcd does not hold, in the latest list

	attaching sync.Mutex
	followers []Follower // the array is never changed
}

func (s *Service) snapshot() *snapshot { return s.latest.Load() }

// swap makes snap the latest. Only the watcher calls it.
func (s *Service) swap(snap *snapshot) {
	snap.replaced = make(chan struct{})
	close(s.latest.Swap(snap).replaced)
}

// use returns the latest snapshot for a call. It neither blocks nor allocates, except that a service without a watch
// gets a moment to catch up.
func (s *Service) use() *snapshot {
	if !s.used.Load() { // a store would have the cores fight for the line
		s.used.Store(true)
	}
	snap := s.latest.Load()
	if snap.phase >= idle {
		return s.catchUp()
	}
	return snap
}

// catchUp wakes the watcher of an idle service and waits a moment for it; then what there is has to do.
func (s *Service) catchUp() *snapshot {
	var timeout <-chan time.Time
	for {
		snap := s.latest.Load()
		switch {
		case snap.phase < idle, s.dir.link.Running().Err() != nil:
			return snap
		case snap.phase == waking && !time.Now().Before(snap.wakeBy):
			return snap
		}
		s.dir.rouse(s)
		if timeout == nil {
			t := time.NewTimer(s.dir.timing.Wake)
			defer t.Stop()
			timeout = t.C
		}
		select {
		case <-snap.replaced:
		case <-timeout:
			return snap
		case <-s.dir.link.Running().Done():
		}
	}
}

// get returns the snapshot, waiting for the first one until ctx ends or the time for that is over. An error that
// waiting cannot mend is returned at once.
func (s *Service) get(ctx context.Context) (*snapshot, error) {
	snap := s.use()
	if snap.phase != unsynced {
		return snap, nil
	}
	s.waiting.Add(1)
	defer s.waiting.Add(-1)
	s.dir.rouse(s)
	deadline := time.NewTimer(s.patience(ctx))
	defer deadline.Stop()
	for {
		if link.Refused(snap.err) {
			return nil, s.failed(snap.err)
		}
		select {
		case <-snap.replaced:
		case <-deadline.C:
			return nil, s.failed(snap.err)
		case <-ctx.Done():
			return nil, s.failed(fmt.Errorf("the caller left before etcd answered: %w", ctx.Err()))
		case <-s.dir.link.Closing().Done():
			return nil, link.ErrClosed
		}
		if snap = s.latest.Load(); snap.phase != unsynced {
			return snap, nil
		}
	}
}

// patience is how long a caller waits for the first snapshot: a little less than its deadline, so that it hears of the cause.
func (s *Service) patience(ctx context.Context) time.Duration {
	wait := s.dir.timing.Resolve
	if deadline, ok := ctx.Deadline(); ok {
		left := time.Until(deadline)
		wait = min(wait, left-min(left/10, 50*time.Millisecond))
	}
	return wait
}

func (s *Service) failed(cause error) error {
	if cause == nil {
		cause = context.DeadlineExceeded // the link knows why
	}
	return link.Failed(s.dir.link.Explain(cause), fmt.Sprintf("find the instances of %s (keys %s…) at %s", s.name, s.prefix, s.dir.link.Target()))
}

// Name returns the service's name.
func (s *Service) Name() string { return s.name }

// Prefix returns what every key of the service begins with.
func (s *Service) Prefix() string { return s.prefix }

// Synced returns when etcd last confirmed the instances; zero if it never has.
func (s *Service) Synced() time.Time {
	at := s.synced.Load()
	if at == 0 {
		return time.Time{}
	}
	if s.standing.Load() {
		at = max(at, s.dir.confirmed.Load())
	}
	return time.Unix(0, at)
}

// blank says whether nothing is known of the service that is worth remembering, and nobody needs its entry.
func (s *Service) blank() bool {
	return len(s.snapshot().instances) == 0 && s.readers.Load() == 0 && len(s.attached()) == 0
}

// Changes returns how many lists differed from the one before.
func (s *Service) Changes() uint64 { return s.changes.Load() }

// Invalid returns how many keys of the service are not instances.
func (s *Service) Invalid() int { return int(s.invalid.Load()) }

// Protected returns how many instances are served although etcd no longer holds them.
func (s *Service) Protected() int { return int(s.protected.Load()) }

// Idle says whether the service was not used for so long that it has no watch.
func (s *Service) Idle() bool { return s.snapshot().phase == idle }

// Use returns the latest list for a call. It neither blocks nor allocates, except that a service without a watch gets a
// moment to catch up.
func (s *Service) Use() []discovery.Instance { return s.use().instances }

// Latest is Use for those who only look: it never blocks, and does not count as a use of the service.
func (s *Service) Latest() []discovery.Instance { return s.snapshot().instances }

// Settled returns the list that Kitex's cache is to be told: Latest, as soon as it has not changed for a while. It says
// false before there is one.
func (s *Service) Settled() (list []discovery.Instance, ok bool) {
	if snap := s.settled.Load(); snap != nil {
		return snap.instances, true
	}
	return nil, false
}

// Known says whether etcd has answered about the service.
func (s *Service) Known() bool { return s.snapshot().phase != unsynced }

// Get is Use for a service that etcd may not have answered about yet: it waits for that, for 3 s at most, until a little before
// the deadline of ctx, or until ctx ends. The error then says why it was in vain.
func (s *Service) Get(ctx context.Context) ([]discovery.Instance, error) {
	snap, err := s.get(ctx)
	if err != nil {
		return nil, err
	}
	return snap.instances, nil
}

// Watch yields at once what Get returns, then every new list. A reader that is slower than the changes gets the newest
// list only. It ends, after an error, when the first list cannot be had, when ctx ends, and when the Conn is closed.
func (s *Service) Watch(ctx context.Context) iter.Seq2[[]discovery.Instance, error] {
	return func(yield func([]discovery.Instance, error) bool) {
		s.readers.Add(1)
		defer s.readers.Add(-1)
		snap, err := s.get(ctx)
		if err != nil {
			yield(nil, err)
			return
		}
		if !yield(snap.instances, nil) {
			return
		}
		for {
			last := snap.instances
			select {
			case <-snap.replaced:
			case <-ctx.Done():
				yield(nil, ctx.Err())
				return
			case <-s.dir.link.Closing().Done():
				yield(nil, link.ErrClosed)
				return
			}
			if snap = s.use(); !roster.Same(last, snap.instances) && !yield(snap.instances, nil) {
				return
			}
		}
	}
}

// Follower is told of a service's changes, one after the other, on the goroutine that follows the service.
type Follower interface {
	Changed() // Latest has changed
	Settle()  // Settled has changed
}

// Attach has f told of every change from now on.
func (s *Service) Attach(f Follower) {
	s.attaching.Lock()
	defer s.attaching.Unlock()
	s.followers = append(slices.Clip(s.followers), f)
}

// Detach ends Attach. One call to f may still be under way.
func (s *Service) Detach(f Follower) {
	s.attaching.Lock()
	defer s.attaching.Unlock()
	s.followers = slices.DeleteFunc(slices.Clone(s.followers), func(o Follower) bool { return o == f })
}

func (s *Service) attached() []Follower {
	s.attaching.Lock()
	defer s.attaching.Unlock()
	return s.followers
}
