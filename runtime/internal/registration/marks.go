package registration

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/cloudwego/kitex/pkg/klog"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/kitex-contrib/kitex-etcd/runtime/internal/link"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/record"
)

// An operator's mark (record.Mark) lies beside a record and changes what etcd is to hold:
//
//	standing ──drain──> out, to be deleted ──deleted──> drained ──the mark ends──> lost ──written──> standing
//	standing ──weight, or its end──> changed, to be rewritten ──written──> standing
//
// A record is written only when its mark is known, and then its mark is watched: the key alone while it is the only record
// of its service, that of all marks of the service beside it when there are more. Nothing is polled, except by a role that
// may not read marks: it asks again with every check, because somebody may have granted it that. How marks come in is in
// marks_watch.go.

// marks is what the Registrar knows of operators' marks. It is run's own.
type marks struct {
	unread  map[*entry]struct{} // whose mark has to be read before anything is written
	out     map[*entry]struct{} // to be deleted, because they are drained
	changed map[*entry]struct{} // in etcd, but not as they should be
	watches map[string]*watch   // by service
	denied  map[string]struct{} // services whose marks the role may not read
	told    map[string]struct{} // those of which that was said
	updates map[string]*update  // by service
}

func newMarks() marks {
	return marks{
		unread: make(map[*entry]struct{}), out: make(map[*entry]struct{}), changed: make(map[*entry]struct{}),
		watches: make(map[string]*watch),
		denied:  make(map[string]struct{}), told: make(map[string]struct{}),
		updates: make(map[string]*update),
	}
}

// dirty says whether something is to be done for a mark or an Update.
func (m *marks) dirty() bool { return len(m.unread)+len(m.out)+len(m.changed) > 0 }

// marked is what an operator wants of an entry, and what became of that.
type marked struct {
	mark    record.Mark
	rev     int64  // of etcd, up to which the mark is known
	value   string // with the mark's weight; empty: the entry's own
	drained bool   // the record was taken out, and that was said
	watched bool   // counted in the watch of its service's marks
	refused error  // why etcd did not take its last change
}

// wanted is the value that etcd is to hold for e.
func (e *entry) wanted() string { return cmp.Or(e.marked.value, e.Value) }

// wantedOf is those of entries that etcd is to hold.
func wantedOf(entries []*entry) []*entry {
	var wanted []*entry
	for _, e := range entries {
		if !e.marked.mark.Drain {
			wanted = append(wanted, e)
		}
	}
	return wanted
}

// isTaken says whether the record at e's key is that of another process.
func (e *entry) isTaken() bool { return e.takenBy != 0 }

// serves says whether e is the record of a server that is registered, or about to be.
func (r *Registrar) serves(e *entry) bool { return e.reg != nil && r.regs[e.reg.info] == e.reg }

// takeMark takes over what e's mark says at a revision; kv nil means that there is none. What cannot be read is as good as none.
func (r *Registrar) takeMark(e *entry, kv *mvccpb.KeyValue, rev int64) {
	e.marked.rev = rev
	var mark record.Mark
	var err error
	if kv != nil {
		mark, err = record.DecodeMark(kv.Value)
	}
	value := ""
	if err == nil && mark.Weight != 0 {
		value, err = record.WithWeight(e.Value, mark.Weight)
	}
	if err != nil {
		mark, value = record.Mark{}, ""
		klog.Warnf("etcd: the mark %s is ignored: %v", r.markKey(e), err)
		r.tell(Event{Type: InvalidMark, Service: e.Service, Key: r.markKey(e), Err: err})
	}
	r.follow(e, mark, value)
}

// follow has etcd hold what a mark wants of e.
func (r *Registrar) follow(e *entry, mark record.Mark, value string) {
	old, oldValue := e.marked.mark, e.wanted()
	e.marked.mark, e.marked.value = mark, value
	if _, ok := r.pending[e.reg]; ok {
		return // it is about to be written
	}
	switch {
	case mark.Drain && !old.Drain:
		delete(r.lost, e)
		delete(r.marks.changed, e)
		r.takeOut(e)
	case !mark.Drain && old.Drain:
		klog.Infof("etcd: the mark of %s ended; it is registered again", e.Key)
		delete(r.marks.out, e)
		r.lost[e] = struct{}{}
	case !mark.Drain && e.wanted() != oldValue:
		if mark.Weight != old.Weight {
			klog.Infof("etcd: the weight of %s is changed by its mark: %+v", e.Key, mark)
		}
		r.change(e)
	default:
		return
	}
	r.retryAt = time.Time{}
}

// takeOut begins the removal of a drained record.
func (r *Registrar) takeOut(e *entry) {
	if e.sent && !e.isTaken() {
		r.marks.out[e] = struct{}{}
		return
	}
	r.tookOut(e)
}

// tookOut notes that a drained record is not in etcd.
func (r *Registrar) tookOut(e *entry) {
	delete(r.marks.out, e)
	e.sent = e.isTaken() && e.sent
	if e.marked.drained {
		return
	}
	e.marked.drained = true
	var why error
	if e.marked.mark.Reason != "" {
		why = errors.New(e.marked.mark.Reason)
	}
	klog.Infof("etcd: an operator's mark drained %s: no client calls the server, which runs on. Reason: %s", e.Key, cmp.Or(e.marked.mark.Reason, "not given"))
	r.event(Drained, e, why)
}

// withdrawMarked forgets the mark of a record whose server deregisters.
func (r *Registrar) withdrawMarked(e *entry) {
	r.unmark(e)
	if e.marked.drained && !e.sent {
		r.event(Deregistered, e, nil) // what was registered, if not in etcd
	}
}

// heldBack says whether e is drained, and so not missing. found says that our record is in etcd nevertheless: a write arrived late.
func (r *Registrar) heldBack(e *entry, found bool) bool {
	if !e.marked.mark.Drain {
		return false
	}
	if found && !e.isTaken() {
		e.sent = true
		r.takeOut(e)
		r.retryAt = time.Time{}
	}
	return true
}

// change has e rewritten in place.
func (r *Registrar) change(e *entry) {
	if _, lost := r.lost[e]; !lost && !e.isTaken() {
		r.marks.changed[e] = struct{}{}
		e.marked.refused = nil
	}
}

// held says whether a registration that was just written at rev leaves e out, because it is drained.
func (r *Registrar) held(e *entry, rev int64) bool {
	if !e.marked.mark.Drain {
		return false
	}
	e.rev = rev
	r.takeOut(e)
	return true
}

// back is the event of a record that is in etcd again.
func (e *entry) back() EventType {
	if e.marked.drained {
		e.marked.drained = false
		return Undrained
	}
	return Restored
}

// putMarked does what marks and Updates want of records that are in etcd.
func (r *Registrar) putMarked(ctx context.Context, cli *clientv3.Client) error {
	refusal := r.inBatches(r.marks.out, func(batch []*entry) error { return r.delete(ctx, cli, batch) })
	if refusal != nil && !link.Permanent(refusal) {
		return refusal
	}
	return cmp.Or(r.inBatches(r.marks.changed, func(batch []*entry) error { return r.rewrite(ctx, cli, batch) }), refusal)
}

// rewrite writes the records of batch as they are wanted, in one transaction and in place: no client sees them absent. What is
// not there as it was is left to the repair.
func (r *Registrar) rewrite(ctx context.Context, cli *clientv3.Client, batch []*entry) error {
	cmps := make([]clientv3.Cmp, len(batch))
	for i, e := range batch {
		cmps[i] = clientv3.Compare(clientv3.LeaseValue(e.Key), "=", r.lease)
	}
	if r.lease == 0 { // whatever there was is lost, and is restored as it is wanted
		for _, e := range batch {
			delete(r.marks.changed, e)
		}
		return nil
	}
	resp, err := r.txn(ctx, cli, clientv3.OpTxn(cmps, r.puts(batch), looks(batch)))
	if err != nil {
		if link.Permanent(err) && len(batch) == 1 {
			batch[0].marked.refused = err
		}
		return err
	}
	for i, e := range batch {
		if resp.Succeeded {
			delete(r.marks.changed, e)
			e.rev = resp.Header.Revision
			continue
		}
		if kv := looked(resp, i); kv == nil || clientv3.LeaseID(kv.Lease) != r.lease {
			delete(r.marks.changed, e)
			r.lost[e] = struct{}{}
		}
	}
	return nil // those that were as expected are tried again without the others
}
