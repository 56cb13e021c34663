package test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cloudwego/kitex/pkg/registry"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"google.golang.org/grpc"

	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
	"github.com/kitex-contrib/kitex-etcd/runtime/etcdtest"
	"github.com/kitex-contrib/kitex-etcd/runtime/retry"
)

// attempts notes when requests of one kind reach etcd.
type attempts struct {
	mu    sync.Mutex
	times []time.Time
}

func (a *attempts) count(method string) func(*embed.Config) {
	return func(cfg *embed.Config) {
		cfg.GRPCAdditionalServerOptions = append(cfg.GRPCAdditionalServerOptions, grpc.ChainUnaryInterceptor(
			func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
				if info.FullMethod == method {
					a.mu.Lock()
					a.times = append(a.times, time.Now())
					a.mu.Unlock()
				}
				return handler(ctx, req)
			}))
	}
}

// TestFaultHundredConnsRecoverAtOnce: they must not all ask in the same moment. A machine that stalls makes a burst of what
// was spread, so one of three outages has to show it.
func TestFaultHundredConnsRecoverAtOnce(t *testing.T) {
	const conns, bucket = 100, 250 * time.Millisecond
	var grants attempts
	cluster := etcdtest.Start(t, etcdtest.WithConfig(grants.count("/etcdserverpb.Lease/LeaseGrant")))
	journals := make([]*journal, conns)
	for i := range conns {
		// The checks of a Conn that observes every second would coincide with the end of the outage.
		conn, events := connectRegistry(t, cluster.Endpoints(), etcd.WithLeaseTTL(etcd.DefaultLeaseTTL), etcd.WithRetry(retry.NewRetryConfig()))
		mustRegister(t, conn.Registry(), serverInfo("Hello", fmt.Sprintf("127.0.0.1:%d", i+1)))
		journals[i] = events
	}
	for outage := range 3 {
		cluster.Stop()
		if err := cluster.Wipe(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second) // the outage itself: too short for gRPC's own jitter to spread the reconnections
		grants.times = nil
		restart(t, cluster)
		begin := time.Now()
		for _, j := range journals {
			j.wait(t, etcd.EventRestored, outage+1)
		}
		t.Logf("all are back %v after etcd answered", time.Since(begin))

		slices.SortFunc(grants.times, time.Time.Compare)
		first, last := grants.times[0], grants.times[len(grants.times)-1]
		buckets := make([]int, last.Sub(first)/bucket+1)
		for _, at := range grants.times {
			buckets[at.Sub(first)/bucket]++
		}
		const fleetSpread = 1500 * time.Millisecond                                 // over which a fleet opens its streams again
		mean := float64(len(grants.times)) * float64(bucket) / float64(fleetSpread) // if the spread is what it should be
		t.Logf("%d grants within %v, by %v: %v; evenly spread %.1f", len(grants.times), last.Sub(first), bucket, buckets, mean)
		if float64(slices.Max(buckets)) <= 2*mean {
			return
		}
	}
	t.Error("in each of three outages, some moment had more than twice the mean of attempts")
}

func TestFaultTenThousandRegistrationsOnOneLease(t *testing.T) {
	const n = 10_000
	cluster := etcdtest.Start(t)
	cli := etcdClient(t, cluster.Endpoints())
	conn := connect(t, cluster, etcd.WithDrainDelay(0))
	r := conn.Registry()
	infos := make([]*registry.Info, n)
	begin := time.Now()
	each(64, n, func(i int) {
		infos[i] = serverInfo(fmt.Sprintf("Hello%d", i%10), fmt.Sprintf("127.0.0.1:%d", i+1))
		if err := r.Register(infos[i]); err != nil {
			t.Error(err)
		}
	})
	t.Logf("registered in %v", time.Since(begin))
	stand := func() (lease int64) {
		resp, err := cli.Get(testContext(t), etcd.DefaultPrefix, clientv3.WithPrefix())
		if err != nil || resp.Count != n {
			t.Fatalf("%d records (%v), want %d", resp.Count, err, n)
		}
		for _, kv := range resp.Kvs {
			if lease = kv.Lease; lease != resp.Kvs[0].Lease {
				t.Fatal("the records stand under several leases")
			}
		}
		if l := leases(t, cli); len(l) != 1 {
			t.Fatalf("%d leases, want 1", len(l))
		}
		return lease
	}
	lease := stand()
	begin = time.Now()
	if _, err := cli.Revoke(testContext(t), clientv3.LeaseID(lease)); err != nil {
		t.Fatal(err)
	}
	for {
		resp, err := cli.Get(testContext(t), etcd.DefaultPrefix, clientv3.WithPrefix(), clientv3.WithCountOnly())
		if err != nil {
			t.Fatal(err)
		}
		if resp.Count == n {
			break
		}
		if time.Since(begin) > patience {
			t.Fatalf("%d records are back after %v, want %d", resp.Count, patience, n)
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Logf("back after %v", time.Since(begin))
	if stand() == lease {
		t.Error("the lease is the one that was revoked")
	}
	begin = time.Now()
	each(64, n, func(i int) {
		if err := r.Deregister(infos[i]); err != nil {
			t.Error(err)
		}
	})
	t.Logf("deregistered in %v", time.Since(begin))
	if resp, err := cli.Get(testContext(t), etcd.DefaultPrefix, clientv3.WithPrefix(), clientv3.WithCountOnly()); err != nil || resp.Count != 0 {
		t.Errorf("%d records in the end (%v), want none", resp.Count, err)
	}
}

// each calls f for 0 to n-1 on so many goroutines.
func each(goroutines, n int, f func(i int)) {
	var all sync.WaitGroup
	next := make(chan int)
	for range goroutines {
		all.Go(func() {
			for i := range next {
				f(i)
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	all.Wait()
}
