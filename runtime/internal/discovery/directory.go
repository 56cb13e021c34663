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
// While a watch is lost the last snapshot is served. Followers of a service (Attach) are told of each new snapshot on the
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

// Directory knows the services that a Conn discovers. A service enters it when it is first asked for and stays: its
// last instances outlive any outage, and the Conn. Safe for concurrent use.
type Directory struct {
	cfg    Config
	link   *link.Link
	timing Timing

	saver   *saver        // nil when lists are not stored
	cluster atomic.Uint64 // etcd's cluster ID; 0 until it answered

	pushes   pushes
	services atomic.Pointer[map[string]*Service] // replaced, never changed: reading it takes no lock
	adding   sync.Mutex                          // held while services is replaced
}

// New returns a Directory without services.
func New(cfg Config) *Directory {
	d := &Directory{cfg: cfg, link: cfg.Link, timing: timingOf(cfg.Context)}
	d.services.Store(&map[string]*Service{})
	if cfg.SnapshotDir != "" {
		d.saver = newSaver(d)
		d.link.Start(d.saver.run)
	}
	return d
}

// Service returns the entry of a service, made and followed from now on when it is new.
func (d *Directory) Service(name string) (*Service, error) {
	if s := (*d.services.Load())[name]; s != nil {
		return s, nil
	}
	if err := record.CheckService(name); err != nil {
		return nil, err
	}
	d.adding.Lock()
	defer d.adding.Unlock()
	services := *d.services.Load()
	if s := services[name]; s != nil {
		return s, nil
	}
	s := &Service{dir: d, name: name, prefix: record.ServicePrefix(d.cfg.Prefix, name), wake: make(chan struct{}, 1)}
	s.latest.Store(&snapshot{replaced: make(chan struct{})})
	w := &watcher{
		Service: s,
		link:    d.link,
		notify:  d.cfg.Notify,
		timing:  d.timing,
		roster:  roster.New(s.prefix, d.cfg.DefaultWeight, d.cfg.EmptyProtection),
	}
	if !d.link.Start(w.run) {
		return nil, link.ErrClosed
	}
	services = maps.Clone(services)
	services[name] = s
	d.services.Store(&services)
	if d.saver != nil {
		s.Attach(d.saver)
		d.saver.Changed() // for what was published before
	}
	return s, nil
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
