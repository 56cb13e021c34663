package discovery

import (
	"context"
	"errors"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
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
	rpcCtx, cancel := context.WithTimeout(ctx, w.timing.RPC)
	resp, err := cli.Get(rpcCtx, w.prefix, clientv3.WithPrefix(), clientv3.WithLimit(limit), clientv3.WithKeysOnly(),
		clientv3.WithSort(clientv3.SortByModRevision, clientv3.SortDescend))
	cancel()
	now := time.Now()
	w.checkAt = now.Add(w.checkDelay())
	if err != nil {
		_ = w.cause(ctx, cli, err) // for its reset of a dead connection
		return nil                 // an outage; the next connection brings the next check
	}
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

// checkDelay grows with the service, because etcd sorts all of it for the answer.
func (w *watcher) checkDelay() time.Duration {
	return link.Jitter(w.timing.Check + time.Duration(w.roster.Keys())*w.timing.Check/1000)
}

// cause adds to the error of a request what is wrong with the connection. One that takes everything and answers nothing
// is closed: a request that its other end alone could answer, or fail, runs out of time too.
func (w *watcher) cause(ctx context.Context, cli *clientv3.Client, err error) error {
	if !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, w.timing.Probe)
	defer cancel()
	local := &etcdserverpb.RangeRequest{Key: []byte(w.prefix), Serializable: true}
	if _, err := etcdserverpb.NewKVClient(cli.ActiveConnection()).Range(ctx, local); err != nil && ctx.Err() != nil {
		w.link.Reset()
	}
	return w.link.Explain(err)
}
