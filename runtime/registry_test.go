package etcd

import (
	"context"
	"errors"
	"fmt"
	"net"
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
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"google.golang.org/grpc"

	"github.com/kitex-contrib/kitex-etcd/runtime/etcdtest"
	"github.com/kitex-contrib/kitex-etcd/runtime/retry"
)

// patience is how long the tests wait for what must happen; a failure takes that long, a success does not.
const patience = 20 * time.Second

// journal collects the events of a Conn.
type journal struct {
	mu     sync.Mutex
	events []Event
	more   chan struct{} // closed and replaced at every event
}

func newJournal() *journal { return &journal{more: make(chan struct{})} }

func (j *journal) add(ev Event) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.events = append(j.events, ev)
	close(j.more)
	j.more = make(chan struct{})
}

// count returns how many events of type typ there were.
func (j *journal) count(typ EventType) int {
	n, _ := j.look(typ)
	return n
}

func (j *journal) look(typ EventType) (n int, more <-chan struct{}) {
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
func (j *journal) wait(t testing.TB, typ EventType, n int) {
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
func connectRegistry(t testing.TB, endpoints []string, opts ...Option) (*Conn, *journal) {
	t.Helper()
	j := newJournal()
	opts = append([]Option{
		WithLeaseTTL(2 * time.Second),
		WithDrainDelay(0),
		WithEventHandler(j.add),
		WithRetry(retry.NewRetryConfig(retry.WithRetryDelay(200*time.Millisecond), retry.WithObserveDelay(time.Hour))),
	}, opts...)
	c, err := Connect(endpoints, opts...)
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

func TestRegisterAndDeregister(t *testing.T) {
	cluster := etcdtest.Start(t)
	cli := etcdClient(t, cluster.Endpoints())
	conn, events := connectRegistry(t, cluster.Endpoints())
	r := conn.Registry()
	info := serverInfo("Hello", "127.0.0.1:8888")
	info.Tags = map[string]string{"zone": "a"}
	mustRegister(t, r, info)

	const key = "kitex/registry-etcd/Hello/127.0.0.1:8888"
	kv := getKey(t, cli, key)
	if kv == nil {
		t.Fatalf("no record at %s", key)
	}
	if got, want := string(kv.Value), `{"network":"tcp","address":"127.0.0.1:8888","weight":10,"tags":{"zone":"a"}}`; got != want {
		t.Errorf("the record is %s, want %s", got, want)
	}
	if n := len(leases(t, cli)); n != 1 || kv.Lease == 0 {
		t.Errorf("%d leases, record under %d; want one lease, and the record under it", n, kv.Lease)
	}
	// A second server shares the lease.
	other := serverInfo("Echo", "127.0.0.1:8889")
	mustRegister(t, r, other)
	if n := len(leases(t, cli)); n != 1 {
		t.Errorf("%d leases for two servers, want 1", n)
	}
	mustDeregister(t, r, info)
	if getKey(t, cli, key) != nil {
		t.Error("the record stands after Deregister")
	}
	if n := len(leases(t, cli)); n != 1 {
		t.Errorf("%d leases while a server is registered, want 1", n)
	}
	mustDeregister(t, r, other)
	// Clients that ask now, or a little later, have to see that the lease lives: the servers left on purpose.
	if n := len(leases(t, cli)); n != 1 {
		t.Errorf("%d leases right after the last Deregister, want 1", n)
	}
	awaitNoLease(t, cli)
	events.wait(t, EventRegistered, 2)
	events.wait(t, EventDeregistered, 2)
}

func TestServerOptionsRegisterUnderEveryName(t *testing.T) {
	cluster := etcdtest.Start(t)
	cli := etcdClient(t, cluster.Endpoints())
	conn, _ := connectRegistry(t, cluster.Endpoints())
	r := conn.newRegistry("", "Hello", "Echo")
	info := serverInfo("whatever", "127.0.0.1:8888")
	mustRegister(t, r, info)
	for _, service := range []string{"Hello", "Echo"} {
		if getKey(t, cli, recordKey(DefaultPrefix, service, "127.0.0.1:8888")) == nil {
			t.Errorf("no record of %s", service)
		}
	}
	mustDeregister(t, r, info)
	resp, err := cli.Get(testContext(t), DefaultPrefix, clientv3.WithPrefix())
	if err != nil || resp.Count != 0 {
		t.Errorf("%d records after Deregister (%v), want none", resp.Count, err)
	}
}

func TestSecondServerOnOneAddressIsRefused(t *testing.T) {
	cluster := etcdtest.Start(t)
	cli := etcdClient(t, cluster.Endpoints())
	conn, _ := connectRegistry(t, cluster.Endpoints(), WithAdvertiseAddr("10.0.0.1:80"))
	r := conn.Registry()
	first, second := serverInfo("Hello", "127.0.0.1:1001"), serverInfo("Hello", "127.0.0.1:1002")
	mustRegister(t, r, first)
	if err := r.Register(second); err == nil || !strings.Contains(err.Error(), "another server") {
		t.Errorf("Register of a second server returned %v, want an error that names the other", err)
	}
	// Kitex deregisters a server that failed to register.
	mustDeregister(t, r, second)
	if getKey(t, cli, recordKey(DefaultPrefix, "Hello", "10.0.0.1:80")) == nil {
		t.Error("the second server's Deregister removed the first one's record")
	}
	// Nor may one that never came to register, and one that says it listens where the first does.
	mustDeregister(t, r, serverInfo("Hello", "127.0.0.1:1003"))
	twin := serverInfo("Hello", "127.0.0.1:1001")
	if err := r.Register(twin); err == nil {
		t.Error("Register of a second server on one listen address succeeded")
	}
	mustDeregister(t, r, twin)
	if getKey(t, cli, recordKey(DefaultPrefix, "Hello", "10.0.0.1:80")) == nil {
		t.Error("the Deregister of a server that is not registered removed the first one's record")
	}
	// The same server in another Info may deregister.
	mustDeregister(t, r, serverInfo("Hello", "127.0.0.1:1001"))
	if getKey(t, cli, recordKey(DefaultPrefix, "Hello", "10.0.0.1:80")) != nil {
		t.Error("the record stands after Deregister")
	}
	mustRegister(t, r, second)
}

func TestRegisterWhileEtcdIsDown(t *testing.T) {
	down, err := net.Listen("tcp", "127.0.0.1:0") // accepts and never answers
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = down.Close() })
	endpoint := down.Addr().String()
	info := serverInfo("Hello", "127.0.0.1:8888")

	t.Run("bounded", func(t *testing.T) {
		conn, _ := connectRegistry(t, []string{endpoint})
		r := conn.Registry()
		begin := time.Now()
		err := r.Register(info)
		if err == nil || !strings.Contains(err.Error(), endpoint) {
			t.Errorf("Register returned %v, want an error that names %s", err, endpoint)
		}
		if d := time.Since(begin); d > 2*registerTimeout {
			t.Errorf("Register took %v", d)
		}
		mustDeregister(t, r, info)
	})
	t.Run("ended by Close", func(t *testing.T) {
		conn, _ := connectRegistry(t, []string{endpoint})
		done := make(chan error)
		go func() { done <- conn.Registry().Register(info) }()
		for started := false; !started; {
			conn.registrar.mu.Lock()
			started = conn.registrar.started
			conn.registrar.mu.Unlock()
		}
		_ = conn.Close()
		if err := <-done; !errors.Is(err, ErrClosed) {
			t.Errorf("Register returned %v, want ErrClosed", err)
		}
	})
	t.Run("in the background", func(t *testing.T) {
		conn, _ := connectRegistry(t, []string{endpoint}, WithBackgroundRegister())
		r := conn.Registry()
		mustRegister(t, r, info)
		mustDeregister(t, r, info)
	})
}

func TestBackgroundRegisterRegistersWhenEtcdIsBack(t *testing.T) {
	cluster := etcdtest.Start(t)
	cluster.Stop()
	conn, events := connectRegistry(t, cluster.Endpoints(), WithBackgroundRegister())
	info := serverInfo("Hello", "127.0.0.1:8888")
	mustRegister(t, conn.Registry(), info)
	if err := cluster.Start(); err != nil {
		t.Fatal(err)
	}
	events.wait(t, EventRegistered, 1)
	if getKey(t, etcdClient(t, cluster.Endpoints()), recordKey(DefaultPrefix, "Hello", "127.0.0.1:8888")) == nil {
		t.Error("no record")
	}
}

func TestCloseRemovesWhatStands(t *testing.T) {
	cluster := etcdtest.Start(t)
	cli := etcdClient(t, cluster.Endpoints())
	conn, _ := connectRegistry(t, cluster.Endpoints())
	r := conn.Registry()
	info := serverInfo("Hello", "127.0.0.1:8888")
	mustRegister(t, r, info)
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	if getKey(t, cli, recordKey(DefaultPrefix, "Hello", "127.0.0.1:8888")) != nil {
		t.Error("the record stands after Close")
	}
	awaitNoLease(t, cli)
	for what, err := range map[string]error{"Register": r.Register(info), "Deregister": r.Deregister(info), "Registry": conn.Registry().Register(info)} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%s on a closed Conn returned %v, want ErrClosed", what, err)
		}
	}
}

// TestAllNamesOrNone: of a server whose second name etcd refuses, the first is not registered either; and servers that
// register in the same moment do not suffer.
func TestAllNamesOrNone(t *testing.T) {
	cluster, root := securedEtcd(t, "simple")
	conn, _ := connectRegistry(t, cluster.Endpoints(), WithAuthOpt("server", "serverserver"))
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			if err := conn.Registry().Register(serverInfo("Hello", fmt.Sprintf("127.0.0.1:%d", 1000+i))); err != nil {
				t.Errorf("a server of one service: %v", err)
			}
		})
		all.Go(func() {
			info := serverInfo("Hello", fmt.Sprintf("127.0.0.1:%d", 2000+i))
			if err := conn.newRegistry("", "Hello", "Echo").Register(info); !errors.Is(err, rpctypes.ErrPermissionDenied) {
				t.Errorf("a server with a service of others: got %v, want %v", err, rpctypes.ErrPermissionDenied)
			}
		})
	}
	all.Wait()
	resp, err := root.Get(testContext(t), DefaultPrefix, clientv3.WithPrefix(), clientv3.WithKeysOnly())
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
	conn, _ := connectRegistry(t, cluster.Endpoints(), WithRetry(retry.NewRetryConfig(retry.WithObserveDelay(100*time.Millisecond))))
	mustRegister(t, conn.Registry(), serverInfo("Hello", "127.0.0.1:1"), serverInfo("Hello", "127.0.0.1:2"))
	lease := leaseOf(t, cli, recordKey(DefaultPrefix, "Hello", "127.0.0.1:1"))
	// The first is seen by the watch, the second by the check of the lease.
	for _, service := range []string{"Hello", "Echo"} {
		put(t, cli, service, "127.0.0.1:3", clientv3.WithLease(lease))
		waitKey(t, cli, recordKey(DefaultPrefix, service, "127.0.0.1:3"), func(found bool, _ clientv3.LeaseID) bool { return !found })
	}
	// What others wrote stays.
	put(t, cli, "Hello", "127.0.0.1:4")
	put(t, cli, "Hello", "127.0.0.1:5", clientv3.WithLease(lease))
	waitKey(t, cli, recordKey(DefaultPrefix, "Hello", "127.0.0.1:5"), func(found bool, _ clientv3.LeaseID) bool { return !found })
	if getKey(t, cli, recordKey(DefaultPrefix, "Hello", "127.0.0.1:4")) == nil {
		t.Error("the record of another was removed")
	}
}

// TestRefusedRecordHoldsUpNoOther: when a role loses a service, the process's other services are repaired, and that one
// when the role is whole again.
func TestRefusedRecordHoldsUpNoOther(t *testing.T) {
	cluster, root := securedEtcd(t, "simple")
	conn, events := connectRegistry(t, cluster.Endpoints(), WithAuthOpt("server", "serverserver"))
	from, ctx := servicePrefix(DefaultPrefix, "Echo"), testContext(t)
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
	events.wait(t, EventRestored, 2)
	if getKey(t, root, from+"127.0.0.1:2") != nil {
		t.Error("a record stands that the role does not allow")
	}
	allow()
	events.wait(t, EventRestored, 3)
}

// TestDeregisterDrains: Deregister returns when clients had the time to see that the record is gone.
func TestDeregisterDrains(t *testing.T) {
	cluster := etcdtest.Start(t)
	cli := etcdClient(t, cluster.Endpoints())
	conn, _ := connectRegistry(t, cluster.Endpoints(), WithDrainDelay(2*time.Second))
	info := serverInfo("Hello", "127.0.0.1:1")
	mustRegister(t, conn.Registry(), info)
	done := make(chan error, 1)
	go func() { done <- conn.Registry().Deregister(info) }()
	gone := waitKey(t, cli, recordKey(DefaultPrefix, "Hello", "127.0.0.1:1"), func(found bool, _ clientv3.LeaseID) bool { return !found })
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
				if info.FullMethod == "/etcdserverpb.KV/Txn" {
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
	conn := connect(t, cluster, WithDrainDelay(0))
	go func() { _ = conn.Registry().Register(serverInfo("Hello", "127.0.0.1:1")) }()
	<-arrived
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
	close(release)
	err := <-handled
	if getKey(t, etcdClient(t, cluster.Endpoints()), recordKey(DefaultPrefix, "Hello", "127.0.0.1:1")) != nil {
		t.Errorf("the record stands; its late write ended with %v", err)
	}
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
			conn, events := connectRegistry(t, cluster.Endpoints(), WithRetry(retry.NewRetryConfig(
				retry.WithMaxAttemptTimes(c.attempts), retry.WithRetryDelay(10*time.Millisecond), retry.WithObserveDelay(50*time.Millisecond))))
			mustRegister(t, conn.Registry(), serverInfo("Hello", "127.0.0.1:1"))
			writes.on.Store(true)
			remove(t, etcdClient(t, cluster.Endpoints()), "Hello", "127.0.0.1:1")
			if c.attempts > 0 {
				const repairs = 4
				events.wait(t, EventRepairFailed, repairs)
				if got := uint(writes.times.Load()); got < repairs*c.attempts || got > (repairs+1)*c.attempts {
					t.Errorf("%d attempts in %d repairs, want %d in each", got, repairs, c.attempts)
				}
			} else {
				for begin := time.Now(); writes.times.Load() < 20; time.Sleep(time.Millisecond) {
					if time.Since(begin) > patience {
						t.Fatalf("%d attempts within %v, want more", writes.times.Load(), patience)
					}
				}
				if n := events.count(EventRepairFailed); n != 0 {
					t.Errorf("%d repairs were given up, want none", n)
				}
			}
			writes.on.Store(false)
			events.wait(t, EventRestored, 1)
		})
	}
}

// TestCloseAmongCalls closes a Conn while servers come and go: nobody waits for long, and nothing stays behind.
func TestCloseAmongCalls(t *testing.T) {
	cluster := etcdtest.Start(t)
	cli := etcdClient(t, cluster.Endpoints())
	for round := range 20 {
		conn := connect(t, cluster, WithDrainDelay(time.Millisecond))
		r := conn.Registry()
		var all sync.WaitGroup
		for i := range 8 {
			all.Go(func() {
				info := serverInfo("Hello", fmt.Sprintf("127.0.0.1:%d", 1+i))
				for {
					if err := errors.Join(r.Register(info), r.Deregister(info)); err != nil {
						if !errors.Is(err, ErrClosed) {
							t.Errorf("%v, want ErrClosed", err)
						}
						return
					}
				}
			})
		}
		if round%2 == 0 {
			waitKey(t, cli, recordKey(DefaultPrefix, "Hello", "127.0.0.1:1"), func(found bool, _ clientv3.LeaseID) bool { return found })
		}
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
		all.Wait()
		if resp, err := cli.Get(testContext(t), DefaultPrefix, clientv3.WithPrefix()); err != nil || resp.Count != 0 {
			t.Fatalf("%d records after Close (%v), want none", resp.Count, err)
		}
	}
}

func TestRegistryOfNilConn(t *testing.T) {
	var conn *Conn
	for _, r := range []registry.Registry{conn.Registry(), conn.newRegistry("", "Hello")} {
		if err := r.Register(serverInfo("Hello", "127.0.0.1:1")); !errors.Is(err, errNilConn) {
			t.Errorf("Register returned %v, want errNilConn", err)
		}
		if err := r.Deregister(serverInfo("Hello", "127.0.0.1:1")); !errors.Is(err, errNilConn) {
			t.Errorf("Deregister returned %v, want errNilConn", err)
		}
	}
	if len(conn.ServerOptions("Hello")) == 0 || len(conn.ServerOptionsAt("10.0.0.1:1", "Hello")) == 0 {
		t.Error("a nil Conn gives no options: nothing would say that it is nil")
	}
}

func init() { klog.SetLevel(klog.LevelFatal) }
