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

var (
	errLeaseGone  = errors.New("etcd says that the lease does not exist")
	errDeleted    = errors.New("the key was deleted")
	errUnlisted   = errors.New("the key is not among those of the lease")
	errEdited     = errors.New("the record was written without a lease, by hand it seems")
	errWatchEnded = errors.New("the watch ended")
)

// observe asks for the lease and the keys under it. It is the belt to the watches' braces.
func (r *Registrar) observe() {
	r.observeAt = time.Now().Add(link.Jitter(r.cfg.Retry.ObserveDelay))
	for _, reg := range r.regs {
		r.followAddress(reg)
	}
	r.askDenied()
	cli := r.link.Current()
	if cli == nil || r.silent {
		return // the first answer brings the check forward
	}
	attached := make(map[string]struct{}, len(r.entries))
	if r.lease != 0 {
		ctx, cancel := r.rpcContext(r.link.Closing())
		defer cancel()
		resp, err := cli.TimeToLive(ctx, r.lease, clientv3.WithAttachedKeys())
		if err != nil {
			return
		}
		if resp.TTL < 0 { // 0 is less than a second
			r.leaseLost(errLeaseGone)
		}
		for _, key := range resp.Keys {
			attached[string(key)] = struct{}{}
			if r.entries[string(key)] == nil {
				r.removeLeftover(string(key))
			}
		}
	}
	for _, reg := range r.regs {
		if _, ok := r.pending[reg]; ok {
			continue
		}
		for _, e := range reg.entries {
			if _, ok := attached[e.Key]; r.heldBack(e, ok) || ok {
				continue
			}
			if e.takenBy != 0 {
				r.lost[e] = struct{}{} // stands again if the other's record is gone
				r.retryAt = time.Time{}
			} else {
				r.lose(e, errUnlisted)
			}
		}
	}
}

// followAddress moves a registration whose host has another address now: the new records are written, then the old ones removed.
func (r *Registrar) followAddress(reg *registration) {
	if _, pending := r.pending[reg]; pending || reg.current == nil {
		return
	}
	records, err := reg.current()
	if err != nil {
		return // the host is without a network for now
	}
	entries := entriesOf(records)
	if sameKeys(reg.entries, entries) {
		return
	}
	for _, e := range entries {
		if r.entries[e.Key] != nil {
			return // another server of this process is registered there
		}
	}
	klog.Warnf("etcd: this host's address changed: %s is registered as %s", reg.entries[0].Key, entries[0].Key)
	reg.moved = &registration{entries: reg.entries}
	for _, e := range reg.moved.entries {
		e.reg = reg.moved
		delete(r.lost, e)
	}
	reg.entries = entries
	for _, e := range entries {
		e.reg = reg
		e.Value = reg.changes[e.Service].applied(e.Value)
		r.entries[e.Key] = e
		r.marks.unread[e] = struct{}{}
	}
	r.pending[reg] = struct{}{}
	r.retryAt = time.Time{}
}

// dropMoved begins the removal of the records at a registration's former address.
func (r *Registrar) dropMoved(reg *registration) {
	old := reg.moved
	if reg.moved = nil; old == nil {
		return
	}
	for _, e := range old.entries {
		r.withdrawMarked(e)
		if e.isTaken() || !e.sent {
			r.forget(e)
			continue
		}
		r.removing[e] = struct{}{}
		old.left++
	}
	r.retryAt = time.Time{}
}

// lose notes that a record is gone although its server runs.
func (r *Registrar) lose(e *entry, cause error) {
	if _, ok := r.lost[e]; ok {
		return
	}
	r.lost[e] = struct{}{}
	r.retryAt = time.Time{}
	klog.Warnf("etcd: the registration %s is gone: %v; restoring it", e.Key, cause)
	r.event(RecordLost, e, cause)
}

// lives says whether etcd knows that a lease has not ended.
func (r *Registrar) lives(id clientv3.LeaseID) bool {
	cli := r.link.Current()
	if cli == nil {
		return false
	}
	ctx, cancel := r.rpcContext(r.link.Closing())
	defer cancel()
	resp, err := cli.TimeToLive(ctx, id)
	return err == nil && resp.TTL > 0
}

// removeLeftover removes a record of ours that nobody wants: a write whose answer was lost arrived after its removal.
func (r *Registrar) removeLeftover(key string) {
	e := &entry{Record: Record{Key: key}, sent: true}
	r.entries[key] = e
	r.removing[e] = struct{}{}
	r.retryAt = time.Time{}
}

// recordNews is what a watch saw.
type recordNews struct {
	events    []*clientv3.Event
	compacted bool   // some events were missed
	marksOf   string // the service whose marks they are; empty: they are records
}

// watch is what tells of changes to the records of one service: the key alone as long as it is one, so that a process
// does not hear of every other instance; the whole service beside it when there are more.
type watch struct {
	entries int
	whole   bool // the whole service is watched
	cancels []context.CancelFunc
}

func (w *watch) stop() {
	for _, cancel := range w.cancels {
		cancel()
	}
	w.cancels, w.whole = nil, false
}

// watch begins to watch a record that was just written, unless it is watched.
func (r *Registrar) watch(e *entry) {
	w := r.watches[e.Service]
	if w == nil {
		w = &watch{}
		r.watches[e.Service] = w
	}
	if !e.watched {
		e.watched = true
		w.entries++
	}
	if w.whole || w.entries == 1 && len(w.cancels) == 1 {
		return
	}
	rw := recordWatch{link: r.link, retryDelay: r.cfg.Retry.RetryDelay, key: e.Key, next: e.rev + 1, news: r.news}
	if w.entries > 1 {
		w.whole = true
		rw.key, rw.opts = record.ServicePrefix(r.cfg.Prefix, e.Service), []clientv3.OpOption{clientv3.WithPrefix()}
	}
	ctx, cancel := context.WithCancel(r.link.Running())
	if !r.link.Start(func(context.Context) { rw.run(ctx) }) {
		cancel()
		return
	}
	w.cancels = append(w.cancels, cancel)
}

// restartWatches begins all watches anew at rev: etcd was rebuilt, or restored from a backup, and counts its revisions again from
// below those that the watches wait for.
func (r *Registrar) restartWatches(rev int64) {
	for _, w := range r.watches {
		w.stop()
	}
	for _, e := range r.entries {
		if e.watched {
			e.rev = rev
			r.watch(e)
		}
	}
	r.rereadMarks()
	r.observeAt = time.Now()
}

// unwatch ends the watching of a record.
func (r *Registrar) unwatch(e *entry) {
	if !e.watched {
		return
	}
	e.watched = false
	w := r.watches[e.Service]
	if w.entries--; w.entries == 0 {
		w.stop()
		delete(r.watches, e.Service)
	}
}

// applyNews takes what a watch saw.
func (r *Registrar) applyNews(n recordNews) {
	if n.marksOf != "" {
		r.applyMarkNews(n)
		return
	}
	if n.compacted {
		r.observeAt = time.Now()
	}
	for _, ev := range n.events {
		key, deleted := string(ev.Kv.Key), ev.Type == mvccpb.DELETE
		e := r.entries[key]
		if e == nil {
			if !deleted && r.ours(ev.Kv) {
				r.removeLeftover(key)
			}
			continue
		}
		if e.reg == nil || r.regs[e.reg.info] != e.reg || ev.Kv.ModRevision <= e.rev {
			continue // being removed, or older than our last write
		}
		if _, ok := r.pending[e.reg]; ok {
			continue // about to be written anyway
		}
		if r.heldBack(e, !deleted && (r.ours(ev.Kv) || edited(ev.Kv))) {
			continue
		}
		switch {
		case deleted && e.takenBy != 0:
			// The process that took over gave the address up, or is about to repair its record. A check finds out.
			delay := reclaimDelay
			if r.lives(e.takenBy) {
				delay = repairDelay
			}
			if at := time.Now().Add(link.Jitter(delay)); at.Before(r.observeAt) {
				r.observeAt = at
			}
		case deleted:
			r.lose(e, errDeleted)
		case r.ours(ev.Kv):
		case edited(ev.Kv):
			r.lose(e, errEdited)
		default:
			r.take(e, ev.Kv)
		}
	}
}

// recordWatch is the goroutine of one watch.
type recordWatch struct {
	link       *link.Link
	retryDelay time.Duration // after a refusal
	key        string
	opts       []clientv3.OpOption
	next       int64  // the revision to watch from
	marksOf    string // the service whose marks are watched; empty: records are
	news       chan<- recordNews
}

// run watches until ctx ends, across interruptions.
func (w *recordWatch) run(ctx context.Context) {
	failing, refusals := false, 0
	for ctx.Err() == nil {
		watchCtx, stream := w.link.WatchContext(ctx)
		cli, err := w.link.Get(ctx)
		if err == nil {
			err = w.watch(watchCtx, cli)
		}
		if ctx.Err() != nil {
			return
		}
		if w.link.RefusedWatch(err, stream) {
			if refusals++; refusals == 1 {
				continue // a stream's token is as old as the stream: the next one has a new one
			}
		} else {
			refusals = 0
		}
		delay := reopenDelay
		if link.Permanent(err) || link.Refused(err) || refusals > 2 {
			delay = w.retryDelay
			if !failing {
				failing = true
				klog.Warnf("%v; still trying, and until then a change of the key is seen at the next check only", link.Failed(w.link.Explain(err), "watch "+w.key))
			}
		}
		link.Sleep(ctx, link.Jitter(delay))
	}
}

func (w *recordWatch) watch(ctx context.Context, cli *clientv3.Client) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for resp := range cli.Watch(ctx, w.key, append(w.opts, clientv3.WithRev(w.next))...) {
		if err := resp.Err(); err != nil {
			if errors.Is(err, rpctypes.ErrCompacted) {
				w.next = resp.CompactRevision
				w.send(ctx, recordNews{compacted: true})
			}
			return err
		}
		if len(resp.Events) > 0 {
			w.next = resp.Header.Revision + 1
			w.send(ctx, recordNews{events: resp.Events})
		}
	}
	return errWatchEnded
}

func (w *recordWatch) send(ctx context.Context, n recordNews) {
	n.marksOf = w.marksOf
	select {
	case w.news <- n:
	case <-ctx.Done():
	}
}
