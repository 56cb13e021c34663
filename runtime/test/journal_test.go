package test

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cloudwego/kitex/pkg/klog"
	"github.com/cloudwego/kitex/pkg/registry"
	"github.com/cloudwego/kitex/pkg/utils"
	"github.com/cloudwego/kitex/server"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/stats"

	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
	"github.com/kitex-contrib/kitex-etcd/runtime/etcdtest"
	"github.com/kitex-contrib/kitex-etcd/runtime/retry"
)

// patience is how long the tests wait for what must happen; a failure takes that long, a success does not.
const patience = 20 * time.Second

// journal collects the events of a Conn.
type journal struct {
	mu     sync.Mutex
	events []etcd.Event
	more   chan struct{} // closed and replaced at every event
}

func newJournal() *journal { return &journal{more: make(chan struct{})} }

func (j *journal) add(ev etcd.Event) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.events = append(j.events, ev)
	close(j.more)
	j.more = make(chan struct{})
}

// count returns how many events of type typ there were.
func (j *journal) count(typ etcd.EventType) int {
	n, _ := j.look(typ)
	return n
}

func (j *journal) look(typ etcd.EventType) (n int, more <-chan struct{}) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, ev := range j.events {
		if ev.Type == typ {
			n++
		}
	}
	return n, j.more
}

// wait waits until there were n events of type typ.
func (j *journal) wait(t testing.TB, typ etcd.EventType, n int) {
	t.Helper()
	deadline := time.After(patience)
	for {
		got, more := j.look(typ)
		if got >= n {
			return
		}
		select {
		case <-more:
		case <-deadline:
			j.mu.Lock()
			defer j.mu.Unlock()
			t.Fatalf("%d events %q within %v, want %d; all events: %+v", got, typ, patience, n, j.events)
		}
	}
}

// connectRegistry makes a Conn that is closed with the test. Its repairs are quick, and it checks its records so seldom
// that what is restored was noticed otherwise; opts override.
func connectRegistry(t testing.TB, endpoints []string, opts ...etcd.Option) (*etcd.Conn, *journal) {
	t.Helper()
	j := newJournal()
	opts = append([]etcd.Option{
		etcd.WithLeaseTTL(2 * time.Second),
		etcd.WithDrainDelay(0),
		etcd.WithEventHandler(j.add),
		etcd.WithRetry(retry.NewRetryConfig(retry.WithRetryDelay(200*time.Millisecond), retry.WithObserveDelay(time.Hour))),
	}, opts...)
	c, err := etcd.Connect(endpoints, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c, j
}

// etcdClient is a client beside the Conn under test, closed with the test.
func etcdClient(t testing.TB, endpoints []string) *clientv3.Client {
	t.Helper()
	cli, err := clientv3.New(clientv3.Config{Endpoints: endpoints, DialTimeout: patience})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cli.Close() })
	return cli
}

func serverInfo(service, addr string) *registry.Info {
	return &registry.Info{ServiceName: service, Addr: utils.NewNetAddr("tcp", addr), Weight: 10}
}

// getKey returns the record at key, nil if there is none.
func getKey(t testing.TB, cli *clientv3.Client, key string) *mvccpb.KeyValue {
	t.Helper()
	resp, err := cli.Get(testContext(t), key)
	if err != nil {
		t.Fatal(err)
	}
	if len(resp.Kvs) == 0 {
		return nil
	}
	return resp.Kvs[0]
}

func mustRegister(t testing.TB, r registry.Registry, infos ...*registry.Info) {
	t.Helper()
	for _, info := range infos {
		if err := r.Register(info); err != nil {
			t.Fatal(err)
		}
	}
}

func mustDeregister(t testing.TB, r registry.Registry, infos ...*registry.Info) {
	t.Helper()
	for _, info := range infos {
		if err := r.Deregister(info); err != nil {
			t.Fatal(err)
		}
	}
}

// registryOf is the registry among a server's options.
func registryOf(opts []server.Option) registry.Registry {
	var o server.Options
	for _, opt := range opts {
		opt.F(&o, new(utils.Slice))
	}
	return o.Registry
}

func leases(t testing.TB, cli *clientv3.Client) []clientv3.LeaseStatus {
	t.Helper()
	resp, err := cli.Leases(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	return resp.Leases
}

// awaitNoLease waits until the lease that nobody keeps any more has ended by itself.
func awaitNoLease(t testing.TB, cli *clientv3.Client) {
	t.Helper()
	for deadline := time.Now().Add(patience); len(leases(t, cli)) > 0; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("a lease still lives %v after the last record was removed", patience)
		}
	}
}

func init() { klog.SetLevel(klog.LevelFatal) }

// waitKey polls until the record at key is as ok wants it and returns how long that took.
func waitKey(t testing.TB, cli *clientv3.Client, key string, ok func(found bool, lease clientv3.LeaseID) bool) time.Duration {
	t.Helper()
	begin := time.Now()
	for {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		resp, err := cli.Get(ctx, key)
		cancel()
		if err == nil {
			found, lease := len(resp.Kvs) > 0, clientv3.NoLease
			if found {
				lease = clientv3.LeaseID(resp.Kvs[0].Lease)
			}
			if ok(found, lease) {
				return time.Since(begin)
			}
		}
		if time.Since(begin) > patience {
			t.Fatalf("%s is not as wanted after %v: %v %v", key, patience, resp, err)
		}
		time.Sleep(5 * time.Millisecond) // etcd is asked, not the Conn: no event to wait for
	}
}

// waitRenewed waits until the lease has lived for longer than it would have without a renewal.
func waitRenewed(t testing.TB, cli *clientv3.Client, id clientv3.LeaseID) {
	t.Helper()
	for begin := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		resp, err := cli.TimeToLive(testContext(t), id)
		if err != nil || resp.TTL < 0 {
			t.Fatalf("lease %x after %v: %v, %v; want it alive", id, time.Since(begin), resp, err)
		}
		if time.Since(begin) > time.Duration(resp.GrantedTTL+1)*time.Second {
			return
		}
	}
}

func leaseOf(t testing.TB, cli *clientv3.Client, key string) clientv3.LeaseID {
	t.Helper()
	if kv := getKey(t, cli, key); kv != nil {
		return clientv3.LeaseID(kv.Lease)
	}
	t.Fatalf("no record at %s", key)
	return clientv3.NoLease
}

func restart(t testing.TB, cluster *etcdtest.Cluster) {
	t.Helper()
	if err := cluster.Start(); err != nil {
		t.Fatal(err)
	}
}

// saysNilConn says whether err is what a nil Conn answers with.
func saysNilConn(err error) bool {
	return err != nil && strings.Contains(err.Error(), "the Conn is nil")
}

// connCounter counts the connections that a Conn makes to etcd. It is gRPC's hook for them.
type connCounter struct{ n atomic.Int64 }

func (c *connCounter) option() etcd.Option {
	return func(cfg *etcd.Config) {
		cfg.EtcdConfig.DialOptions = append(cfg.EtcdConfig.DialOptions, grpc.WithStatsHandler(c))
	}
}

func (*connCounter) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (*connCounter) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (*connCounter) HandleRPC(context.Context, stats.RPCStats)                         {}
func (c *connCounter) HandleConn(_ context.Context, s stats.ConnStats) {
	if _, ok := s.(*stats.ConnBegin); ok {
		c.n.Add(1)
	}
}

// last returns the latest event of type typ.
func (j *journal) last(typ etcd.EventType) (last etcd.Event) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, ev := range j.events {
		if ev.Type == typ {
			last = ev
		}
	}
	return last
}
