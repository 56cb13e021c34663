package registration

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/cloudwego/kitex/pkg/klog"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/kitex-contrib/kitex-etcd/runtime/internal/link"
)

// reconcile tries to make etcd what is wanted, and decides when to try again if that failed.
func (r *Registrar) reconcile() {
	err := r.link.Explain(r.round(r.link.Closing()))
	r.lastErr = err
	if err == nil || !r.dirty() {
		r.failures = 0
		return
	}
	if r.link.Closing().Err() != nil {
		return // what failed was cut short: Close removes the records now
	}
	delay := r.cfg.Retry.RetryDelay
	if r.repairing() {
		delay = r.countFailure(err)
	}
	if len(r.waiting) > 0 {
		delay = min(delay, callRetryDelay)
	}
	r.retryAt = time.Now().Add(link.Jitter(delay))
}

// repairing says whether something is not as it should be that nobody waits for.
func (r *Registrar) repairing() bool { return len(r.lost) > 0 || len(r.waiting) == 0 }

// countFailure bounds a repair and returns the time to the next attempt. One line is logged when a repair begins to fail
// and one when it ends without success.
func (r *Registrar) countFailure(err error) (delay time.Duration) {
	retry := r.cfg.Retry
	r.failures++
	if r.failures == 1 {
		klog.Warnf("etcd: the registrations at %s cannot be put right yet: %v; still trying", r.link.Target(), err)
	}
	if retry.MaxAttemptTimes == 0 || r.failures < retry.MaxAttemptTimes {
		return retry.RetryDelay
	}
	klog.Errorf("etcd: the registrations at %s could not be repaired in %d attempts, the next begins in %v: %v",
		r.link.Target(), r.failures, retry.ObserveDelay, err)
	r.tell(Event{Type: RepairFailed, Err: err})
	r.failures = 0
	return retry.ObserveDelay
}

// round does once what is to be done. Removals come first: their callers hold up the end of a process.
func (r *Registrar) round(ctx context.Context) error {
	wait, cancel := r.rpcContext(ctx)
	cli, err := r.link.Get(wait)
	cancel()
	if err != nil {
		r.failPending(err)
		return err
	}
	refusal := r.remove(ctx, cli)
	if refusal != nil && !link.Permanent(refusal) {
		return refusal
	}
	if err := r.readMarks(ctx, cli); err != nil {
		return err
	}
	err = r.put(ctx, cli)
	if errors.Is(err, rpctypes.ErrLeaseNotFound) {
		r.leaseLost(err)
		err = r.put(ctx, cli)
	}
	if err == nil || link.Permanent(err) {
		err = cmp.Or(err, r.putMarked(ctx, cli))
	}
	if err == nil || !link.Unanswered(err) {
		err = cmp.Or(err, refusal)
	}
	return err
}

// rpcContext bounds one request to etcd, so that those who wait are answered in time.
func (r *Registrar) rpcContext(ctx context.Context) (context.Context, context.CancelFunc) {
	deadline := time.Now().Add(rpcTimeout)
	for reg := range r.waiting {
		if reg.call.deadline.Before(deadline) {
			deadline = reg.call.deadline
		}
	}
	return context.WithDeadline(ctx, deadline)
}

// put writes what is pending or lost, under a lease that it grants when there is none.
func (r *Registrar) put(ctx context.Context, cli *clientv3.Client) error {
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
	if refusal != nil && !link.Permanent(refusal) {
		return refusal
	}
	if err := r.putLost(ctx, cli); err != nil {
		return err
	}
	return refusal
}

// putPending writes new registrations, also over records of others: the newer process wins. Those of many servers
// share a transaction; when etcd refuses one, each is tried alone, so that no server suffers for another.
func (r *Registrar) putPending(ctx context.Context, cli *clientv3.Client) error {
	var refusal error
	for len(r.pending) > 0 {
		batch, ops := r.nextPending()
		resp, err := r.txn(ctx, cli, clientv3.OpTxn(nil, ops, nil))
		if err == nil {
			for _, reg := range batch {
				r.written(reg, resp.Header.Revision)
			}
			r.settleWritten(batch...)
			continue
		}
		if !link.Permanent(err) {
			return err
		}
		refusal = err
		for _, reg := range batch {
			rev, err := r.putWhole(ctx, cli, reg)
			switch {
			case err == nil:
				r.written(reg, rev)
				r.settleWritten(reg)
			case !link.Permanent(err):
				return err
			default:
				r.failRefused(reg, err)
			}
		}
		break // what is left stays pending, for the next attempt
	}
	return refusal
}

// putWhole writes one registration, in as many transactions as its size asks for. When one is refused the caller withdraws all
// of it.
func (r *Registrar) putWhole(ctx context.Context, cli *clientv3.Client, reg *registration) (rev int64, err error) {
	rev = r.rev
	for _, batch := range batches(wantedOf(reg.entries)) {
		resp, err := r.txn(ctx, cli, clientv3.OpTxn(nil, r.puts(batch), nil))
		if err != nil {
			return 0, err
		}
		rev = resp.Header.Revision
		for _, e := range batch {
			e.put = true
		}
	}
	return rev, nil
}

// nextPending takes registrations for one transaction. One that is too large for any is returned alone, to be refused and
// then written in parts.
func (r *Registrar) nextPending() (batch []*registration, ops []clientv3.Op) {
	bytes := 0
	for reg := range r.pending {
		size := 0
		for _, e := range reg.entries {
			size += e.bytes()
		}
		if len(batch) > 0 && (len(ops)+len(reg.entries) > MaxTxnOps || bytes+size > maxTxnBytes) {
			continue
		}
		batch = append(batch, reg)
		ops = append(ops, r.puts(wantedOf(reg.entries))...)
		if bytes += size; len(ops) == MaxTxnOps || bytes >= maxTxnBytes {
			break
		}
	}
	return batch, ops
}

// written notes that a pending registration was written at revision rev.
func (r *Registrar) written(reg *registration, rev int64) {
	delete(r.pending, reg)
	delete(r.waiting, reg)
	for _, e := range reg.entries {
		if r.held(e, rev) {
			continue
		}
		e.rev, e.takenBy = rev, 0
		r.watch(e)
		r.event(Registered, e, nil)
		klog.Infof("etcd: registered %s", e.Key)
	}
	r.dropMoved(reg)
}

// settleWritten tells those who registered that it is done, when Registered says so too.
func (r *Registrar) settleWritten(regs ...*registration) {
	r.publish()
	for _, reg := range regs {
		reg.call.settle(nil)
	}
}

// failPending ends the Registers that wait when err will not go away by itself.
func (r *Registrar) failPending(err error) {
	if !link.Permanent(err) {
		return
	}
	for reg := range r.pending {
		r.failRefused(reg, err)
	}
}

func (r *Registrar) failRefused(reg *registration, err error) {
	for _, e := range reg.entries {
		e.sent = e.rev != 0 || e.put
	}
	r.fail(reg, link.Failed(r.link.Explain(err), fmt.Sprintf("register %s at %s", reg.describe(), r.link.Target())))
}

// putLost writes missing records again, and leaves alone what another process wrote.
func (r *Registrar) putLost(ctx context.Context, cli *clientv3.Client) error {
	restored := 0
	err := r.inBatches(r.lost, func(batch []*entry) error {
		n, err := r.restore(ctx, cli, batch)
		restored += n
		return err
	})
	if restored > 0 {
		klog.Infof("etcd: restored %d registrations at %s", restored, r.link.Target())
	}
	return err
}

// inBatches calls write for as many of set at a time as fit into one transaction. When etcd refuses a batch, each record
// is tried alone, so that no server suffers for another. It stops early, with nil, when there are new requests.
func (r *Registrar) inBatches(set map[*entry]struct{}, write func([]*entry) error) (refusal error) {
	for _, batch := range batches(slices.Collect(maps.Keys(set))) {
		err := write(batch)
		if link.Permanent(err) && len(batch) > 1 {
			for i := range batch {
				if err = write(batch[i : i+1]); err != nil && !link.Permanent(err) {
					return err
				}
				refusal = cmp.Or(refusal, err)
			}
			continue
		}
		if err != nil && !link.Permanent(err) {
			return err
		}
		refusal = cmp.Or(refusal, err)
		if len(r.wake) > 0 {
			break
		}
	}
	return refusal
}

// remove deletes the records that are no longer wanted, where they are ours.
func (r *Registrar) remove(ctx context.Context, cli *clientv3.Client) error {
	return r.inBatches(r.removing, func(batch []*entry) error { return r.delete(ctx, cli, batch) })
}
