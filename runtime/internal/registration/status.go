package registration

import (
	"cmp"
	"slices"
	"time"
)

// State is what became of a record that a server wants in etcd.
type State int

// The states. Package etcd documents each under the same name.
const (
	Standing State = iota + 1
	Lost
	Unknown
	Taken
	DrainedOut // drained by an operator; Drained is the event
)

// Status is the state of one record.
type Status struct {
	Service, Key string
	State        State
}

// statuses are the states of all records at one moment. They are never changed: newer ones take their place.
type statuses struct {
	list      []Status  // in no order: that is for whoever reads them, as run publishes far more often
	confirmed time.Time // when etcd last confirmed the lease; zero if there was none
	ttl       time.Duration
}

// Registered returns the records that servers want in etcd, sorted by key, when etcd last confirmed their lease, and how long the
// lease lasts from then on. It reads what run last published. The slice is the caller's.
func (r *Registrar) Registered(now time.Time) (list []Status, confirmed time.Time, ttl time.Duration) {
	s := r.published.Load()
	if s == nil {
		return nil, time.Time{}, 0
	}
	list = slices.Clone(s.list)
	slices.SortFunc(list, func(a, b Status) int { return cmp.Compare(a.Key, b.Key) })
	if now.Sub(s.confirmed) >= s.ttl {
		for i := range list {
			if list[i].State == Standing {
				list[i].State = Unknown
			}
		}
	}
	return list, s.confirmed, s.ttl
}

// publish lets Registered see what is known now, and then tells of the events that led to it.
func (r *Registrar) publish() {
	s := &statuses{list: make([]Status, 0, len(r.entries)), confirmed: r.confirmed, ttl: r.ttl}
	for _, e := range r.entries {
		if r.serves(e) {
			s.list = append(s.list, Status{e.Service, e.Key, r.state(e)})
		}
	}
	r.published.Store(s)
	for _, ev := range r.events {
		r.cfg.Notify(ev)
	}
	clear(r.events) // their errors
	r.events = r.events[:0]
}

func (r *Registrar) state(e *entry) State {
	_, lost := r.lost[e]
	switch {
	case e.isTaken():
		return Taken
	case e.marked.drained:
		return DrainedOut
	case lost, r.lease == 0, e.rev == 0:
		return Lost
	}
	return Standing
}
