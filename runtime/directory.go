package etcd

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cloudwego/kitex/pkg/discovery"
)

// timing holds the times of discovery. Tests shorten them.
type timing struct {
	resolve    time.Duration // how long a first Resolve waits for etcd
	rpc        time.Duration // how long a request to etcd may take
	probe      time.Duration // how long a request may take that is answered by the member alone
	check      time.Duration // between two checks of a quiet watch
	recheck    time.Duration // until a check that did not match is repeated
	settle     time.Duration // until Kitex's cache hears of a change; twice that at most
	idle       time.Duration // how long an unused service keeps its watch
	wake       time.Duration // how long the first use of an idle service waits for etcd
	minBackoff time.Duration // after a first failure
	maxBackoff time.Duration // after many
	leastPause time.Duration // that not even a new connection shortens
}

var defaultTiming = timing{
	resolve:    3 * time.Second,
	rpc:        2 * time.Second,
	probe:      500 * time.Millisecond,
	check:      30 * time.Second,
	recheck:    time.Second,
	settle:     1500 * time.Millisecond,
	idle:       3 * time.Minute,
	wake:       300 * time.Millisecond,
	minBackoff: 50 * time.Millisecond,
	maxBackoff: 3 * time.Second,
	leastPause: 250 * time.Millisecond,
}

// directory knows the services that a Conn discovers. A service enters it when it is first asked for and stays: its
// last instances outlive any outage, and the Conn.
type directory struct {
	conn     *Conn
	timing   timing
	resolver *resolver
	balance  *balancing

	watchStream atomic.Int64 // which of the connection's watch streams new watches use

	services atomic.Pointer[map[string]*service] // replaced, never changed: reading it takes no lock
	adding   sync.Mutex                          // held while services is replaced
}

func newDirectory(c *Conn) *directory {
	d := &directory{conn: c, timing: defaultTiming}
	d.services.Store(&map[string]*service{})
	d.resolver = &resolver{d}
	d.balance = newBalancing(d)
	return d
}

// service returns the entry of a service, made and followed from now on when it is new.
func (d *directory) service(name string) (*service, error) {
	if s := (*d.services.Load())[name]; s != nil {
		return s, nil
	}
	if err := checkService(name); err != nil {
		return nil, err
	}
	d.adding.Lock()
	defer d.adding.Unlock()
	services := *d.services.Load()
	if s := services[name]; s != nil {
		return s, nil
	}
	s := &service{dir: d, name: name, prefix: servicePrefix(d.conn.cfg.Prefix, name), wake: make(chan struct{}, 1)}
	s.latest.Store(&snapshot{replaced: make(chan struct{})})
	w := &watcher{
		service: s,
		conn:    d.conn,
		timing:  d.timing,
		roster:  newRoster(s.prefix, d.conn.cfg.DefaultWeight, d.conn.cfg.EmptyProtection),
	}
	if !d.conn.start(w.run) {
		return nil, ErrClosed
	}
	services = maps.Clone(services)
	services[name] = s
	d.services.Store(&services)
	return s, nil
}

// service is one service of the directory: what its watcher shares with everybody else.
type service struct {
	dir    *directory
	name   string
	prefix string // of its keys

	latest  atomic.Pointer[snapshot] // never nil
	settled atomic.Pointer[snapshot] // what Kitex's cache is told; nil until the first
	synced  atomic.Int64             // when etcd last confirmed it, in Unix nanoseconds
	used    atomic.Bool              // set by every use, cleared by the watcher
	readers atomic.Int32             // who watch it
	wake    chan struct{}            // a use of an idle service; one value waits

	attaching sync.Mutex
	pickers   []*pickerKey // to be built from every new snapshot; the array is never changed
}

func (s *service) snapshot() *snapshot { return s.latest.Load() }

// swap makes snap the latest. Only the watcher calls it.
func (s *service) swap(snap *snapshot) {
	snap.replaced = make(chan struct{})
	close(s.latest.Swap(snap).replaced)
}

// use returns the latest snapshot for a call. It neither blocks nor allocates, except that a service without a watch
// gets a moment to catch up.
func (s *service) use() *snapshot {
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
func (s *service) catchUp() *snapshot {
	var timeout <-chan time.Time
	for {
		snap := s.latest.Load()
		switch {
		case snap.phase < idle, s.dir.conn.running.Err() != nil:
			return snap
		case snap.phase == waking && !time.Now().Before(snap.wakeBy):
			return snap
		}
		select {
		case s.wake <- struct{}{}:
		default:
		}
		if timeout == nil {
			t := time.NewTimer(s.dir.timing.wake)
			defer t.Stop()
			timeout = t.C
		}
		select {
		case <-snap.replaced:
		case <-timeout:
			return snap
		case <-s.dir.conn.running.Done():
		}
	}
}

// get returns the snapshot, waiting for the first one until ctx ends or the time for that is over. An error that
// waiting cannot mend is returned at once.
func (s *service) get(ctx context.Context) (*snapshot, error) {
	snap := s.use()
	if snap.phase != unsynced {
		return snap, nil
	}
	deadline := time.NewTimer(s.dir.timing.resolve)
	defer deadline.Stop()
	for {
		if refused(snap.err) {
			return nil, s.failed(snap.err)
		}
		select {
		case <-snap.replaced:
		case <-deadline.C:
			return nil, s.failed(snap.err)
		case <-ctx.Done():
			if snap.err == nil {
				return nil, s.failed(ctx.Err())
			}
			return nil, s.failed(snap.err)
		case <-s.dir.conn.closing.Done():
			return nil, ErrClosed
		}
		if snap = s.latest.Load(); snap.phase != unsynced {
			return snap, nil
		}
	}
}

func (s *service) failed(cause error) error {
	if cause == nil {
		cause = fmt.Errorf("no answer within %v", s.dir.timing.resolve)
	}
	return fmt.Errorf("etcd: cannot find out the instances of %s (keys %s…) from %s: %w", s.name, s.prefix, s.dir.conn.link.target(), cause)
}

// Instances returns the instances of service as Kitex clients of this Conn see them: sorted by address, weights and tags
// included. The slice is shared: do not change it. No instances are an empty slice and no error. The first call for a
// service asks etcd and waits, for 3 s at most or until ctx ends; its error then says why. After that, calls return
// what was last known, without asking anybody.
func (c *Conn) Instances(ctx context.Context, service string) ([]discovery.Instance, error) {
	s, err := c.discover(service)
	if err != nil {
		return nil, err
	}
	snap, err := s.get(ctx)
	if err != nil {
		return nil, err
	}
	return snap.instances, nil
}

// Watch yields the instances of service: at once what Instances returns, then every new list, as soon as it is known. A
// reader that is slower than the changes gets the newest list only. It ends, after an error, when the first list cannot
// be had, when ctx ends, and when the Conn is closed.
func (c *Conn) Watch(ctx context.Context, service string) iter.Seq2[[]discovery.Instance, error] {
	return func(yield func([]discovery.Instance, error) bool) {
		s, err := c.discover(service)
		if err != nil {
			yield(nil, err)
			return
		}
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
			case <-c.closing.Done():
				yield(nil, ErrClosed)
				return
			}
			if snap = s.use(); !sameList(last, snap.instances) && !yield(snap.instances, nil) {
				return
			}
		}
	}
}

func (c *Conn) discover(name string) (*service, error) {
	if c == nil {
		return nil, errNilConn
	}
	return c.directory.service(name)
}

// ServiceStatus is what a Conn knows of a service that it discovers.
type ServiceStatus struct {
	Service   string
	Instances int       // how many there are for clients
	Synced    time.Time // when etcd last confirmed them; zero if it never has
	Idle      bool      // not used for minutes: etcd is not asked about it until the next use
}

// Services returns the services that were asked for through this Conn so far, sorted by name. It asks nobody and is no use
// of them: it is meant for metrics and health checks. A nil Conn has none.
func (c *Conn) Services() []ServiceStatus {
	if c == nil {
		return nil
	}
	services := *c.directory.services.Load()
	list := make([]ServiceStatus, 0, len(services))
	for _, name := range slices.Sorted(maps.Keys(services)) {
		s := services[name]
		snap := s.snapshot()
		status := ServiceStatus{Service: name, Instances: len(snap.instances), Idle: snap.phase == idle}
		if at := s.synced.Load(); at != 0 {
			status.Synced = time.Unix(0, at)
		}
		list = append(list, status)
	}
	return list
}
