package picking

import (
	"context"
	"sync"
	"time"

	"github.com/cloudwego/kitex/pkg/klog"

	"github.com/kitex-contrib/kitex-etcd/runtime/internal/health"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/roster"
)

// maxProbes is how many connections a Conn tries at once.
const maxProbes = 8

// breather is how many times as long as it worked the monitor then rests. Pickers can be dear, as a consistent hash of many
// instances is, and when half of them hang there is a trial every few milliseconds. Until the pickers are built, attempts are
// kept from the excluded one by one.
const breather = 4

// monitor is the one who acts on what the ejectors learn: it probes those whom no connection can be made to, offers others
// for trials, has the pickers built again, and tells of it. Its goroutine runs while there is something to do.
type monitor struct {
	wiring *Wiring
	slots  chan struct{} // one for each probe under way

	mu       sync.Mutex
	ejectors map[string]*ejector // by service
	running  bool
	kicked   chan struct{} // holds a token when there is news
}

func newMonitor(w *Wiring) *monitor {
	return &monitor{
		wiring:   w,
		slots:    make(chan struct{}, maxProbes),
		ejectors: make(map[string]*ejector),
		kicked:   make(chan struct{}, 1),
	}
}

// ejector returns that of a service; nil when ejection is off.
func (m *monitor) ejector(service string) *ejector {
	if m.wiring.cfg.KeepAll {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.ejectors[service]
	if e == nil {
		e = newEjector(service, m)
		m.ejectors[service] = e
	}
	return e
}

// ejected returns how many instances of a service are ejected.
func (m *monitor) ejected(service string) int {
	m.mu.Lock()
	e := m.ejectors[service]
	m.mu.Unlock()
	if e == nil {
		return 0
	}
	return e.tracker.Ejected()
}

// kick has the monitor look at what is new.
func (m *monitor) kick() {
	select {
	case m.kicked <- struct{}{}:
	default:
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.running {
		return
	}
	m.running = m.wiring.cfg.Start(m.run)
	if !m.running { // the Conn is closed: nobody is left to call an instance back
		for _, e := range m.ejectors {
			e.tracker.Clear()
		}
	}
}

func (m *monitor) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-m.kicked:
		case <-timer.C:
		case <-ctx.Done():
			m.end()
			return
		}
		began := time.Now()
		next := m.tend(began)
		if next.IsZero() && m.rest() {
			return
		}
		timer.Reset(breather * time.Since(began))
		select {
		case <-timer.C:
		case <-ctx.Done():
			m.end()
			return
		}
		timer.Reset(time.Until(next))
	}
}

// rest ends the goroutine, unless there is news.
func (m *monitor) rest() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.running = len(m.kicked) > 0
	return !m.running
}

// end leaves the pickers with all instances.
func (m *monitor) end() {
	for _, e := range m.all() {
		e.tracker.Clear()
		m.rebuild(e)
	}
	m.mu.Lock()
	m.running = false
	m.mu.Unlock()
}

func (m *monitor) all() []*ejector {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := make([]*ejector, 0, len(m.ejectors))
	for _, e := range m.ejectors {
		all = append(all, e)
	}
	return all
}

// tend does what the time has come for, and says when there is something to do again; zero if nothing is.
func (m *monitor) tend(now time.Time) (next time.Time) {
	for _, e := range m.all() {
		probes, due := e.tracker.Due(now)
		for _, p := range probes {
			m.wiring.cfg.Start(func(running context.Context) { m.probe(running, e, p) })
		}
		m.rebuild(e)
		for _, c := range e.tracker.Changes() {
			if c.Ejected {
				klog.Warnf("etcd: service %s: %s does not answer and is not called until it does: %v", e.service, c.Addr, c.Cause)
			} else {
				klog.Infof("etcd: service %s: %s is called again", e.service, c.Addr)
			}
			m.wiring.cfg.Notify(Event{Service: e.service, Address: c.Addr, Ejected: c.Ejected, Err: c.Cause})
		}
		if !due.IsZero() && (next.IsZero() || due.Before(next)) {
			next = due
		}
	}
	return next
}

// probe makes a connection, when not too many others are being made.
func (m *monitor) probe(running context.Context, e *ejector, p health.Probe) {
	select {
	case m.slots <- struct{}{}:
	case <-running.Done():
		return
	}
	ok := p.Via.(*prober).reach(p.ID.(*roster.Instance).Address().Network(), p.Addr)
	<-m.slots
	e.tracker.Probed(p, ok)
	if ok {
		m.kick()
	}
}

// rebuild has the pickers of a service built from what is usable now, if that has changed.
func (m *monitor) rebuild(e *ejector) {
	excluded := e.tracker.Excluded()
	if e.built == excluded {
		return
	}
	e.built = excluded
	for k := range everyKey {
		if k.ejector == e {
			k.Changed()
		}
	}
	e.tracker.Apply(excluded)
}
