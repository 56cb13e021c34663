package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/cloudwego/kitex/pkg/registry"
	"github.com/cloudwego/kitex/pkg/utils"
	old "github.com/kitex-contrib/registry-etcd"
	oldretry "github.com/kitex-contrib/registry-etcd/retry"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/stats"

	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
)

// raceFamily is a Deregister that meets the repair of the record.
func raceFamily() family {
	const observe = time.Second // instead of 30 s, so that the repair need not be waited for
	tries := map[string][2]int{ours: {200, 100}, before: {12, 20}}
	return family{
		name:  "race",
		quick: 1,
		about: fmt.Sprintf("A record is deleted behind the back of its server, which deregisters 0 to 2 ms after it begins to repair that: %d times "+
			"in each turn of ours, %d in those of registry-etcd (%d and %d in a quick run), which is told to look every %s instead of every 30 s",
			tries[ours][0], tries[before][0], tries[ours][1], tries[before][1], duration.format(float64(observe))),
		rows: []row{
			{name: "race", what: "share of the records that stand 2 s after Deregister has returned", unit: count, mean: true, targets: []target{atMost(0)}},
		},
		open: func(b *bench) ([]side, error) {
			turns := 0
			return eachSide(func(ctx context.Context, lib string) (values, error) {
				turns++
				service := fmt.Sprintf("bench-race-%d", turns)
				n := b.pick(tries[lib][0], tries[lib][1])
				if err := atOnce(20, n, func(i int) error { return b.race(ctx, lib, service, address(i), observe) }); err != nil {
					return nil, err
				}
				if err := pause(ctx, 2*time.Second); err != nil {
					return nil, err
				}
				stand, err := b.etcd.client.Get(ctx, etcd.DefaultPrefix+"/"+service+"/", clientv3.WithPrefix(), clientv3.WithCountOnly())
				if err != nil {
					return nil, err
				}
				each := make([]float64, n)
				for i := range stand.Count {
					each[i] = 1
				}
				return values{"race": each}, nil
			}), nil
		},
	}
}

// race registers, takes the record away, and deregisters when the repair is under way.
func (b *bench) race(ctx context.Context, lib, service, addr string, observe time.Duration) error {
	begun := &repairBegins{begun: make(chan struct{})}
	mine, theirs := configured(func(c *clientv3.Config) {
		c.DialOptions = []grpc.DialOption{grpc.WithStatsHandler(begun)}
	})
	var r registry.Registry
	if lib == ours {
		conn, err := b.connect(mine)
		if err != nil {
			return err
		}
		r = conn.Registry()
	} else {
		var err error
		retry := oldretry.NewRetryConfig(oldretry.WithObserveDelay(observe))
		if r, err = old.NewEtcdRegistryWithRetry(b.etcd.endpoints, retry, theirs); err != nil {
			return err
		}
	}
	info := &registry.Info{ServiceName: service, Addr: utils.NewNetAddr("tcp", addr), Weight: 10}
	if err := r.Register(info); err != nil {
		return err
	}
	begun.armed.Store(true)
	if _, err := b.etcd.client.Delete(ctx, kitexRecord(service, addr).key); err != nil {
		return err
	}
	select {
	case <-begun.begun:
	case <-time.After(10 * time.Second):
		return fmt.Errorf("%s is not repaired", addr)
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := pause(ctx, rand.N(2*time.Millisecond)); err != nil { // wherever that meets it
		return err
	}
	return r.Deregister(info)
}

// repairBegins tells when a process asks etcd for a lease or a transaction, once it is armed.
type repairBegins struct {
	armed atomic.Bool
	begun chan struct{}
}

func (r *repairBegins) TagRPC(ctx context.Context, info *stats.RPCTagInfo) context.Context {
	asks := info.FullMethodName == "/etcdserverpb.Lease/LeaseGrant" || info.FullMethodName == "/etcdserverpb.KV/Txn"
	if asks && r.armed.CompareAndSwap(true, false) {
		close(r.begun)
	}
	return ctx
}

func (r *repairBegins) HandleRPC(context.Context, stats.RPCStats)                         {}
func (r *repairBegins) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (r *repairBegins) HandleConn(context.Context, stats.ConnStats)                       {}

// misuseFamily is Deregister when there is nothing to deregister.
func misuseFamily() family {
	const limit = 2 * time.Second
	most := []target{atMost(float64(50 * time.Millisecond))}
	return family{
		name:  "misuse",
		quick: 1,
		about: fmt.Sprintf("Deregister when there is nothing to deregister; %s mean that it panicked, gave an error, or had not returned by then",
			duration.format(float64(limit))),
		rows: []row{
			{name: "misuse_before", what: "before Register", unit: duration, targets: most},
			{name: "misuse_twice", what: "for the second time", unit: duration, targets: most},
			{name: "misuse_thrice", what: "for the third time", unit: duration, targets: most},
		},
		open: func(b *bench) ([]side, error) {
			return eachSide(func(ctx context.Context, lib string) (values, error) {
				never, err := b.registry(lib, nil)
				if err != nil {
					return nil, err
				}
				r, info, err := b.registered(lib, "bench-misuse", address(0))
				if err != nil {
					return nil, err
				}
				v := values{"misuse_before": {deregisterTime(never, info, limit)}}
				if err := r.Deregister(info); err != nil {
					return nil, err
				}
				if err := pause(ctx, 100*time.Millisecond); err != nil { // the goroutine that looks after the record has ended
					return nil, err
				}
				v["misuse_twice"] = []float64{deregisterTime(r, info, limit)}
				v["misuse_thrice"] = []float64{deregisterTime(r, info, limit)}
				return v, nil
			}), nil
		},
	}
}

// deregisterTime is how long Deregister takes, or limit when it does not return nil by then.
func deregisterTime(r registry.Registry, info *registry.Info, limit time.Duration) float64 {
	returned := make(chan time.Duration, 1)
	begin := time.Now()
	go func() {
		took := limit
		defer func() {
			_ = recover() // the bench goes on where a program would not
			returned <- took
		}()
		if r.Deregister(info) == nil {
			took = time.Since(begin)
		}
	}()
	select {
	case took := <-returned:
		return float64(took)
	case <-time.After(limit):
		return float64(limit)
	}
}
