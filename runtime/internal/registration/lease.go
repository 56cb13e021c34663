package registration

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/cloudwego/kitex/pkg/klog"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/status"

	"github.com/kitex-contrib/kitex-etcd/runtime/internal/link"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/record"
)

const (
	// reopenDelay is how long the opening of a new stream is put off at most, once there is a connection. With gRPC's
	// maxReconnectDelay it has to stay below the 3 s within which everything is to be back.
	reopenDelay = 1500 * time.Millisecond
	// maxInterval is the longest time between two renewals: they also tell that the lease is gone.
	maxInterval = 10 * time.Second
	// minPatience is the least time that etcd is given to answer a renewal.
	minPatience = time.Second
)

var errConnectionLost = status.Error(codes.Unavailable, "the connection was lost")

// grant gets a new lease.
func (r *Registrar) grant(ctx context.Context, cli *clientv3.Client) error {
	ctx, cancel := r.rpcContext(ctx)
	defer cancel()
	asked := time.Now()
	resp, err := newLease(ctx, cli, int64(r.cfg.LeaseTTL/time.Second))
	if err != nil {
		return err
	}
	r.lease, r.doubt = clientv3.LeaseID(resp.ID), false
	r.leases[r.lease] = struct{}{}
	r.confirmed = asked
	r.ttl = time.Duration(resp.TTL) * time.Second // etcd raises one that is too short for its elections
	r.observeAt = time.Now().Add(link.Jitter(r.cfg.Retry.ObserveDelay))
	return nil
}

// newLease has etcd grant a lease of ttl seconds under an ID that says when.
func newLease(ctx context.Context, cli *clientv3.Client, ttl int64) (*pb.LeaseGrantResponse, error) {
	for {
		id := record.LeaseID(time.Now(), uint16(rand.Uint32()))
		resp, err := clientv3.RetryLeaseClient(cli).LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: ttl, ID: id})
		if err = clientv3.ContextError(ctx, err); !errors.Is(err, rpctypes.ErrLeaseExist) {
			return resp, err
		}
		// Another process was granted it in the same second.
	}
}

// leaseLost notes that the lease is gone, and all that stood under it.
func (r *Registrar) leaseLost(cause error) {
	r.lease = 0
	r.retryAt = time.Time{}
	for e := range r.removing {
		r.removed(e, false)
	}
	clear(r.marks.changed) // what is restored is written as it is wanted
	if len(r.regs) == 0 {
		return
	}
	klog.Warnf("etcd: the lease of the registrations at %s is gone: %v; restoring them", r.link.Target(), cause)
	r.tell(Event{Type: LeaseLost, Err: cause})
	for _, reg := range r.regs {
		if _, ok := r.pending[reg]; ok {
			continue
		}
		for _, e := range reg.entries {
			if !e.isTaken() && !e.marked.mark.Drain { // those wait for a check: the process that took over comes first
				r.lost[e] = struct{}{}
			}
		}
	}
	r.publish() // etcd may take its time to restore them
}

// release gives up a lease that has no records. It is left to end by itself: that it lives is what tells clients that the
// servers left on purpose, and those on a busy machine ask late. Only a write that may still arrive has to be kept from
// standing.
func (r *Registrar) release(ctx context.Context) {
	id := r.lease
	r.lease = 0
	r.keep()
	cli := r.link.Current()
	if !r.doubt || cli == nil {
		return
	}
	ctx, cancel := r.rpcContext(ctx)
	defer cancel()
	if _, err := cli.Revoke(ctx, id); err != nil {
		klog.Warnf("etcd: the lease at %s could not be revoked and ends in %v: %v", r.link.Target(), r.ttl, err)
	}
}

// keep starts, changes or stops the keeper, as the lease and the records want it.
func (r *Registrar) keep() {
	switch {
	case r.lease != 0 && len(r.regs)+len(r.draining) > 0:
		r.keeper.start(r, r.lease)
	case r.dirty() && r.lastErr != nil:
		// There is no lease to keep, but it is the keeper who notices that etcd answers again.
		r.keeper.start(r, 0)
	default:
		r.keeper.stop()
	}
}

// applyAnswer takes what the keeper heard from etcd.
func (r *Registrar) applyAnswer(a answer) {
	if a.id != r.keeper.id {
		return // from the keeper before
	}
	if a.refusal != nil {
		r.tell(Event{Type: Refused, Err: a.refusal})
	}
	if a.id == r.lease && a.ttl > 0 {
		r.confirmed = a.asked
	}
	first := r.silent && !a.silent
	r.silent = a.silent
	if a.id != 0 && a.id == r.lease && a.ttl <= 0 && !a.silent {
		r.leaseLost(errLeaseGone)
		return
	}
	if first {
		r.observeAt = time.Now().Add(link.Jitter(recheckDelay))
		if link.Unanswered(r.lastErr) {
			r.retryAt = time.Time{}
		}
	}
}

// answer is etcd's answer to a keepalive, or its silence.
type answer struct {
	id     clientv3.LeaseID
	ttl    int64 // seconds; 0: there is no such lease
	asked  time.Time
	silent bool // there was no answer, or a refusal; said once for each silence

	refusal error // etcd's; nil when it said nothing
}

// keeper asks etcd to keep a lease alive, on a goroutine and one long stream: each new stream would authenticate again.
// The zero value is stopped.
type keeper struct {
	id     clientv3.LeaseID
	cancel context.CancelFunc // nil: stopped
}

// start keeps the lease id alive, if it does not yet. With id 0 it renews nothing and only tells when etcd answers.
func (k *keeper) start(r *Registrar, id clientv3.LeaseID) {
	if k.cancel != nil && k.id == id {
		return
	}
	k.stop()
	ctx, cancel := context.WithCancel(r.link.Running())
	s := leaseStream{link: r.link, retryDelay: r.cfg.Retry.RetryDelay, id: id, interval: min(r.ttl/3, maxInterval), answers: r.answers}
	s.patience = max(r.ttl/2-s.interval, minPatience)
	if !r.link.Start(func(context.Context) { s.run(ctx) }) {
		cancel()
		return
	}
	k.id, k.cancel = id, cancel
	r.silent = link.Unanswered(r.lastErr)
}

func (k *keeper) stop() {
	if k.cancel != nil {
		k.cancel()
		k.cancel = nil
	}
}

// leaseStream is the keeper's goroutine.
type leaseStream struct {
	link       *link.Link
	id         clientv3.LeaseID
	retryDelay time.Duration // after a refusal
	interval   time.Duration
	patience   time.Duration // etcd's gRPC proxy answers as late as at a third of the TTL
	answers    chan<- answer
	silent     bool // nobody answers, and that was said
}

// run keeps a stream open until ctx ends.
func (s *leaseStream) run(ctx context.Context) {
	for {
		answered, err := s.stream(ctx)
		if ctx.Err() != nil {
			return
		}
		if answered && !link.Unanswered(err) {
			continue // the stream's token expired, say: the next one has a new one
		}
		if !s.silent {
			s.silent = true
			err := s.link.Explain(err)
			if link.Refused(err) {
				klog.Warnf("%v; still trying", link.Failed(err, "renew the lease of the registrations at "+s.link.Target()))
				s.tell(ctx, answer{id: s.id, silent: true, refusal: err})
			} else {
				if errors.As(err, new(*link.Silence)) {
					s.link.Lost(err) // of a connection that ended the link tells by itself
				}
				s.tell(ctx, answer{id: s.id, silent: true})
			}
		}
		s.pause(ctx, err)
	}
}

// pause waits until it makes sense to open the next stream. The processes that lost an etcd get it back in the same
// moment: they must not all ask in it.
func (s *leaseStream) pause(ctx context.Context, err error) {
	if link.Refused(err) {
		link.Sleep(ctx, link.Jitter(s.retryDelay))
		return
	}
	if cli := s.link.Current(); cli != nil {
		conn := cli.ActiveConnection()
		for state := conn.GetState(); state != connectivity.Ready; state = conn.GetState() {
			if !conn.WaitForStateChange(ctx, state) {
				return
			}
		}
	}
	link.Sleep(ctx, link.RandomUpTo(min(reopenDelay, s.interval/2)))
}

// stream sends renewals and reports the answers until one fails; answered says whether there was any. Half a TTL without an
// answer (a third or maxInterval until the renewal, the rest for etcd to answer) ends the stream; the Watchdog finds out whether the
// connection is dead.
func (s *leaseStream) stream(ctx context.Context) (answered bool, err error) {
	cli, err := s.link.Get(ctx)
	if err != nil {
		return false, err
	}
	ctx, dog := s.link.Watchdog(ctx, nil, s.patience)
	defer dog.Stop()
	dog.Arm()
	stream, err := pb.NewLeaseClient(cli.ActiveConnection()).LeaseKeepAlive(clientv3.WithRequireLeader(ctx))
	if err != nil {
		return false, err
	}
	for ; ; answered = true {
		// An error of Send is EOF; Recv tells the reason.
		asked := time.Now()
		_ = stream.Send(&pb.LeaseKeepAliveRequest{ID: int64(s.id)})
		resp, err := stream.Recv()
		if link.NoLeader(err) {
			s.link.Leaderless(err)
		}
		if err != nil {
			return answered, dog.Explain(ctx, err)
		}
		dog.Disarm()
		s.silent = false
		s.link.Answered()
		s.tell(ctx, answer{id: s.id, ttl: resp.TTL, asked: asked})
		idle, cancelIdle := context.WithTimeout(ctx, s.interval)
		lost := cli.ActiveConnection().WaitForStateChange(idle, connectivity.Ready)
		cancelIdle()
		if lost {
			return true, errConnectionLost // the next renewal would fail, much later
		}
		dog.Arm()
	}
}

func (s *leaseStream) tell(ctx context.Context, a answer) {
	select {
	case s.answers <- a:
	case <-ctx.Done():
	}
}
