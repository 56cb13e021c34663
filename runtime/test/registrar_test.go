package test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"google.golang.org/grpc"

	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
	"github.com/kitex-contrib/kitex-etcd/runtime/etcdtest"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/record"
	"github.com/kitex-contrib/kitex-etcd/runtime/retry"
)

// TestAllNamesOrNone: of a server whose second name etcd refuses, the first is not registered either; and servers that
// register in the same moment do not suffer.
func TestAllNamesOrNone(t *testing.T) {
	cluster, root := securedEtcd(t, "simple")
	conn, _ := connectRegistry(t, cluster.Endpoints(), etcd.WithAuthOpt("server", "serverserver"))
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			if err := conn.Registry().Register(serverInfo("Hello", fmt.Sprintf("127.0.0.1:%d", 1000+i))); err != nil {
				t.Errorf("a server of one service: %v", err)
			}
		})
		all.Go(func() {
			info := serverInfo("Hello", fmt.Sprintf("127.0.0.1:%d", 2000+i))
			if err := registryOf(conn.ServerOptions("Hello", "Echo")).Register(info); !errors.Is(err, rpctypes.ErrPermissionDenied) {
				t.Errorf("a server with a service of others: got %v, want %v", err, rpctypes.ErrPermissionDenied)
			}
		})
	}
	all.Wait()
	resp, err := root.Get(testContext(t), etcd.DefaultPrefix, clientv3.WithPrefix(), clientv3.WithKeysOnly())
	if err != nil {
		t.Fatal(err)
	}
	for _, kv := range resp.Kvs {
		if !strings.Contains(string(kv.Key), "Hello/127.0.0.1:1") {
			t.Errorf("etcd holds %s", kv.Key)
		}
	}
	if resp.Count != 20 {
		t.Errorf("%d records, want 20", resp.Count)
	}
}

// TestStrayIsRemoved: a write that arrives after its record was given up leaves nothing behind.
func TestStrayIsRemoved(t *testing.T) {
	cluster := etcdtest.Start(t)
	cli := etcdClient(t, cluster.Endpoints())
	conn, _ := connectRegistry(t, cluster.Endpoints(), etcd.WithRetry(retry.NewRetryConfig(retry.WithObserveDelay(100*time.Millisecond))))
	mustRegister(t, conn.Registry(), serverInfo("Hello", "127.0.0.1:1"), serverInfo("Hello", "127.0.0.1:2"))
	lease := leaseOf(t, cli, record.Key(etcd.DefaultPrefix, "Hello", "127.0.0.1:1"))
	// The first is seen by the watch, the second by the check of the lease.
	for _, service := range []string{"Hello", "Echo"} {
		put(t, cli, service, "127.0.0.1:3", clientv3.WithLease(lease))
		waitKey(t, cli, record.Key(etcd.DefaultPrefix, service, "127.0.0.1:3"), func(found bool, _ clientv3.LeaseID) bool { return !found })
	}
	// What others wrote stays.
	put(t, cli, "Hello", "127.0.0.1:4")
	put(t, cli, "Hello", "127.0.0.1:5", clientv3.WithLease(lease))
	waitKey(t, cli, record.Key(etcd.DefaultPrefix, "Hello", "127.0.0.1:5"), func(found bool, _ clientv3.LeaseID) bool { return !found })
	if getKey(t, cli, record.Key(etcd.DefaultPrefix, "Hello", "127.0.0.1:4")) == nil {
		t.Error("the record of another was removed")
	}
}

// TestRefusedRecordHoldsUpNoOther: when a role loses a service, the process's other services are repaired, and that one
// when the role is whole again.
func TestRefusedRecordHoldsUpNoOther(t *testing.T) {
	cluster, root := securedEtcd(t, "simple")
	conn, events := connectRegistry(t, cluster.Endpoints(), etcd.WithAuthOpt("server", "serverserver"))
	from, ctx := record.ServicePrefix(etcd.DefaultPrefix, "Echo"), testContext(t)
	allow := func() {
		t.Helper()
		if _, err := root.RoleGrantPermission(ctx, "server", from, clientv3.GetPrefixRangeEnd(from), clientv3.PermissionType(clientv3.PermReadWrite)); err != nil {
			t.Fatal(err)
		}
	}
	allow()
	mustRegister(t, conn.Registry(), serverInfo("Hello", "127.0.0.1:1"), serverInfo("Echo", "127.0.0.1:2"), serverInfo("Hello", "127.0.0.1:3"))
	lease := leaseOf(t, root, from+"127.0.0.1:2")
	if _, err := root.RoleRevokePermission(ctx, "server", from, clientv3.GetPrefixRangeEnd(from)); err != nil {
		t.Fatal(err)
	}
	if _, err := root.Revoke(ctx, lease); err != nil {
		t.Fatal(err)
	}
	events.wait(t, etcd.EventRestored, 2)
	if getKey(t, root, from+"127.0.0.1:2") != nil {
		t.Error("a record stands that the role does not allow")
	}
	allow()
	events.wait(t, etcd.EventRestored, 3)
}

// TestDeregisterDrains: Deregister returns when clients had the time to see that the record is gone.
func TestDeregisterDrains(t *testing.T) {
	cluster := etcdtest.Start(t)
	cli := etcdClient(t, cluster.Endpoints())
	conn, _ := connectRegistry(t, cluster.Endpoints(), etcd.WithDrainDelay(2*time.Second))
	info := serverInfo("Hello", "127.0.0.1:1")
	mustRegister(t, conn.Registry(), info)
	done := make(chan error, 1)
	go func() { done <- conn.Registry().Deregister(info) }()
	gone := waitKey(t, cli, record.Key(etcd.DefaultPrefix, "Hello", "127.0.0.1:1"), func(found bool, _ clientv3.LeaseID) bool { return !found })
	select {
	case err := <-done:
		t.Errorf("Deregister returned %v, %v after the record was gone, with a drain delay of 2s", err, gone)
	default:
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// TestWriteThatArrivesAfterClose: a write that is held up on its way leaves no record of a process that is gone.
func TestWriteThatArrivesAfterClose(t *testing.T) {
	arrived, release, handled := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	var first sync.Once
	cluster := etcdtest.Start(t, etcdtest.WithConfig(func(cfg *embed.Config) {
		cfg.GRPCAdditionalServerOptions = append(cfg.GRPCAdditionalServerOptions, grpc.ChainUnaryInterceptor(
			func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (resp any, err error) {
				hold := false
				if txn, ok := req.(*pb.TxnRequest); ok && slices.ContainsFunc(txn.Success, func(op *pb.RequestOp) bool { return op.GetRequestPut() != nil }) {
					first.Do(func() { hold = true })
				}
				if !hold {
					return handler(ctx, req)
				}
				close(arrived)
				<-release
				resp, err = handler(context.WithoutCancel(ctx), req)
				handled <- err
				return resp, err
			}))
	}))
	conn := connect(t, cluster, etcd.WithDrainDelay(0))
	go func() { _ = conn.Registry().Register(serverInfo("Hello", "127.0.0.1:1")) }()
	<-arrived
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
	close(release)
	err := <-handled
	if getKey(t, etcdClient(t, cluster.Endpoints()), record.Key(etcd.DefaultPrefix, "Hello", "127.0.0.1:1")) != nil {
		t.Errorf("the record stands; its late write ended with %v", err)
	}
}

// TestRegistrationIsOneRequest: once there is a lease, a server is registered by one transaction, its mark is
// heeded, and a lease that has gone meanwhile is replaced.
func TestRegistrationIsOneRequest(t *testing.T) {
	var requests atomic.Int64
	count := func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		requests.Add(1)
		return invoker(ctx, method, req, reply, cc, opts...)
	}
	cluster := etcdtest.Start(t)
	conn, events := connectRegistry(t, cluster.Endpoints(), func(c *etcd.Config) {
		c.EtcdConfig.DialOptions = append(c.EtcdConfig.DialOptions, grpc.WithChainUnaryInterceptor(count))
	})
	mustRegister(t, conn.Registry(), serverInfo("First", "127.0.0.1:1"))
	if _, _, err := conn.SetMark(t.Context(), "Drained", "127.0.0.1:1", etcd.Mark{Drain: true}, 0); err != nil {
		t.Fatal(err)
	}
	before := requests.Load()
	mustRegister(t, conn.Registry(), serverInfo("Hello", "127.0.0.1:1"))
	if got := requests.Load() - before; got != 1 {
		t.Errorf("%d requests for a registration", got)
	}
	mustRegister(t, conn.Registry(), serverInfo("Drained", "127.0.0.1:1"))
	events.wait(t, etcd.EventDrained, 1)
	cli := etcdClient(t, cluster.Endpoints())
	for service, want := range map[string]bool{"Hello": true, "Drained": false} {
		if found := getKey(t, cli, record.Key(etcd.DefaultPrefix, service, "127.0.0.1:1")) != nil; found != want {
			t.Errorf("the record of %s: found is %v", service, found)
		}
	}
	if _, err := cli.Revoke(t.Context(), leaseOf(t, cli, record.Key(etcd.DefaultPrefix, "Hello", "127.0.0.1:1"))); err != nil {
		t.Fatal(err)
	}
	mustRegister(t, conn.Registry(), serverInfo("AfterTheLease", "127.0.0.1:1"))
	waitKey(t, cli, record.Key(etcd.DefaultPrefix, "Hello", "127.0.0.1:1"), func(found bool, _ clientv3.LeaseID) bool { return found })
}

// refusal makes an etcd refuse writes as long as it is set, and counts them.
type refusal struct {
	on    atomic.Bool
	times atomic.Int64
}

func (f *refusal) install(cfg *embed.Config) {
	cfg.GRPCAdditionalServerOptions = append(cfg.GRPCAdditionalServerOptions, grpc.ChainUnaryInterceptor(
		func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
			if info.FullMethod == "/etcdserverpb.KV/Txn" && f.on.Load() {
				f.times.Add(1)
				return nil, rpctypes.ErrGRPCNoSpace
			}
			return handler(ctx, req)
		}))
}

// TestRepairIsBoundedAndNeverGivenUp: MaxAttemptTimes ends a repair, ObserveDelay begins the next, RetryDelay lies between
// two attempts; and it works as soon as etcd does.
func TestRepairIsBoundedAndNeverGivenUp(t *testing.T) {
	for _, c := range []struct {
		name     string
		attempts uint
	}{{"bounded", 3}, {"unbounded", 0}} {
		t.Run(c.name, func(t *testing.T) {
			var writes refusal
			cluster := etcdtest.Start(t, etcdtest.WithConfig(writes.install))
			conn, events := connectRegistry(t, cluster.Endpoints(), etcd.WithRetry(retry.NewRetryConfig(
				retry.WithMaxAttemptTimes(c.attempts), retry.WithRetryDelay(10*time.Millisecond), retry.WithObserveDelay(50*time.Millisecond))))
			mustRegister(t, conn.Registry(), serverInfo("Hello", "127.0.0.1:1"))
			writes.on.Store(true)
			remove(t, etcdClient(t, cluster.Endpoints()), "Hello", "127.0.0.1:1")
			if c.attempts > 0 {
				const repairs = 4
				events.wait(t, etcd.EventRepairFailed, repairs)
				if got := uint(writes.times.Load()); got < repairs*c.attempts || got > (repairs+1)*c.attempts {
					t.Errorf("%d attempts in %d repairs, want %d in each", got, repairs, c.attempts)
				}
			} else {
				for begin := time.Now(); writes.times.Load() < 20; time.Sleep(time.Millisecond) {
					if time.Since(begin) > patience {
						t.Fatalf("%d attempts within %v, want more", writes.times.Load(), patience)
					}
				}
				if n := events.count(etcd.EventRepairFailed); n != 0 {
					t.Errorf("%d repairs were given up, want none", n)
				}
			}
			writes.on.Store(false)
			events.wait(t, etcd.EventRestored, 1)
		})
	}
}

// TestCloseAmongCalls closes a Conn while servers come and go: nobody waits for long, and nothing stays behind.
func TestCloseAmongCalls(t *testing.T) {
	cluster := etcdtest.Start(t)
	cli := etcdClient(t, cluster.Endpoints())
	for round := range 20 {
		conn := connect(t, cluster, etcd.WithDrainDelay(time.Millisecond))
		r := conn.Registry()
		var all sync.WaitGroup
		for i := range 8 {
			all.Go(func() {
				info := serverInfo("Hello", fmt.Sprintf("127.0.0.1:%d", 1+i))
				for {
					if err := errors.Join(r.Register(info), r.Deregister(info)); err != nil {
						if !errors.Is(err, etcd.ErrClosed) {
							t.Errorf("%v, want ErrClosed", err)
						}
						return
					}
				}
			})
		}
		if round%2 == 0 {
			waitKey(t, cli, record.Key(etcd.DefaultPrefix, "Hello", "127.0.0.1:1"), func(found bool, _ clientv3.LeaseID) bool { return found })
		}
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
		all.Wait()
		if resp, err := cli.Get(testContext(t), etcd.DefaultPrefix, clientv3.WithPrefix()); err != nil || resp.Count != 0 {
			t.Fatalf("%d records after Close (%v), want none", resp.Count, err)
		}
	}
}
