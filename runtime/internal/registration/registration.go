package registration

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cloudwego/kitex/pkg/klog"
	"github.com/cloudwego/kitex/pkg/registry"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/kitex-contrib/kitex-etcd/runtime/internal/link"
)

// registration is what one Register asked for.
type registration struct {
	info    *registry.Info
	listen  string // info.Addr when it was registered
	entries []*entry
	current func() ([]Record, error) // what entries would be now; nil where that does not change
	moved   *registration            // the records at a former address, to be removed when entries are written; nil: none
	changes map[string]Change        // by service, what Updates changed
	call    *call                    // who waits for the current step; nil when nobody does

	left     int       // entries that are still to be removed
	deleted  bool      // one of them was there
	drainEnd time.Time // when clients have seen the removal
}

// describe names a registration for errors: its first key, how many more there are, and their size.
func (reg *registration) describe() string {
	size := 0
	for _, e := range reg.entries {
		size += len(e.Value)
	}
	more := ""
	if n := len(reg.entries); n > 1 {
		more = fmt.Sprintf(" and %d more", n-1)
	}
	if size > 100<<10 {
		more += fmt.Sprintf(", %d kB in all", size>>10)
	}
	return reg.entries[0].Key + more
}

// Record is what etcd is to hold for one service of a server.
type Record struct {
	Service, Key, Value string
}

// entry is one record and what became of it.
type entry struct {
	Record
	reg     *registration    // nil for a leftover, to be removed
	sent    bool             // a write was sent: the record may be in etcd even if no answer came
	put     bool             // it was written, although the rest of its registration may not be
	rev     int64            // revision of our last write
	takenBy clientv3.LeaseID // of the other process whose record is at the key; 0: none
	watched bool             // counted in its service's watch
	marked  marked           // what an operator wants of it
}

func entriesOf(records []Record) []*entry {
	entries := make([]*entry, len(records))
	for i, r := range records {
		entries[i] = &entry{Record: r}
	}
	return entries
}

// request is a Register, a Deregister when remove is set, or an Update when update is.
type request struct {
	call    *call
	info    *registry.Info
	records []*entry
	current func() ([]Record, error)
	remove  bool
	update  *updateRequest
}

// call is somebody who waits for the outcome of a request.
type call struct {
	deadline   time.Time
	background bool       // at the deadline the answer is nil, and the work goes on
	settled    bool       // the registrar's own
	done       chan error // has room for the outcome
}

func newCall(timeout time.Duration) *call {
	return &call{deadline: time.Now().Add(timeout), done: make(chan error, 1)}
}

// settle tells the outcome; false means that nobody waits any more.
func (c *call) settle(err error) bool {
	if c == nil || c.settled {
		return false
	}
	c.settled = true
	c.done <- err
	return true
}

// register makes a request's records wanted.
func (r *Registrar) register(req *request) {
	reg := r.regs[req.info]
	if reg != nil && !sameKeys(reg.entries, req.records) {
		req.call.settle(fmt.Errorf("etcd: the registry.Info of %s was registered before, and now means %s; give each server a separate Info, and deregister before you change one", reg.entries[0].Key, req.records[0].Key))
		return
	}
	for _, e := range req.records {
		if old := r.entries[e.Key]; old != nil && old.reg != nil && old.reg != reg && r.regs[old.reg.info] == old.reg {
			r.refused[req.info] = struct{}{}
			req.call.settle(fmt.Errorf("etcd: register %s: another server of this process is registered there; give each server its own address with ServerOptionsAt", e.Key))
			return
		}
	}
	if reg == nil {
		reg = &registration{info: req.info}
	}
	reg.call.settle(errors.New("etcd: a later Register of the same server overtook this one"))
	reg.call, reg.listen, reg.current, reg.changes = req.call, addrString(req.info), req.current, nil
	for _, e := range req.records {
		if old := r.entries[e.Key]; old != nil {
			r.forget(old) // a removal that is overtaken, or the same record again
			e.sent, e.rev = old.sent, old.rev
		}
		e.reg = reg
		r.entries[e.Key] = e
		r.marks.unread[e] = struct{}{}
	}
	reg.entries = req.records
	r.regs[req.info] = reg
	delete(r.refused, req.info)
	r.pending[reg], r.waiting[reg] = struct{}{}, struct{}{}
	r.retryAt = time.Time{}
}

// deregister makes a registration unwanted. Its records are deleted if they may be in etcd and are ours.
func (r *Registrar) deregister(req *request) {
	_, refused := r.refused[req.info]
	delete(r.refused, req.info)
	reg := r.regs[req.info]
	if reg == nil && !refused {
		reg = r.equalRegistration(req)
	}
	if reg == nil {
		req.call.settle(nil)
		return
	}
	r.withdraw(reg, req.call)
}

// equalRegistration finds what was registered with another Info of the same content. The listen address must agree: a
// second server that publishes the same address was refused, and must not take the first one's records away.
func (r *Registrar) equalRegistration(req *request) *registration {
	for _, e := range req.records {
		if old := r.entries[e.Key]; old != nil && old.reg != nil && r.regs[old.reg.info] == old.reg &&
			old.reg.listen == addrString(req.info) && sameKeys(old.reg.entries, req.records) {
			return old.reg
		}
	}
	return nil
}

// withdraw begins the removal of a registration, for c to wait for; c may be nil.
func (r *Registrar) withdraw(reg *registration, c *call) {
	r.dropMoved(reg)
	delete(r.regs, reg.info)
	delete(r.pending, reg)
	delete(r.waiting, reg)
	reg.call.settle(errors.New("etcd: deregistered before it was registered"))
	reg.call = c
	for _, e := range reg.entries {
		r.withdrawMarked(e)
		if e.isTaken() || !e.sent {
			r.forget(e)
			continue
		}
		delete(r.lost, e)
		r.removing[e] = struct{}{}
		reg.left++
	}
	if c != nil {
		r.waiting[reg] = struct{}{}
	}
	if reg.left == 0 {
		r.drain(reg)
	}
	r.retryAt = time.Time{}
}

// forget drops an entry; a removal's caller is told that it is done.
func (r *Registrar) forget(e *entry) {
	if r.entries[e.Key] == e {
		delete(r.entries, e.Key)
	}
	delete(r.lost, e)
	r.unwatch(e)
	r.unmark(e)
	if _, ok := r.removing[e]; ok {
		delete(r.removing, e)
		if e.reg != nil {
			if e.reg.left--; e.reg.left == 0 {
				r.drain(e.reg)
			}
		}
	}
}

// drain gives clients the time to see that a server is gone. Its caller waits meanwhile.
func (r *Registrar) drain(reg *registration) {
	delete(r.waiting, reg)
	if reg.deleted {
		reg.drainEnd = time.Now().Add(r.cfg.DrainDelay)
	}
	r.draining[reg] = struct{}{}
}

// finishDrained ends the removals whose drain delay is over, and the keeping of the lease with the last one.
func (r *Registrar) finishDrained(ctx context.Context) {
	now := time.Now()
	var finished []*registration
	for reg := range r.draining {
		if !now.Before(reg.drainEnd) {
			delete(r.draining, reg)
			finished = append(finished, reg)
		}
	}
	if r.lease != 0 && len(r.entries)+len(r.draining) == 0 {
		r.release(ctx)
	}
	for _, reg := range finished {
		reg.call.settle(nil)
	}
}

// expireCalls answers those who have waited long enough.
func (r *Registrar) expireCalls() {
	now := time.Now()
	for reg := range r.waiting {
		if now.Before(reg.call.deadline) {
			continue
		}
		cause := r.lastErr
		if cause == nil {
			cause = context.DeadlineExceeded
		}
		_, wanted := r.pending[reg]
		if wanted && reg.call.background {
			delete(r.waiting, reg)
			r.late(reg, cause)
			continue
		}
		if wanted {
			r.fail(reg, link.Failed(r.link.Explain(cause), fmt.Sprintf("register %s at %s, without success for %v", reg.describe(), r.link.Target(), registerTimeout),
				"WithBackgroundRegister starts without etcd"))
			continue
		}
		delete(r.waiting, reg)
		err := link.Failed(r.link.Explain(cause), fmt.Sprintf("deregister %s at %s, without success for %v; the record ends with its lease, in %v at most",
			reg.entries[0].Key, r.link.Target(), deregisterTimeout, r.ttl))
		klog.Warnf("%v", err)
		for _, e := range reg.entries {
			if _, ok := r.removing[e]; ok {
				r.event(Deregistered, e, err)
			}
		}
		reg.call.settle(err)
	}
}

// errNotYet is why a record is not in etcd although nobody deleted it.
var errNotYet = errors.New("etcd did not answer when the server began")

// late ends a Register in the background, which the registrar goes on with.
func (r *Registrar) late(reg *registration, cause error) {
	for _, e := range reg.entries {
		if e.rev == 0 { // otherwise the record in etcd is being updated
			r.event(RecordLost, e, fmt.Errorf("%w: %w", errNotYet, cause))
		}
	}
	reg.call.settle(nil)
}

// fail ends a Register with err. The registration stays wanted when its caller was told otherwise before.
func (r *Registrar) fail(reg *registration, err error) {
	delete(r.waiting, reg)
	if !reg.call.settle(err) || reg.entries[0].rev != 0 {
		return // nobody was told, or the record in etcd is being updated
	}
	r.withdraw(reg, nil)
}

// event tells the handler about one record.
func (r *Registrar) event(t EventType, e *entry, err error) {
	r.tell(Event{Type: t, Service: e.Service, Key: e.Key, Err: err})
}

// tell tells the handler of an event, as soon as Registered shows what it says.
func (r *Registrar) tell(ev Event) { r.events = append(r.events, ev) }

func sameKeys(a, b []*entry) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].Key != b[i].Key {
			return false
		}
	}
	return true
}

func addrString(info *registry.Info) string {
	if info.Addr == nil {
		return ""
	}
	return info.Addr.String()
}
