package etcd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/cloudwego/kitex/pkg/klog"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// maxTxnOps is the most that etcd takes in one transaction by default (--max-txn-ops).
const maxTxnOps = 128

// errContended is a record that others wrote between our reading and our writing it, twice.
var errContended = errors.New("etcd: the record keeps being changed by others")

// reconcile tries to make etcd what is wanted, and decides when to try again if that failed.
func (r *registrar) reconcile() {
	err := r.conn.link.explain(r.round(r.conn.closing))
	r.lastErr = err
	if err == nil || !r.dirty() {
		r.failures = 0
		return
	}
	delay := r.conn.cfg.Retry.RetryDelay
	if r.repairing() {
		delay = r.countFailure(err)
	}
	if len(r.waiting) > 0 {
		delay = min(delay, callRetryDelay)
	}
	r.retryAt = time.Now().Add(jitter(delay))
}

// repairing says whether something is not as it should be that nobody waits for.
func (r *registrar) repairing() bool { return len(r.lost) > 0 || len(r.waiting) == 0 }

// countFailure bounds a repair and returns the time to the next attempt. One line is logged when a repair begins to fail
// and one when it ends without success.
func (r *registrar) countFailure(err error) (delay time.Duration) {
	retry := r.conn.cfg.Retry
	r.failures++
	if r.failures == 1 {
		klog.Warnf("etcd: the registrations at %s are not in order, trying on: %v", r.conn.link.target(), err)
	}
	if retry.MaxAttemptTimes == 0 || r.failures < retry.MaxAttemptTimes {
		return retry.RetryDelay
	}
	klog.Errorf("etcd: the registrations at %s could not be repaired in %d attempts, the next begins in %v: %v",
		r.conn.link.target(), r.failures, retry.ObserveDelay, err)
	r.conn.events.send(Event{Type: EventRepairFailed, Err: err})
	r.failures = 0
	return retry.ObserveDelay
}

// round does once what is to be done. Removals come first: their callers hold up the end of a process.
func (r *registrar) round(ctx context.Context) error {
	wait, cancel := r.rpcContext(ctx)
	cli, err := r.conn.link.get(wait)
	cancel()
	if err != nil {
		r.failPending(err)
		return err
	}
	refusal := r.remove(ctx, cli)
	if refusal != nil && !permanent(refusal) {
		return refusal
	}
	err = r.put(ctx, cli)
	if errors.Is(err, rpctypes.ErrLeaseNotFound) {
		r.leaseLost(err)
		err = r.put(ctx, cli)
	}
	if err == nil {
		err = refusal
	}
	return err
}

// rpcContext bounds one request to etcd, so that those who wait are answered in time.
func (r *registrar) rpcContext(ctx context.Context) (context.Context, context.CancelFunc) {
	deadline := time.Now().Add(rpcTimeout)
	for reg := range r.waiting {
		if reg.call.deadline.Before(deadline) && !reg.call.settled.Load() {
			deadline = reg.call.deadline
		}
	}
	return context.WithDeadline(ctx, deadline)
}

// put writes what is pending or lost, under a lease that it grants when there is none.
func (r *registrar) put(ctx context.Context, cli *clientv3.Client) error {
	if len(r.pending)+len(r.lost) == 0 {
		return nil
	}
	if r.lease == 0 {
		if err := r.grant(ctx, cli); err != nil {
			r.failPending(err)
			return err
		}
	}
	refusal := r.putPending(ctx, cli)
	if refusal != nil && !permanent(refusal) {
		return refusal
	}
	if err := r.putLost(ctx, cli); err != nil {
		return err
	}
	return refusal
}

// putPending writes new registrations, whatever stands at their keys: the newer process wins. Those of many servers
// share a transaction; when etcd refuses one, each is tried alone, so that no server suffers for another.
func (r *registrar) putPending(ctx context.Context, cli *clientv3.Client) error {
	var refusal error
	for len(r.pending) > 0 {
		batch, ops := r.nextPending()
		resp, err := r.txn(ctx, cli, clientv3.OpTxn(nil, ops, nil))
		if err == nil {
			for _, reg := range batch {
				r.stand(reg, resp.Header.Revision)
			}
			continue
		}
		if !permanent(err) {
			return err
		}
		refusal = err
		for _, reg := range batch {
			resp, err := r.txn(ctx, cli, clientv3.OpTxn(nil, r.puts(reg.entries), nil))
			switch {
			case err == nil:
				r.stand(reg, resp.Header.Revision)
			case !permanent(err):
				return err
			default:
				r.failRefused(reg, err)
			}
		}
		break // what is left stays pending, for the next attempt
	}
	return refusal
}

// nextPending takes registrations for one transaction.
func (r *registrar) nextPending() (batch []*registration, ops []clientv3.Op) {
	for reg := range r.pending {
		if len(ops)+len(reg.entries) > maxTxnOps {
			continue
		}
		batch = append(batch, reg)
		ops = append(ops, r.puts(reg.entries)...)
		if len(ops) == maxTxnOps {
			break
		}
	}
	return batch, ops
}

func (r *registrar) puts(entries []*entry) []clientv3.Op {
	ops := make([]clientv3.Op, len(entries))
	for i, e := range entries {
		e.sent = true
		ops[i] = clientv3.OpPut(e.key, e.value, clientv3.WithLease(r.lease))
	}
	return ops
}

// stand notes that a pending registration was written at revision rev.
func (r *registrar) stand(reg *registration, rev int64) {
	delete(r.pending, reg)
	delete(r.waiting, reg)
	for _, e := range reg.entries {
		e.rev, e.taken = rev, false
		r.watch(e)
		r.event(EventRegistered, e, nil)
		klog.Infof("etcd: registered %s", e.key)
	}
	reg.call.settle(nil)
}

// failPending ends the Registers that wait when err will not go away by itself.
func (r *registrar) failPending(err error) {
	if !permanent(err) {
		return
	}
	for reg := range r.pending {
		r.failRefused(reg, err)
	}
}

func (r *registrar) failRefused(reg *registration, err error) {
	for _, e := range reg.entries {
		e.sent = e.rev != 0
	}
	r.fail(reg, fmt.Errorf("etcd: register %s: etcd at %s refused: %w", reg.entries[0].key, r.conn.link.target(), err))
}

// putLost writes records anew that are missing, and leaves alone what another process wrote.
func (r *registrar) putLost(ctx context.Context, cli *clientv3.Client) error {
	restored := 0
	err := r.inBatches(r.lost, func(batch []*entry) error {
		n, err := r.restore(ctx, cli, batch)
		restored += n
		return err
	})
	if restored > 0 {
		klog.Infof("etcd: restored %d registrations at %s", restored, r.conn.link.target())
	}
	return err
}

// inBatches calls write for as many of set at a time as fit into one transaction. When etcd refuses a batch, each record
// is tried alone, so that no server suffers for another. It stops early, with nil, when there are new requests.
func (r *registrar) inBatches(set map[*entry]struct{}, write func([]*entry) error) (refusal error) {
	for batch := range slices.Chunk(slices.Collect(maps.Keys(set)), maxTxnOps) {
		err := write(batch)
		if permanent(err) && len(batch) > 1 {
			for i := range batch {
				if err = write(batch[i : i+1]); err != nil && !permanent(err) {
					return err
				}
				refusal = cmp.Or(refusal, err)
			}
			continue
		}
		if err != nil && !permanent(err) {
			return err
		}
		refusal = cmp.Or(refusal, err)
		if len(r.wake) > 0 {
			break
		}
	}
	return refusal
}

// restore writes those of batch that are missing or stand under an earlier lease of ours.
func (r *registrar) restore(ctx context.Context, cli *clientv3.Client, batch []*entry) (restored int, err error) {
	cmps := make([]clientv3.Cmp, len(batch))
	for i, e := range batch {
		cmps[i] = clientv3.Compare(clientv3.CreateRevision(e.key), "=", 0)
	}
	resp, err := r.txn(ctx, cli, clientv3.OpTxn(cmps, r.puts(batch), looks(batch)))
	if err != nil {
		return 0, err
	}
	if !resp.Succeeded {
		// Some are there. Write the others as they were seen.
		var missing []*entry
		cmps = cmps[:0]
		for i, e := range batch {
			kv := looked(resp, i)
			switch {
			case kv == nil:
				cmps = append(cmps, clientv3.Compare(clientv3.ModRevision(e.key), "=", 0))
			case clientv3.LeaseID(kv.Lease) == r.lease:
				e.rev, e.taken = kv.ModRevision, false
				delete(r.lost, e)
				continue
			case r.ours(kv):
				cmps = append(cmps, clientv3.Compare(clientv3.ModRevision(e.key), "=", kv.ModRevision))
			default:
				r.take(e, kv)
				continue
			}
			missing = append(missing, e)
		}
		if batch = missing; len(batch) == 0 {
			return 0, nil
		}
		if resp, err = r.txn(ctx, cli, clientv3.OpTxn(cmps, r.puts(batch), nil)); err != nil {
			return 0, err
		}
		if !resp.Succeeded {
			return 0, errContended
		}
	}
	for _, e := range batch {
		e.rev, e.taken = resp.Header.Revision, false
		delete(r.lost, e)
		r.watch(e)
		r.event(EventRestored, e, nil)
	}
	return len(batch), nil
}

// remove deletes the records that are no longer wanted, where they are ours.
func (r *registrar) remove(ctx context.Context, cli *clientv3.Client) error {
	return r.inBatches(r.removing, func(batch []*entry) error { return r.delete(ctx, cli, batch) })
}

func (r *registrar) delete(ctx context.Context, cli *clientv3.Client, batch []*entry) error {
	cmps := make([]clientv3.Cmp, len(batch))
	for i, e := range batch {
		cmps[i] = clientv3.Compare(clientv3.LeaseValue(e.key), "=", r.lease)
		if r.lease == 0 { // 0 is also the lease of a missing key
			cmps[i] = clientv3.Compare(clientv3.CreateRevision(e.key), "=", 0)
		}
	}
	resp, err := r.txn(ctx, cli, clientv3.OpTxn(cmps, deletes(batch), looks(batch)))
	if err != nil {
		return err
	}
	if !resp.Succeeded {
		// Some are gone or another process's. Delete ours as they were seen.
		var ours []*entry
		cmps = cmps[:0]
		for i, e := range batch {
			kv := looked(resp, i)
			if kv == nil || !r.ours(kv) {
				r.removed(e, false)
				continue
			}
			ours = append(ours, e)
			cmps = append(cmps, clientv3.Compare(clientv3.ModRevision(e.key), "=", kv.ModRevision))
		}
		if batch = ours; len(batch) == 0 {
			return nil
		}
		if resp, err = r.txn(ctx, cli, clientv3.OpTxn(cmps, deletes(batch), nil)); err != nil {
			return err
		}
		if !resp.Succeeded {
			return errContended
		}
	}
	for _, e := range batch {
		r.removed(e, true)
	}
	return nil
}

// removed notes that a record is gone; deleted says whether we deleted it.
func (r *registrar) removed(e *entry, deleted bool) {
	if e.rev != 0 { // else nobody was told that it stood
		e.reg.deleted = e.reg.deleted || deleted
		r.event(EventDeregistered, e, nil)
		klog.Infof("etcd: deregistered %s", e.key)
	}
	r.forget(e)
}

// ours says whether a record stands under a lease of this Conn.
func (r *registrar) ours(kv *mvccpb.KeyValue) bool {
	_, ok := r.leases[clientv3.LeaseID(kv.Lease)]
	return ok
}

// take notes that another process's record stands at e's key. The newer server wins: it is left alone.
func (r *registrar) take(e *entry, kv *mvccpb.KeyValue) {
	delete(r.lost, e)
	e.rev = kv.ModRevision
	if e.taken {
		return
	}
	e.taken = true
	klog.Warnf("etcd: another process registered %s; it is left alone until that record is gone", e.key)
	r.event(EventTakenOver, e, nil)
}

func (r *registrar) txn(ctx context.Context, cli *clientv3.Client, op clientv3.Op) (*clientv3.TxnResponse, error) {
	ctx, cancel := r.rpcContext(ctx)
	defer cancel()
	resp, err := cli.Do(ctx, op)
	if err != nil {
		r.doubt = r.doubt || unanswered(err)
		return nil, err
	}
	if rev := resp.Txn().Header.Revision; rev < r.rev {
		r.rewound(rev)
	}
	r.rev = resp.Txn().Header.Revision
	return resp.Txn(), nil
}

// looks asks how the records stand. Not WithKeysOnly: from etcd 3.7 on that leaves out the lease, which says whose they are.
func looks(entries []*entry) []clientv3.Op {
	ops := make([]clientv3.Op, len(entries))
	for i, e := range entries {
		ops[i] = clientv3.OpGet(e.key)
	}
	return ops
}

// looked is the answer to the i-th of looks; nil means that the key is missing.
func looked(resp *clientv3.TxnResponse, i int) *mvccpb.KeyValue {
	if kvs := resp.Responses[i].GetResponseRange().GetKvs(); len(kvs) > 0 {
		return kvs[0]
	}
	return nil
}

func deletes(entries []*entry) []clientv3.Op {
	ops := make([]clientv3.Op, len(entries))
	for i, e := range entries {
		ops[i] = clientv3.OpDelete(e.key)
	}
	return ops
}

// errorCode is the gRPC code of an error of the etcd client.
func errorCode(err error) codes.Code {
	var e rpctypes.EtcdError
	switch {
	case errors.As(err, &e):
		return e.Code()
	case errors.Is(err, context.DeadlineExceeded):
		return codes.DeadlineExceeded
	case errors.Is(err, context.Canceled):
		return codes.Canceled
	}
	return status.Code(err)
}

// permanent says whether etcd answered, and will answer the same until somebody changes the request, users or roles.
func permanent(err error) bool {
	switch errorCode(err) {
	case codes.PermissionDenied, codes.InvalidArgument:
		return true
	}
	return false
}

// unanswered says whether an error comes from an etcd that cannot be reached or has no leader.
func unanswered(err error) bool {
	switch errorCode(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled:
		return true
	}
	return false
}
