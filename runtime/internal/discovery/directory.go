// Package discovery keeps the instances of services as etcd holds them: watch -> roster -> snapshot. It stands on link; picking
// carries its snapshots into Kitex's balancers, package etcd shows them to programs.
//
// A Directory knows the services. Each has a watcher, a goroutine that owns the service's roster and publishes immutable
// snapshots behind an atomic pointer, which anybody may read at any time:
//
//	                read            unused for 3 minutes        next use
//	unsynced ────────────> current ─────────────────────> idle ──────────> waking
//	                        │  ^ ^                                           │
//	  watch lost, or wrong  │  │ └───────────────────read────────────────────┘
//	                        └──┘ read again
//
// An idle service has no goroutine. While a watch is lost the last snapshot is served. Followers of a service (Attach) are told of each new snapshot on the
// watcher's goroutine.
//
// With a directory for them, a saver stores the lists in files, on one more goroutine. Where etcd is late with its first answer
// the watcher shows what an earlier process stored: unsynced ──> stored ──read──> current.
package discovery

import (
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	kitex "github.com/cloudwego/kitex/pkg/discovery"

	"github.com/kitex-contrib/kitex-etcd/runtime/internal/link"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/record"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/roster"
)

// Config is what a Directory is made of.
type Config struct {
	Link            *link.Link
	Prefix          string          // of all keys
	DefaultWeight   int             // of instances whose record gives none
	EmptyProtection time.Duration   // how long instances that vanished without an explicit delete are remembered; negative: not
	Notify          func(Event)     // is told what happens; never nil, must not block
	SnapshotDir     string          // where lists are kept for the next start; empty: nowhere
	SnapshotMaxAge  time.Duration   // older lists are not used
	Context         context.Context // see WithTimingForTesting; may be nil
}

// Directory knows the services that a Conn discovers. A service enters it when it is first asked for. When nobody has used it for
// a while, its goroutine ends: a service that has instances then keeps them for its next user, even through an outage; one that
// has none leaves the Directory. Safe for concurrent use.
type Directory struct {
	cfg    Config
	link   *link.Link
	timing Timing

	streams   *streams
	highest   atomic.Int64                  // the highest revision of etcd that any service has seen
	confirmed atomic.Int64                  // when etcd last confirmed that it is the one that the watches stand on, in Unix nanoseconds
	doubt     atomic.Pointer[chan struct{}] // closed and replaced when all watchers are to check

	saver   *saver        // nil when lists are not stored
	cluster atomic.Uint64 // etcd's cluster ID; 0 until it answered

	pushes   pushes
	services atomic.Pointer[map[string]*Service] // replaced, never changed: reading it takes no lock

	mu        sync.Mutex // held while services is replaced; guards what follows, and the lives of the services
	running   int        // watchers
	stopGuard context.CancelFunc
	lastSeq   int64
}

// maxBlank bounds the followed services without instances: whoever may choose the names could fill the memory with them. Beyond it
// a new one takes the place of the oldest that nobody uses at the moment.
const maxBlank = 1000

// New returns a Directory without services.
func New(cfg Config) *Directory {
	d := &Directory{cfg: cfg, link: cfg.Link, timing: timingOf(cfg.Context), streams: newStreams()}
	d.services.Store(&map[string]*Service{})
	doubt := make(chan struct{})
	d.doubt.Store(&doubt)
	if cfg.SnapshotDir != "" {
		d.saver = newSaver(d)
		d.link.Start(d.saver.run)
	}
	return d
}

// Ready is Service and Get in one, for a service whose list is known and up to date, as nearly always: the way of most look-ups, and
// the shortest.
func (d *Directory) Ready(name string) (list []kitex.Instance, ok bool) {
	s := (*d.services.Load())[name]
	if s == nil || !s.used.Load() {
		return nil, false
	}
	snap := s.latest.Load()
	return snap.instances, snap.phase == current
}

// Service returns the entry of a service, made and followed from now on when it is new.
func (d *Directory) Service(name string) (*Service, error) {
	if s := (*d.services.Load())[name]; s != nil {
		return s, nil
	}
	if err := record.CheckService(name); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if s := (*d.services.Load())[name]; s != nil {
		return s, nil
	}
	s := &Service{dir: d, name: name, prefix: record.ServicePrefix(d.cfg.Prefix, name)}
	s.latest.Store(&snapshot{replaced: make(chan struct{})})
	s.watcher = &watcher{
		Service: s,
		link:    d.link,
		notify:  d.cfg.Notify,
		timing:  d.timing,
		saver:   d.saver,
		roster:  roster.New(s.prefix, d.cfg.DefaultWeight, d.cfg.EmptyProtection),
	}
	d.evict()
	if !d.start(s) {
		return nil, link.ErrClosed
	}
	d.saver.notice() // for what was published before
	return s, nil
}

// start follows a service, which enters the Directory. The mutex is held.
func (d *Directory) start(s *Service) bool {
	ctx, cancel := context.WithCancel(d.link.Running())
	if !d.link.Start(func(context.Context) { s.watcher.run(ctx) }) {
		cancel()
		return false
	}
	s.cancel, s.leaving = cancel, false
	d.lastSeq++
	s.seq = d.lastSeq
	if d.running++; d.running == 1 {
		ctx, stop := context.WithCancel(d.link.Running())
		d.stopGuard = stop
		d.link.Start(func(context.Context) { d.guard(ctx) })
	}
	if (*d.services.Load())[s.name] == nil {
		services := maps.Clone(*d.services.Load())
		services[s.name] = s
		d.services.Store(&services)
	}
	return true
}

// rouse has a service followed that is used again.
func (d *Directory) rouse(s *Service) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s.cancel != nil {
		s.roused = true
		return
	}
	d.start(s)
}

// settling tells that a watcher is about to rest: uses from now on have it go on.
func (d *Directory) settling(s *Service) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s.roused = false
}

// rest ends the following of a service that nobody uses, whose watcher ran for as long as ctx. It is the last thing that the watcher
// does, unless rest says false: somebody uses the service again.
func (d *Directory) rest(ctx context.Context, s *Service) (ended bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	needed := (s.roused || s.waiting.Load() > 0) && d.link.Running().Err() == nil
	if needed && ctx.Err() == nil {
		return false
	}
	s.cancel()
	s.cancel = nil
	if d.running--; d.running == 0 {
		d.stopGuard()
	}
	switch services := *d.services.Load(); {
	case needed: // it was evicted in the moment of its use
		d.start(s)
	case services[s.name] == s && s.blank() && d.link.Running().Err() == nil:
		d.remove(s)
	}
	return true
}

// remove takes a service out. The mutex is held.
func (d *Directory) remove(s *Service) {
	services := maps.Clone(*d.services.Load())
	delete(services, s.name)
	d.services.Store(&services)
}

// evict makes room for another service. The mutex is held.
func (d *Directory) evict() {
	var oldest *Service
	blank := 0
	if d.running < maxBlank {
		return
	}
	for _, s := range *d.services.Load() {
		if s.cancel == nil || s.leaving || !s.blank() {
			continue
		}
		blank++
		if s.waiting.Load() == 0 && (oldest == nil || s.seq < oldest.seq) {
			oldest = s
		}
	}
	if blank >= maxBlank && oldest != nil {
		oldest.leaving = true
		oldest.cancel()
		d.remove(oldest)
	}
}

// anyPrefix returns the prefix of one of the services; empty if there is none.
func (d *Directory) anyPrefix() string {
	for _, s := range *d.services.Load() {
		return s.prefix
	}
	return ""
}

// Known returns the entry of a service that was asked for before, nil for any other.
func (d *Directory) Known(name string) *Service { return (*d.services.Load())[name] }

// Services returns all entries, sorted by name.
func (d *Directory) Services() []*Service {
	services := *d.services.Load()
	list := make([]*Service, 0, len(services))
	for _, name := range slices.Sorted(maps.Keys(services)) {
		list = append(list, services[name])
	}
	return list
}
