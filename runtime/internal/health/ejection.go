// Package health knows what the callers of a service notice about its instances before etcd does. It gets the results of attempts, and
// decides which addresses are ejected. picking reports to it, and builds its pickers from the usable instances.
//
// The package is pure: it does no I/O, starts nothing, and knows neither Kitex nor etcd. The time is an argument. A Tracker is for one
// service. Its methods may be called concurrently; a mutex guards its state, and is not held during calls to other packages. The
// states of one address:
//
//	           fails often enough, and once more after another instance answered
//	suspect ────────────────────────────────────────────────────────────────────────────> ejected
//	 │   ^                                                                                │    ^
//	 │   └─ a failure, of an address that nothing was known of                            │    │ the trial fails, or
//	 │                                                                                    │    │ nothing is heard of it
//	 └─> (forgotten): it answers, or nothing more is heard of it             time for one │    │
//	           ^  ^                                                          real call    v    │
//	           │  └───────────────── it answers ───────────────────────────────────────── trial
//	           └── from ejected, too: it answers late, a connection to it can be made, or it registers again
//
// An address to which no connection can be made stays ejected until a probe succeeds; the caller of Due makes the probes. An address
// that takes connections and does not answer, as a stopped process does, gets one real call at a time as a trial.
package health

import (
	"maps"
	"sync"
	"sync/atomic"
	"time"
)

// Signal is what one attempt says about an address.
type Signal uint8

// The signals. Other ends of an attempt, such as the caller's own deadline, say nothing about the address and are not reported.
const (
	Answered     Signal = iota // an answer, also an error
	NoConnection               // refused, reset while it was made, no route
	DialTimeout                // no connection was made in the time for that
	NoAnswer                   // the time for the call ended before there was an answer
	Closed                     // the connection ended before there was an answer
)

// What is necessary for an ejection, and how long it lasts. The times are changed at random by up to 20 %, so that the clients of a
// fleet do not act at the same moment.
const (
	// needsTimeouts is how many connections in a row have to time out: one lost packet makes one of them do so.
	needsTimeouts = 2
	// needsNoAnswers is how many attempts in a row have to go unanswered.
	needsNoAnswers = 3
	// closedFor is how long only closed connections must have come: a server that reduces its load closes connections too, but
	// answers other calls meanwhile.
	closedFor = 500 * time.Millisecond
	// memory is how long a failure counts if no other follows.
	memory = 10 * time.Second
	// probeEvery is the time between two probes of an address to which no connection can be made.
	probeEvery = time.Second
	// firstTrial is the time until an address that does not answer is tried by a real call, nextTrial until it is again.
	firstTrial = time.Second
	nextTrial  = 2 * time.Second
)

// Tracker knows the health of the instances of one service.
type Tracker struct {
	random func() float64 // from 0 to 1

	// quiet says that no answer matters: no address is suspect or on trial. Then an answered attempt costs one load.
	quiet    atomic.Bool
	excluded atomic.Pointer[Set] // never nil

	mu       sync.Mutex
	size     int                                 // of the service's list
	find     func(addr string) (id any, ok bool) // the record of an address in it
	entries  map[string]*entry                   // by address: those about which something is known
	counts   [states]int                         // how many of them are in each state
	answered [2]answer                           // the last answer, and the last of another address
	moved    bool                                // excluded has to be computed again
	applied  *Set                                // what the caller last said to keep calls from
	changes  []Change                            // that nobody took yet
}

// answer is when an address answered, by the number of answers.
type answer struct {
	addr   string
	number uint64
}

// Set is a set of addresses. It is never changed; two with the same pointer are the same.
type Set struct{ addrs map[string]struct{} }

// Has says whether addr is in the set.
func (s *Set) Has(addr string) bool {
	_, ok := s.addrs[addr]
	return ok
}

// Every says whether f is true of each address in the set.
func (s *Set) Every(f func(addr string) bool) bool {
	for addr := range s.addrs {
		if !f(addr) {
			return false
		}
	}
	return true
}

// Len returns how many addresses are in the set.
func (s *Set) Len() int { return len(s.addrs) }

// Change is an ejection, or the end of one.
type Change struct {
	Addr    string
	Ejected bool
	Cause   error // of the ejection
}

// entry is an address that failed.
type entry struct {
	state    state
	id       any // of its record: another one is another server
	via      any // of the last failure
	cause    error
	timeouts int       // DialTimeouts in a row
	silences int       // NoAnswers in a row
	closes   int       // Closed in a row
	first    time.Time // of the failures
	since    uint64    // the number of answers before the first failure
	reached  bool      // a connection was made at the last failure: a probe would say nothing
	probing  bool      // Due gave out a probe, and Probed was not called yet
	due      time.Time
}

type state uint8

const (
	suspect state = iota
	ejected
	offered // for a trial: listed again, until a call takes it
	trial   // by a call that is under way
	states
)

// out says whether calls are kept from an address in this state.
func (s state) out() bool { return s == ejected || s == trial }

// New returns a Tracker of a service without instances. random spreads the times: it returns numbers from 0 to 1.
func New(random func() float64) *Tracker {
	t := &Tracker{random: random, entries: make(map[string]*entry)}
	t.quiet.Store(true)
	t.applied = new(Set)
	t.excluded.Store(t.applied)
	t.find = func(string) (any, bool) { return nil, false }
	return t
}

// Quiet says whether an attempt that was answered need not be reported, nor one that begins be asked for.
func (t *Tracker) Quiet() bool { return t.quiet.Load() }

// Excluded returns the addresses that calls should not be sent to. At least half of the service's list, rounded up, is never
// in it: where more addresses fail, it is empty.
func (t *Tracker) Excluded() *Set { return t.excluded.Load() }

// maxSuspects bounds what one retry has to look at.
const maxSuspects = 8

// Suspects returns the addresses that failed and have not answered since, for attempts that have a choice: one that repeats another
// should not go there. There are none when they and the ejected are more than half of the list, or more than maxSuspects: so
// many must not send their calls to a few others.
func (t *Tracker) Suspects() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.counts[suspect]
	if n > maxSuspects || 2*(n+t.counts[ejected]+t.counts[trial]) > t.size {
		return nil
	}
	var addrs []string
	for addr, e := range t.entries {
		if e.state == suspect {
			addrs = append(addrs, addr)
		}
	}
	return addrs
}

// Begin says whether an attempt that begins now should go to addr. One that takes up a trial should; those after it
// should not. news says whether it took one up: the pickers have to be built without addr again.
func (t *Tracker) Begin(addr string, now time.Time) (ok, news bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e := t.entries[addr]; e != nil && e.state == offered {
		t.move(e, trial)
		e.due = now.Add(t.spread(nextTrial))
		t.update()
		return true, true
	}
	return !t.Excluded().Has(addr), false
}

// Report takes what an attempt told of the instance at addr. id identifies its record, via is handed back by Due, for the
// probe; cause is the attempt's error. news says whether there is something to do now that was not before. What it costs does
// not depend on the number of instances, unless one is ejected or comes back.
func (t *Tracker) Report(addr string, id any, s Signal, via any, cause error, now time.Time) (news bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.entries[addr]
	if s == Answered {
		t.witness(addr)
		if e != nil && e.id == id {
			t.forget(addr, e)
			t.update()
		}
		return len(t.changes) > 0
	}
	if e == nil {
		// Calls end that began before a record left the list, or another took its place. They tell of a server that is gone.
		if listed, ok := t.find(addr); !ok || listed != id {
			return false
		}
		e = &entry{id: id, first: now, since: t.answered[0].number}
		t.entries[addr] = e
		t.counts[suspect]++
		news = true
	} else if e.id != id {
		return false
	}
	e.via, e.cause = via, cause
	switch s {
	case NoConnection:
		e.timeouts = needsTimeouts
	case DialTimeout:
		e.timeouts++
	case NoAnswer:
		e.silences++
	case Closed:
		e.closes++
	}
	e.reached = s == NoAnswer || s == Closed
	switch e.state {
	case suspect:
		e.due = now.Add(memory)
		t.judge(addr, e, now)
	case offered: // by a call that began before: it tells as much
		t.move(e, ejected)
		e.due = now.Add(t.spread(nextTrial))
	case trial: // the next one is due as it was
		t.move(e, ejected)
	}
	t.update()
	return news || len(t.changes) > 0 || t.applied != t.Excluded()
}

// witness notes an answer.
func (t *Tracker) witness(addr string) {
	last := &t.answered[0]
	if last.addr != addr {
		t.answered[1] = *last
		last.addr = addr
	}
	last.number++
}

// witnessed says whether another instance answered since e, of addr, first failed.
func (t *Tracker) witnessed(addr string, e *entry) bool {
	other := &t.answered[0]
	if other.addr == addr {
		other = &t.answered[1]
	}
	return other.number > e.since
}

// judge ejects a suspect that has failed once more, if that is justified. The witness comes before the last failure: when
// nobody answered for a while, as without a network, and then one does, the others may have come back as well.
func (t *Tracker) judge(addr string, e *entry, now time.Time) {
	silent := e.silences >= needsNoAnswers || e.silences+e.closes >= needsNoAnswers && now.Sub(e.first) >= closedFor
	if !t.witnessed(addr, e) || e.timeouts < needsTimeouts && !silent {
		return
	}
	t.move(e, ejected)
	e.due = now.Add(t.spread(probeEvery))
	if e.reached {
		e.due = now.Add(t.spread(firstTrial))
	}
	t.changes = append(t.changes, Change{addr, true, e.cause})
}

// forget ends what is known of an address.
func (t *Tracker) forget(addr string, e *entry) {
	delete(t.entries, addr)
	t.counts[e.state]--
	t.moved = t.moved || e.state.out()
	if e.state != suspect {
		t.changes = append(t.changes, Change{addr, false, e.cause})
	}
}

func (t *Tracker) move(e *entry, to state) {
	t.moved = t.moved || e.state.out() != to.out()
	t.counts[e.state]--
	t.counts[to]++
	e.state = to
}

// update derives what is read without the mutex.
func (t *Tracker) update() {
	out := t.counts[ejected] + t.counts[trial]
	if t.moved {
		t.moved = false
		set := make(map[string]struct{})
		if out > 0 && t.size-out >= max(1, (t.size+1)/2) {
			for addr, e := range t.entries {
				if e.state.out() {
					set[addr] = struct{}{}
				}
			}
		}
		if !maps.Equal(set, t.Excluded().addrs) {
			t.excluded.Store(&Set{set})
		}
	}
	// Where so many are ejected that all are listed, their answers matter.
	excluded := t.Excluded()
	t.quiet.Store(excluded == t.applied && len(t.entries) == t.counts[ejected] && out == excluded.Len())
}

// Apply notes that calls are kept from the excluded: the pickers were built without them. Until then each attempt has to
// ask Begin.
func (t *Tracker) Apply(excluded *Set) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.applied = excluded
	t.update()
}

// List takes the service's list as it now is: its size, and how to find the record of an address, which must not change
// afterwards. What is known of an address ends with its record. Before the first List nothing is learned.
func (t *Tracker) List(size int, find func(addr string) (id any, ok bool)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.size, t.find, t.moved = size, find, true
	for addr, e := range t.entries {
		if id, ok := find(addr); !ok || id != e.id {
			t.forget(addr, e)
		}
	}
	t.update()
}

// Probe is a connection to be tried. Its outcome is for Probed.
type Probe struct {
	Addr string
	ID   any // of the record
	Via  any // of the last failure
}

// Due returns the probes that it is time for, offers addresses for trials, forgets old failures, and says when there is
// something to do again; zero if nothing is.
func (t *Tracker) Due(now time.Time) (probes []Probe, next time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for addr, e := range t.entries {
		if !now.Before(e.due) {
			switch e.state {
			case suspect:
				t.forget(addr, e)
				continue
			case ejected, trial:
				switch {
				case e.reached:
					t.move(e, offered)
					e.due = now.Add(t.spread(memory))
				case e.probing:
					e.due = now.Add(t.spread(probeEvery))
				default:
					e.probing, e.due = true, now.Add(t.spread(probeEvery))
					probes = append(probes, Probe{addr, e.id, e.via})
				}
			case offered: // nobody called
				e.due = now.Add(t.spread(memory))
			}
		}
		if next.IsZero() || e.due.Before(next) {
			next = e.due
		}
	}
	t.update()
	return probes, next
}

// Clear forgets everything, in silence.
func (t *Tracker) Clear() {
	t.mu.Lock()
	defer t.mu.Unlock()
	clear(t.entries)
	t.counts, t.changes, t.moved = [states]int{}, nil, true
	t.update()
}

// Probed takes the outcome of a probe.
func (t *Tracker) Probed(p Probe, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.entries[p.Addr]
	if e == nil || e.id != p.ID {
		return
	}
	e.probing = false
	if ok && !e.reached {
		t.forget(p.Addr, e)
		t.update()
	}
}

// Changes returns the ejections and their ends since the last call.
func (t *Tracker) Changes() []Change {
	t.mu.Lock()
	defer t.mu.Unlock()
	changes := t.changes
	t.changes = nil
	return changes
}

// Ejected returns how many addresses are ejected, those on trial included.
func (t *Tracker) Ejected() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.entries) - t.counts[suspect]
}

func (t *Tracker) spread(d time.Duration) time.Duration {
	return d + time.Duration((t.random()-0.5)*0.4*float64(d))
}
