package discovery

import (
	"context"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/kitex-contrib/kitex-etcd/runtime/internal/link"
)

// check compares the roster with etcd: a watch that is resumed on an etcd that was rebuilt is silent, and then skips
// what happened meanwhile. That takes a new connection, after which many keys are compared: that their number and the
// newest of them are the same has happened. An answer that does not match may be ahead of the watch, so it counts when it
// is repeated: the second time, or, in a stream of changes, the fifth.
func (w *watcher) check(ctx context.Context, cli *clientv3.Client) error {
	limit := int64(1)
	if w.reconnected {
		limit = 1000
	}
	turn, err := link.Await(ctx, w.link, w.timing.RPC, w.link.Reads)
	var resp *clientv3.GetResponse
	if err == nil {
		err = w.link.Ask(ctx, w.timing.RPC, func(ctx context.Context) (err error) {
			resp, err = cli.Get(ctx, w.prefix, clientv3.WithPrefix(), clientv3.WithLimit(limit), clientv3.WithKeysOnly(),
				clientv3.WithSort(clientv3.SortByModRevision, clientv3.SortDescend))
			return err
		})
		w.link.Reads <- turn
	}
	now := time.Now()
	if err != nil { // an outage; the next connection brings the next check
		w.checkAt = now.Add(link.Jitter(w.timing.Check))
		return nil
	}
	w.checkAt = now.Add(link.Jitter(w.timing.Audit))
	switch {
	case resp.Header.Revision < w.highest:
		return errRebuilt
	case w.roster.Agrees(resp.Kvs, resp.Count):
		w.doubts, w.reconnected = 0, false
		w.heard(now)
		return nil
	}
	if w.doubts++; w.doubts == 1 {
		w.doubted = w.roster.Revision()
	}
	if w.doubts >= 5 || w.doubts >= 2 && w.doubted == w.roster.Revision() {
		return errDiverged
	}
	w.checkAt = now.Add(w.timing.Recheck)
	return nil
}

// spread is how long a watcher waits before its check after a new connection, so that those of many services are not all at once.
func (d *Directory) spread() time.Duration {
	return link.RandomUpTo(min(time.Duration(len(*d.services.Load()))*checkSpacing, maxSpread))
}

const (
	// guardChecks is how many times Check lie between two questions of guard: 90 s.
	guardChecks  = 3
	checkSpacing = 5 * time.Millisecond
	maxSpread    = 10 * time.Second
)

// guard asks etcd now and then for its revision, for all services: one that has gone back is that of another etcd, behind a
// connection that is open. It is a read of one key that does not exist, the cheapest request. It also finds out that a connection is
// dead, and keeps Synced true for services that do not change.
func (d *Directory) guard(ctx context.Context) {
	for link.Sleep(ctx, link.Jitter(guardChecks*d.timing.Check)) {
		cli := d.link.Current()
		key := d.anyPrefix() // which the role of the user lets us read
		if cli == nil || key == "" {
			continue
		}
		var revision int64
		begin := time.Now()
		err := d.link.Ask(clientv3.WithRequireLeader(ctx), d.timing.RPC, func(ctx context.Context) error {
			resp, err := cli.Get(ctx, key, clientv3.WithCountOnly())
			if err == nil {
				revision = resp.Header.Revision
			}
			return err
		})
		switch {
		case link.NoLeader(err):
			d.link.Leaderless(err)
		case err != nil:
		case revision < d.highest.Load():
			d.highest.Store(revision)
			d.raiseDoubt()
		default:
			d.saw(revision)
			d.confirmed.Store(begin.UnixNano())
			d.link.Answered()
		}
	}
}

// saw notes a revision of etcd.
func (d *Directory) saw(revision int64) {
	for {
		highest := d.highest.Load()
		if revision <= highest || d.highest.CompareAndSwap(highest, revision) {
			return
		}
	}
}

// nextDoubt returns a channel that is closed when all watchers are to check.
func (d *Directory) nextDoubt() <-chan struct{} { return *d.doubt.Load() }

func (d *Directory) raiseDoubt() {
	next := make(chan struct{})
	close(*d.doubt.Swap(&next))
}
