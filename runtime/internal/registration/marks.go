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
// A record is written only after its mark was read, and then its mark is watched: the key alone while it is the only record
// of its service, that of all marks of the service beside it when there are more. Nothing is polled, except by a role that
// may not read marks: it asks again with every check, because somebody may have granted it that.

// marks is what the Registrar knows of operators' marks. It is run's own.
type marks struct {
	unread  map[*entry]struct{} // whose mark has to be read before anything is written
	out     map[*entry]struct{} // to be deleted, because they are drained
	changed map[*entry]struct{} // stand, but not as they should
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

// isTaken says whether another process's record stands at e's key.
func (e *entry) isTaken() bool { return e.takenBy != 0 }

// serves says whether e is the record of a server that is registered, or about to be.
func (r *Registrar) serves(e *entry) bool { return e.reg != nil && r.regs[e.reg.info] == e.reg }

// readMarks reads all marks that are unread: nothing is written before. That the role may not is no error.
func (r *Registrar) readMarks(ctx context.Context, cli *clientv3.Client) error {
	for len(r.marks.unread) > 0 { // new requests may end a round of batches early
		if err := r.inBatches(r.marks.unread, func(batch []*entry) error { return r.readMarksOf(ctx, cli, batch) }); err != nil {
			return err
		}
	}
	return nil
}

func (r *Registrar) readMarksOf(ctx context.Context, cli *clientv3.Client, batch []*entry) error {
	var entries []*entry
	var ops []clientv3.Op
	for _, e := range batch {
		if _, denied := r.marks.denied[e.Service]; denied || !r.serves(e) {
			delete(r.marks.unread, e)
			continue
		}
		entries = append(entries, e)
		ops = append(ops, clientv3.OpGet(r.markKey(e)))
	}
	if len(entries) == 0 {
		return nil
	}
	ctx, cancel := r.rpcContext(ctx)
	defer cancel()
	resp, err := cli.Do(ctx, clientv3.OpTxn(nil, ops, nil))
	if link.Permanent(err) && len(batch) == 1 {
		r.denyMarks(entries[0].Service, err)
		delete(r.marks.unread, entries[0])
		return nil
	}
	if err != nil {
		return err
	}
	rev := resp.Txn().Header.Revision
	for i, e := range entries {
		delete(r.marks.unread, e)
		r.takeMark(e, looked(resp.Txn(), i), rev)
		r.watchMark(e)
	}
	return nil
}

// markKey is the key of e's mark.
func (r *Registrar) markKey(e *entry) string {
	_, addr, _ := record.SplitKey(r.cfg.Prefix, e.Key)
	return record.MarkKey(r.cfg.Prefix, e.Service, addr)
}

func (r *Registrar) denyMarks(service string, err error) {
	r.marks.denied[service] = struct{}{}
	if _, told := r.marks.told[service]; told {
		return
	}
	r.marks.told[service] = struct{}{}
	klog.Infof("etcd: operators cannot drain or weigh the servers of %s from outside, because the role of this process may not read below %s: %v",
		service, record.ServiceMarkPrefix(r.cfg.Prefix, service), err)
}

// rereadMarks has all marks read again, and watched from there: etcd counts its revisions anew.
func (r *Registrar) rereadMarks() {
	for _, w := range r.marks.watches {
		w.stop()
	}
	clear(r.marks.watches)
	for _, e := range r.entries {
		e.marked.watched, e.marked.rev = false, 0
		r.marks.unread[e] = struct{}{}
	}
}

// askDenied has the marks read that could not be.
func (r *Registrar) askDenied() {
	if len(r.marks.denied) == 0 {
		return
	}
	for _, e := range r.entries {
		if _, denied := r.marks.denied[e.Service]; denied {
			r.marks.unread[e] = struct{}{}
		}
	}
	clear(r.marks.denied)
	r.retryAt = time.Time{}
}

// watchMark begins to watch e's mark from the revision on at which it was read, unless it is watched.
func (r *Registrar) watchMark(e *entry) {
	w := r.marks.watches[e.Service]
	if w == nil {
		w = &watch{}
		r.marks.watches[e.Service] = w
	}
	if !e.marked.watched {
		e.marked.watched = true
		w.entries++
	}
	if w.whole || w.entries == 1 && len(w.cancels) == 1 {
		return
	}
	rw := recordWatch{link: r.link, retryDelay: r.cfg.Retry.RetryDelay, key: r.markKey(e), next: e.marked.rev + 1, news: r.news, marksOf: e.Service}
	if w.entries > 1 {
		w.stop() // the watch of all sees what this one would
		w.whole = true
		rw.key, rw.opts = record.ServiceMarkPrefix(r.cfg.Prefix, e.Service), []clientv3.OpOption{clientv3.WithPrefix()}
		for _, other := range r.entries {
			if other.Service == e.Service && other.marked.watched {
				rw.next = min(rw.next, other.marked.rev+1)
			}
		}
	}
	ctx, cancel := context.WithCancel(r.link.Running())
	if !r.link.Start(func(context.Context) { rw.run(ctx) }) {
		cancel()
		return
	}
	w.cancels = append(w.cancels, cancel)
}

// unmark forgets what is known of e's mark.
func (r *Registrar) unmark(e *entry) {
	delete(r.marks.unread, e)
	delete(r.marks.out, e)
	delete(r.marks.changed, e)
	if !e.marked.watched {
		return
	}
	e.marked.watched = false
	w := r.marks.watches[e.Service]
	if w.entries--; w.entries == 0 {
		w.stop()
		delete(r.marks.watches, e.Service)
	}
}

// applyMarkNews takes what a watch of marks saw.
func (r *Registrar) applyMarkNews(n recordNews) {
	if n.compacted {
		for _, e := range r.entries {
			if e.Service == n.marksOf {
				r.marks.unread[e] = struct{}{}
			}
		}
		r.retryAt = time.Time{}
	}
	for _, ev := range n.events {
		service, addr, err := record.SplitMarkKey(r.cfg.Prefix, string(ev.Kv.Key))
		if err != nil {
			continue
		}
		e := r.entries[record.Key(r.cfg.Prefix, service, addr)]
		if e == nil || !r.serves(e) || ev.Kv.ModRevision <= e.marked.rev {
			continue // of no server of ours, or known
		}
		kv := ev.Kv
		if ev.Type == mvccpb.DELETE {
			kv = nil
		}
		r.takeMark(e, kv, ev.Kv.ModRevision)
	}
}

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
		r.cfg.Notify(Event{Type: InvalidMark, Service: e.Service, Key: r.markKey(e), Err: err})
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

// heldBack says whether e is drained, and so not missing. found says that our record stands nevertheless: a write arrived late.
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

// change has e rewritten where it stands.
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

// back is the event of a record that stands again.
func (e *entry) back() EventType {
	if e.marked.drained {
		e.marked.drained = false
		return Undrained
	}
	return Restored
}

// putMarked does what marks and Updates want of records that stand.
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
