package registration

import (
	"context"
	"fmt"
	"maps"
	"time"

	"github.com/kitex-contrib/kitex-etcd/runtime/internal/link"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/record"
)

// updateTimeout bounds Update for callers whose context has no end.
const updateTimeout = 3 * time.Second

// Change is what Update changes of records. Weight 0 and nil Tags leave what is there.
type Change struct {
	Weight int
	Tags   map[string]string
}

// updateRequest is an Update.
type updateRequest struct {
	service string
	change  Change
}

// update is an Update that etcd has not taken yet.
type update struct {
	call   *call
	change Change            // with those that it overtook
	before map[*entry]string // the records that are not as wanted, and their values before
}

func (u *updateRequest) notRegistered() error {
	return fmt.Errorf("etcd: no server of %q is registered through this Conn; Update comes after the server has started, and names the service as its registration does", u.service)
}

// Update changes the records of all servers of service, in place and, as far as etcd takes them, in one transaction. It returns when
// etcd holds the change. An error of ctx, or of time, 3 s at most, does not take it back: it is made when etcd answers. What
// etcd refuses is as it was.
func (r *Registrar) Update(ctx context.Context, service string, change Change) error {
	change.Tags = maps.Clone(change.Tags)
	ctx, cancel := context.WithTimeout(ctx, updateTimeout)
	defer cancel()
	c := newCall(updateTimeout)
	if err := r.post(&request{call: c, update: &updateRequest{service, change}}); err != nil {
		return err
	}
	select {
	case err := <-c.done:
		return err
	case <-r.link.Closing().Done():
		return link.ErrClosed
	case <-ctx.Done():
		return link.Failed(r.link.Explain(ctx.Err()), fmt.Sprintf("update %s at %s", service, r.link.Target()), "the change is made as soon as etcd answers")
	}
}

// update makes the change of a request wanted.
func (r *Registrar) update(req *request) {
	u := &update{call: req.call, change: req.update.change, before: make(map[*entry]string)}
	values := make(map[*entry]string)
	for _, e := range r.entries {
		if e.Service != req.update.service || !r.serves(e) {
			continue
		}
		value, err := req.update.change.apply(e.Value)
		if err != nil {
			req.call.settle(err)
			return
		}
		values[e] = value
	}
	if len(values) == 0 {
		req.call.settle(req.update.notRegistered())
		return
	}
	if old := r.marks.updates[req.update.service]; old != nil {
		old.call.settle(fmt.Errorf("etcd: a later Update of %s overtook this one", req.update.service))
		maps.Copy(u.before, old.before)
		u.change = u.change.over(old.change)
	}
	for e, value := range values {
		if _, ok := u.before[e]; !ok {
			u.before[e] = e.Value
		}
		r.setValue(e, value)
	}
	r.marks.updates[req.update.service] = u
	r.retryAt = time.Time{}
}

// apply returns a record's value with the change.
func (c Change) apply(value string) (string, error) {
	rec, err := record.Decode([]byte(value), record.DefaultWeight)
	if err != nil {
		return "", err
	}
	if c.Weight != 0 {
		rec.Weight = float64(c.Weight)
	}
	if c.Tags != nil {
		rec.Tags = c.Tags
	}
	return record.Encode(&rec)
}

// over is c after an earlier change.
func (c Change) over(earlier Change) Change {
	if c.Weight == 0 {
		c.Weight = earlier.Weight
	}
	if c.Tags == nil {
		c.Tags = earlier.Tags
	}
	return c
}

// applied is apply for a value that this package wrote.
func (c Change) applied(value string) string {
	if changed, err := c.apply(value); err == nil {
		return changed
	}
	return value
}

// setValue changes what e is registered as. A mark's weight stays.
func (r *Registrar) setValue(e *entry, value string) {
	old := e.wanted()
	e.Value = value
	if w := e.marked.mark.Weight; w != 0 {
		if weighed, err := record.WithWeight(value, w); err == nil { // it could be read before
			e.marked.value = weighed
		}
	}
	if _, pending := r.pending[e.reg]; !pending && !e.marked.mark.Drain && e.wanted() != old {
		r.change(e)
	}
}

// settleUpdates tells those whose Update etcd has taken, or refused. What a drain or another process keeps out of etcd is not
// waited for.
func (r *Registrar) settleUpdates() {
	for service, u := range r.marks.updates {
		var refusal error
		for e := range u.before {
			if r.entries[e.Key] != e || !r.outstanding(e) {
				delete(u.before, e)
			} else if e.marked.refused != nil {
				refusal = e.marked.refused
			}
		}
		if refusal != nil {
			for e, before := range u.before {
				r.setValue(e, before)
				delete(r.marks.changed, e) // etcd holds it so
			}
			u.call.settle(link.Failed(r.link.Explain(refusal), fmt.Sprintf("update %s at %s", service, r.link.Target())))
			delete(r.marks.updates, service)
		} else if len(u.before) == 0 {
			for _, reg := range r.regs {
				if reg.changes == nil {
					reg.changes = make(map[string]Change)
				}
				reg.changes[service] = u.change.over(reg.changes[service])
			}
			u.call.settle(nil)
			delete(r.marks.updates, service)
		}
	}
}

// outstanding says whether etcd does not hold e as it is wanted, and will.
func (r *Registrar) outstanding(e *entry) bool {
	_, changed := r.marks.changed[e]
	_, lost := r.lost[e]
	_, pending := r.pending[e.reg]
	return changed || lost || pending
}
