package registration

import (
	"context"
	"errors"
	"time"

	"github.com/cloudwego/kitex/pkg/klog"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/kitex-contrib/kitex-etcd/runtime/internal/link"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/record"
)

// How marks come in: each is read before its record is written, and watched from there. What they do is in marks.go.

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
	if done, err := r.putUnmarked(ctx, cli, entries); done || err != nil && !link.Permanent(err) {
		return err
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

// putUnmarked writes new registrations in the transaction that sees that they have no marks, which is one way to etcd instead of
// two. It is not done when there is a mark, when entries are more or less than whole registrations, when there is no lease yet, or when
// etcd refuses it, for one of them may be to blame.
func (r *Registrar) putUnmarked(ctx context.Context, cli *clientv3.Client, entries []*entry) (done bool, err error) {
	regs := r.wholePending(entries)
	if r.lease == 0 || regs == nil {
		return false, nil
	}
	cmps := make([]clientv3.Cmp, len(entries))
	for i, e := range entries {
		cmps[i] = clientv3.Compare(clientv3.CreateRevision(r.markKey(e)), "=", 0)
	}
	resp, err := r.txn(ctx, cli, clientv3.OpTxn(cmps, r.puts(entries), nil))
	if errors.Is(err, rpctypes.ErrLeaseNotFound) {
		r.leaseLost(err)
		return false, nil
	}
	if err != nil || !resp.Succeeded {
		return false, err
	}
	rev := resp.Header.Revision
	for _, e := range entries {
		delete(r.marks.unread, e)
		r.takeMark(e, nil, rev)
		r.watchMark(e)
	}
	for _, reg := range regs {
		r.written(reg, rev)
	}
	r.settleWritten(regs...)
	return true, nil
}

// wholePending returns the pending registrations that entries are all of; nil if they are anything else.
func (r *Registrar) wholePending(entries []*entry) []*registration {
	count := make(map[*registration]int)
	for _, e := range entries {
		if _, pending := r.pending[e.reg]; !pending {
			return nil
		}
		count[e.reg]++
	}
	regs := make([]*registration, 0, len(count))
	for reg, n := range count {
		if n != len(reg.entries) {
			return nil
		}
		regs = append(regs, reg)
	}
	return regs
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

// rereadMarks has all marks read again, and watched from there: etcd counts its revisions from the beginning.
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
