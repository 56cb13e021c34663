package registration

import (
	"context"
	"errors"

	"github.com/cloudwego/kitex/pkg/klog"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/kitex-contrib/kitex-etcd/runtime/internal/link"
)

// MaxTxnOps is the most that etcd takes in one transaction by default (--max-txn-ops).
const MaxTxnOps = 128

// maxTxnBytes is how much a transaction of several records writes at most. etcd takes 1.5 MiB by default
// (--max-request-bytes), the etcd client sends 2 MiB.
const maxTxnBytes = 1 << 20

// errContended is a record that others wrote between our reading and our writing it, twice.
var errContended = errors.New("etcd: the record keeps being changed by others")

// bytes is about what e adds to a request.
func (e *entry) bytes() int { return len(e.Key) + len(e.Value) + 64 }

// batches divides records into those that fit into one transaction. A record that is too large for that goes alone.
func batches(entries []*entry) (all [][]*entry) {
	begin, size := 0, 0
	for i, e := range entries {
		if i > begin && (i-begin == MaxTxnOps || size+e.bytes() > maxTxnBytes) {
			all = append(all, entries[begin:i])
			begin, size = i, 0
		}
		size += e.bytes()
	}
	if begin < len(entries) {
		all = append(all, entries[begin:])
	}
	return all
}

func (r *Registrar) puts(entries []*entry) []clientv3.Op {
	ops := make([]clientv3.Op, len(entries))
	for i, e := range entries {
		e.sent = true
		ops[i] = clientv3.OpPut(e.Key, e.wanted(), clientv3.WithLease(r.lease))
	}
	return ops
}

// restore writes those of batch that are missing or have an earlier lease of ours.
func (r *Registrar) restore(ctx context.Context, cli *clientv3.Client, batch []*entry) (restored int, err error) {
	cmps := make([]clientv3.Cmp, len(batch))
	for i, e := range batch {
		cmps[i] = clientv3.Compare(clientv3.CreateRevision(e.Key), "=", 0)
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
				cmps = append(cmps, clientv3.Compare(clientv3.ModRevision(e.Key), "=", 0))
			case clientv3.LeaseID(kv.Lease) == r.lease:
				e.rev, e.takenBy = kv.ModRevision, 0
				delete(r.lost, e)
				if string(kv.Value) != e.wanted() {
					r.change(e)
				}
				continue
			case r.ours(kv), edited(kv):
				cmps = append(cmps, clientv3.Compare(clientv3.ModRevision(e.Key), "=", kv.ModRevision))
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
		e.rev, e.takenBy = resp.Header.Revision, 0
		delete(r.lost, e)
		r.watch(e)
		r.event(e.back(), e, nil)
	}
	return len(batch), nil
}

func (r *Registrar) delete(ctx context.Context, cli *clientv3.Client, batch []*entry) error {
	cmps := make([]clientv3.Cmp, len(batch))
	for i, e := range batch {
		cmps[i] = clientv3.Compare(clientv3.LeaseValue(e.Key), "=", r.lease)
		if r.lease == 0 { // 0 is also the lease of a missing key
			cmps[i] = clientv3.Compare(clientv3.CreateRevision(e.Key), "=", 0)
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
			if kv == nil || !r.ours(kv) && !edited(kv) {
				r.removed(e, false)
				continue
			}
			ours = append(ours, e)
			cmps = append(cmps, clientv3.Compare(clientv3.ModRevision(e.Key), "=", kv.ModRevision))
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
func (r *Registrar) removed(e *entry, deleted bool) {
	if _, out := r.marks.out[e]; out {
		r.tookOut(e)
		return
	}
	if e.rev != 0 { // else nobody was told that it stood
		e.reg.deleted = e.reg.deleted || deleted
		r.event(Deregistered, e, nil)
		klog.Infof("etcd: deregistered %s", e.Key)
	}
	r.forget(e)
}

// ours says whether a record has a lease of this Conn.
func (r *Registrar) ours(kv *mvccpb.KeyValue) bool {
	_, ok := r.leases[clientv3.LeaseID(kv.Lease)]
	return ok
}

// edited says whether a record at an address of ours has no lease: somebody changed it by hand. Every server's has one.
func edited(kv *mvccpb.KeyValue) bool { return kv.Lease == 0 }

// take notes that the record at e's key is that of another process. The newer server wins: it is left alone.
func (r *Registrar) take(e *entry, kv *mvccpb.KeyValue) {
	delete(r.lost, e)
	e.rev = kv.ModRevision
	known := e.takenBy != 0
	if e.takenBy = clientv3.LeaseID(kv.Lease); known {
		return
	}
	klog.Warnf("etcd: another process registered %s; it is left alone until that record is gone", e.Key)
	r.event(TakenOver, e, nil)
}

func (r *Registrar) txn(ctx context.Context, cli *clientv3.Client, op clientv3.Op) (*clientv3.TxnResponse, error) {
	ctx, cancel := r.rpcContext(ctx)
	defer cancel()
	resp, err := cli.Do(ctx, op)
	if err != nil {
		r.doubt = r.doubt || link.Unanswered(err)
		return nil, err
	}
	if rev := resp.Txn().Header.Revision; rev < r.rev {
		r.restartWatches(rev)
	}
	r.rev = resp.Txn().Header.Revision
	return resp.Txn(), nil
}

// looks asks for the state of the records. Not WithKeysOnly: from etcd 3.7 on that leaves out the lease, which says whose they are.
func looks(entries []*entry) []clientv3.Op {
	ops := make([]clientv3.Op, len(entries))
	for i, e := range entries {
		ops[i] = clientv3.OpGet(e.Key)
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
		ops[i] = clientv3.OpDelete(e.Key)
	}
	return ops
}
