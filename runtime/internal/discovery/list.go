package discovery

import (
	"context"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/kitex-contrib/kitex-etcd/runtime/internal/link"
)

// A list is read in pages, so that a large one gets on over a slow line, and lets others through. The first page shows how large
// the records are.
const (
	firstPage = 256       // records
	pageBytes = 512 << 10 // of the later ones, about
)

// listing is a list of which some pages were read. What was read is kept when a page does not come: the next attempt goes on there.
type listing struct {
	kvs      []*mvccpb.KeyValue
	bytes    int
	revision int64 // zero: nothing was read
}

func (l *listing) add(resp *clientv3.GetResponse) {
	if l.revision == 0 {
		l.revision = resp.Header.Revision
	}
	l.kvs = append(l.kvs, resp.Kvs...)
	for _, kv := range resp.Kvs {
		l.bytes += len(kv.Key) + len(kv.Value)
	}
}

// limit is how many records the next page has.
func (l *listing) limit() int64 {
	if len(l.kvs) == 0 {
		return firstPage
	}
	return int64(max(1, min(pageBytes*len(l.kvs)/max(l.bytes, 1), 1<<16)))
}

// list reads all of the service's records at one revision.
func (w *watcher) list(ctx context.Context, cli *clientv3.Client) error {
	l := &w.listing
	if l.revision == 0 {
		w.up, w.doubt = w.link.NextUp(), w.dir.nextDoubt()
	}
	ctx = clientv3.WithRequireLeader(ctx)
	for {
		begin := w.prefix
		opts := []clientv3.OpOption{clientv3.WithRange(clientv3.GetPrefixRangeEnd(w.prefix)), clientv3.WithLimit(l.limit())}
		if n := len(l.kvs); n > 0 {
			begin = string(l.kvs[n-1].Key) + "\x00"
			opts = append(opts, clientv3.WithRev(l.revision))
		}
		var resp *clientv3.GetResponse
		var err error
		w.awaiting(func() {
			err = w.link.Ask(ctx, w.timing.RPC, func(ctx context.Context) (err error) {
				resp, err = cli.Get(ctx, begin, opts...)
				return err
			})
		})
		if err != nil {
			if !link.Unanswered(err) {
				w.listing = listing{} // compacted, say
			}
			return err
		}
		w.dir.cluster.Store(resp.Header.ClusterId)
		if l.add(resp); !resp.More || len(resp.Kvs) == 0 {
			return nil
		}
	}
}

// read takes over all of the service's records.
func (w *watcher) read(ctx context.Context, cli *clientv3.Client) error {
	var turn struct{}
	var err error
	w.awaiting(func() { turn, err = link.Await(ctx, w.link, w.timing.RPC, w.link.Reads) })
	if err != nil {
		return err
	}
	defer func() { w.link.Reads <- turn }()
	if err := w.list(ctx, cli); err != nil {
		return err
	}
	w.link.Answered()
	now := w.takeOver(w.listing.kvs, w.listing.revision)
	w.listing = listing{}
	w.judge(ctx, cli)
	w.publish(now)
	w.notify(Event{Type: Synced, Service: w.name, Err: w.lostFor})
	w.lostFor = nil
	w.doubts, w.reconnected = 0, false
	w.listed = true
	w.checkAt = now.Add(link.Jitter(w.timing.Audit))
	return nil
}
