package test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
	"github.com/kitex-contrib/kitex-etcd/runtime/etcdtest"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/discovery"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/faultproxy"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/record"
)

// hurry has a Conn's discovery do in tenths of a second what it does in seconds and minutes.
func hurry() etcd.Option {
	return withTiming(func(t *discovery.Timing) {
		t.RPC = 500 * time.Millisecond
		t.Check, t.Recheck = 300*time.Millisecond, 100*time.Millisecond
		t.Idle = time.Hour
	})
}

// withTiming changes the times of a Conn's discovery. A later one replaces an earlier one.
func withTiming(change func(*discovery.Timing)) etcd.Option {
	return func(c *etcd.Config) {
		c.EtcdConfig.Context = discovery.WithTimingForTesting(context.Background(), change)
	}
}

func TestFaultCompaction(t *testing.T) {
	cluster := etcdtest.Start(t)
	cli := etcdClient(t, cluster.Endpoints())
	proxy := faultproxy.Start(t, cluster.Endpoints()[0])
	events := newJournal()
	c := connectTo(t, []string{proxy.Addr()}, etcd.WithEventHandler(events.add))
	put(t, cli, testService, "a:1")
	put(t, cli, testService, "b:1")
	await(t, c, testService, "a:1", "b:1")

	proxy.Refuse()
	remove(t, cli, testService, "a:1")
	put(t, cli, testService, "c:1")
	get, err := cli.Get(testContext(t), "x")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cli.Compact(testContext(t), get.Header.Revision, clientv3.WithCompactPhysical()); err != nil {
		t.Fatal(err)
	}
	proxy.Forward()
	await(t, c, testService, "b:1", "c:1")
	events.wait(t, etcd.EventWatchLost, 1)
	events.wait(t, etcd.EventSynced, 2)
	for _, ev := range events.events {
		if ev.Type == etcd.EventWatchLost && !errors.Is(ev.Err, rpctypes.ErrCompacted) {
			t.Errorf("the watch was lost for %v", ev.Err)
		}
	}
}

// TestFaultDiscoveryBlackHole has a connection swallow everything. What is known goes on being served, and what happened meanwhile
// is seen over a new connection.
func TestFaultDiscoveryBlackHole(t *testing.T) {
	cluster := etcdtest.Start(t)
	cli := etcdClient(t, cluster.Endpoints())
	proxy := faultproxy.Start(t, cluster.Endpoints()[0])
	c := connectTo(t, []string{proxy.Addr()}, hurry())
	await(t, c, testService)
	put(t, cli, testService, "a:1")
	await(t, c, testService, "a:1") // the watch stands

	proxy.BlackHole()
	put(t, cli, testService, "b:1")
	if _, err := c.Instances(testContext(t), testService); err != nil {
		t.Error(err)
	}
	proxy.Forward() // for new connections
	begin := time.Now()
	await(t, c, testService, "a:1", "b:1")
	if took := time.Since(begin); took > 5*time.Second { // gRPC would have noticed after 10 s at the earliest
		t.Errorf("noticed after %v", took)
	}
}

func TestFaultLeaderLoss(t *testing.T) {
	cluster := etcdtest.Start(t, etcdtest.WithMembers(3))
	cli := etcdClient(t, cluster.Endpoints())
	c := connect(t, cluster)
	put(t, cli, testService, "a:1")
	await(t, c, testService, "a:1")
	for i := range 2 {
		leader, err := cluster.Leader(testContext(t))
		if err != nil {
			t.Fatal(err)
		}
		leader.Kill()
		for { // the others elect another
			_, err := cli.Put(testContext(t), record.Key(etcd.DefaultPrefix, testService, "b:1"), testRecord("b:1"))
			if err == nil {
				break
			}
			if testContext(t).Err() != nil {
				t.Fatal(err)
			}
		}
		await(t, c, testService, "a:1", "b:1")
		remove(t, cli, testService, "b:1")
		await(t, c, testService, "a:1")
		if err := leader.Start(); err != nil {
			t.Fatalf("round %d: %v", i, err)
		}
	}
}

// TestFaultNoLeader leaves the Conn a member without a leader, which answers no read. It is a failing watch, not an empty
// service.
func TestFaultNoLeader(t *testing.T) {
	cluster := etcdtest.Start(t, etcdtest.WithMembers(3))
	cli := etcdClient(t, cluster.Endpoints())
	put(t, cli, testService, "a:1")
	members := cluster.Members()
	events := newJournal()
	c := connectTo(t, []string{members[0].Endpoint()}, etcd.WithEventHandler(events.add))
	await(t, c, testService, "a:1")
	members[1].Kill()
	members[2].Kill()
	events.wait(t, etcd.EventWatchLost, 1)
	await(t, c, testService, "a:1")
	if err := cluster.Start(); err != nil {
		t.Fatal(err)
	}
	put(t, etcdClient(t, cluster.Endpoints()), testService, "b:1")
	await(t, c, testService, "a:1", "b:1")
}

// TestFaultOldToken begins watches on streams whose token has ended, and cuts connections: all of it needs fresh tokens.
func TestFaultOldToken(t *testing.T) {
	const rounds = 3
	cluster := etcdtest.Start(t, etcdtest.WithConfig(func(c *embed.Config) { c.AuthTokenTTL = 1 }))
	cli := etcdClient(t, cluster.Endpoints())
	enableAuth(t, cli)
	proxy := faultproxy.Start(t, cluster.Endpoints()[0])
	writer := rootClient(t, cluster)
	events := newJournal()
	c := connectTo(t, []string{proxy.Addr()}, etcd.WithAuthOpt("reader", "reader"), etcd.WithEventHandler(events.add))
	put(t, writer, testService, "a:1")
	await(t, c, testService, "a:1")
	tick := time.NewTicker(2500 * time.Millisecond) // a token that is not used ends within 2 s
	defer tick.Stop()
	for i := range rounds {
		<-tick.C
		other := fmt.Sprint("Other", i)
		put(t, writer, testService, "b:1")
		put(t, writer, other, "c:1")
		await(t, c, testService, "a:1", "b:1")
		await(t, c, other, "c:1")
		remove(t, writer, other, "c:1")
		if i%3 == 2 {
			proxy.Cut()
		}
		remove(t, writer, testService, "b:1")
		await(t, c, testService, "a:1")
		await(t, c, other)
	}
	// A new watch may be refused for the token of the stream that it shares; the next one has another stream.
	if n := events.count(etcd.EventWatchLost); n > 2*rounds {
		t.Errorf("%d watches were lost in %d rounds", n, rounds)
	}
}

// rootClient is etcdClient after enableAuth.
func rootClient(t *testing.T, cluster *etcdtest.Cluster) *clientv3.Client {
	t.Helper()
	cli, err := clientv3.New(clientv3.Config{Endpoints: cluster.Endpoints(), Username: "root", Password: "root"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cli.Close() })
	return cli
}

// enableAuth makes root, who may do everything, and reader, who may read the prefix.
func enableAuth(t *testing.T, cli *clientv3.Client) {
	t.Helper()
	ctx := testContext(t)
	check := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(cli.RoleAdd(ctx, "reader"))
	end := clientv3.GetPrefixRangeEnd(etcd.DefaultPrefix)
	check(cli.RoleGrantPermission(ctx, "reader", etcd.DefaultPrefix, end, clientv3.PermissionType(clientv3.PermRead)))
	for _, user := range []string{"root", "reader"} {
		check(cli.UserAdd(ctx, user, user))
		check(cli.UserGrantRole(ctx, user, user))
	}
	check(cli.AuthEnable(ctx))
}

// TestFaultPermissionDenied asks for what the user may not read: an error at once that says so, and another one after the
// permission was given.
func TestFaultPermissionDenied(t *testing.T) {
	cluster := etcdtest.Start(t)
	cli := etcdClient(t, cluster.Endpoints())
	enableAuth(t, cli)
	c := connect(t, cluster, etcd.WithAuthOpt("reader", "reader"), etcd.WithEtcdServicePrefix("other"))
	_, err := c.Resolver().Resolve(context.Background(), testService)
	if !errors.Is(err, rpctypes.ErrPermissionDenied) {
		t.Fatalf("Resolve: %v", err)
	}
	admin := rootClient(t, cluster)
	put(t, admin, testService, "a:1")
	if _, err := admin.RoleGrantPermission(testContext(t), "reader", "other", clientv3.GetPrefixRangeEnd("other"), clientv3.PermissionType(clientv3.PermRead)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the service is readable", func() bool {
		_, err := c.Resolver().Resolve(context.Background(), testService)
		return err == nil
	})
}

// TestFaultEtcdRebuilt empties etcd without a change of address, cluster ID or member ID. The next connection shows it, long before
// the next question that is asked at rest. Nothing known is given up for it, new instances are seen, and what does not come back is
// forgotten in the end.
func TestFaultEtcdRebuilt(t *testing.T) {
	for name, refill := range map[string]int{"empty": 0, "with revisions that pass the old ones": 200} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cluster := etcdtest.Start(t)
			cli := etcdClient(t, cluster.Endpoints())
			proxy := faultproxy.Start(t, cluster.Endpoints()[0])
			events := newJournal()
			c := connectTo(t, []string{proxy.Addr()}, etcd.WithEventHandler(events.add), etcd.WithEmptyProtection(3*time.Second))
			lease := clientv3.WithLease(grant(t, cli, 60))
			for range 20 {
				put(t, cli, testService, "a:1", lease)
			}
			put(t, cli, testService, "b:1", lease)
			await(t, c, testService, "a:1", "b:1")

			proxy.Refuse()
			cluster.Stop()
			if err := cluster.Wipe(); err != nil {
				t.Fatal(err)
			}
			if err := cluster.Start(); err != nil {
				t.Fatal(err)
			}
			cli = etcdClient(t, cluster.Endpoints())
			put(t, cli, testService, "d:1") // is there before it is noticed
			for range refill {
				if _, err := cli.Put(testContext(t), "elsewhere", ""); err != nil {
					t.Fatal(err)
				}
			}
			proxy.Forward()
			begin := time.Now()
			events.wait(t, etcd.EventSynced, 2)
			t.Logf("noticed after %v", time.Since(begin))
			await(t, c, testService, "a:1", "b:1", "d:1")
			put(t, cli, testService, "b:1", clientv3.WithLease(grant(t, cli, 60))) // one is back
			put(t, cli, testService, "c:1", clientv3.WithLease(grant(t, cli, 60)))
			await(t, c, testService, "a:1", "b:1", "c:1", "d:1")
			await(t, c, testService, "b:1", "c:1", "d:1")
		})
	}
}

// TestFaultLastInstanceLeaves deletes down to zero: explicit deletes are believed at once, with and without a lease.
func TestFaultLastInstanceLeaves(t *testing.T) {
	cluster := etcdtest.Start(t)
	cli := etcdClient(t, cluster.Endpoints())
	c := connect(t, cluster)
	put(t, cli, testService, "a:1", clientv3.WithLease(grant(t, cli, 60)))
	put(t, cli, testService, "b:1", clientv3.WithLease(grant(t, cli, 60)))
	put(t, cli, testService, "c:1")
	await(t, c, testService, "a:1", "b:1", "c:1")
	begin := time.Now()
	for _, addr := range []string{"a:1", "b:1", "c:1"} {
		remove(t, cli, testService, addr)
	}
	await(t, c, testService)
	if took := time.Since(begin); took > time.Second {
		t.Errorf("believed after %v", took)
	}
}

// TestFaultLeasesExpire lets the leases of a whole fleet end, one after another. Nobody deleted anything: the fleet is
// served until the protection ends, or until its instances are back.
func TestFaultLeasesExpire(t *testing.T) {
	cluster := etcdtest.Start(t)
	cli := etcdClient(t, cluster.Endpoints())
	c := connect(t, cluster, etcd.WithEmptyProtection(4*time.Second))
	addrs := []string{"a:1", "b:1", "c:1"}
	var leases []clientv3.LeaseID
	for _, addr := range addrs {
		leases = append(leases, grant(t, cli, 60))
		put(t, cli, testService, addr, clientv3.WithLease(leases[len(leases)-1]))
	}
	await(t, c, testService, addrs...)
	for i, lease := range leases {
		if _, err := cli.Revoke(testContext(t), lease); err != nil { // to a client, what expiry is
			t.Fatal(err)
		}
		if i < len(leases)-1 {
			await(t, c, testService, addrs[i+1:]...)
		}
	}
	await(t, c, testService, addrs...)
	put(t, cli, testService, "b:1")
	put(t, cli, testService, "d:1")
	await(t, c, testService, "a:1", "b:1", "c:1", "d:1")
	await(t, c, testService, "b:1", "d:1")
}

// TestFaultTwoClusters has one of two etcd clusters down. Discovery through the other one is as quick as ever.
func TestFaultOneOfTwoClustersDown(t *testing.T) {
	down, up := etcdtest.Start(t), etcdtest.Start(t)
	downCli, upCli := etcdClient(t, down.Endpoints()), etcdClient(t, up.Endpoints())
	a, b := connect(t, down), connect(t, up)
	put(t, downCli, testService, "a:1")
	put(t, upCli, testService, "b:1")
	await(t, a, testService, "a:1")
	await(t, b, testService, "b:1")
	down.Stop()
	for range 5 {
		put(t, upCli, testService, "c:1")
		await(t, b, testService, "b:1", "c:1")
		await(t, a, testService, "a:1")
		remove(t, upCli, testService, "c:1")
		await(t, b, testService, "b:1")
	}
}

// TestFaultWatchFailsAtOnce has a server that answers reads and ends every watch. The attempts are counted.
func TestFaultWatchFailsAtOnce(t *testing.T) {
	srv := serveBadWatches(t)
	c := connectTo(t, []string{srv.addr}, withTiming(func(t *discovery.Timing) { t.MaxBackoff = time.Second }))
	if _, err := c.Instances(testContext(t), testService); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	eventually(t, "ten watches were tried", func() bool { return srv.watches.Load() >= 10 })
	// 50, 100, 200, 400, 800, 1000, … ms, less a quarter.
	if took := time.Since(begin); took < 3*time.Second {
		t.Errorf("10 watches within %v", took)
	}
	if reads, watches := srv.reads.Load(), srv.watches.Load(); reads > watches+2 {
		t.Errorf("%d reads for %d watches", reads, watches)
	}
}

// badWatches is an etcd that fails every watch, in turn by ending the stream and by refusing the watch.
type badWatches struct {
	etcdserverpb.UnimplementedKVServer
	etcdserverpb.UnimplementedWatchServer
	addr           string
	reads, watches atomic.Int64
}

func serveBadWatches(t *testing.T) *badWatches {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &badWatches{addr: ln.Addr().String()}
	srv := grpc.NewServer()
	etcdserverpb.RegisterKVServer(srv, b)
	etcdserverpb.RegisterWatchServer(srv, b)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	t.Cleanup(func() {
		srv.Stop()
		<-served
	})
	return b
}

func (b *badWatches) Range(context.Context, *etcdserverpb.RangeRequest) (*etcdserverpb.RangeResponse, error) {
	b.reads.Add(1)
	return &etcdserverpb.RangeResponse{Header: &etcdserverpb.ResponseHeader{Revision: 7}}, nil
}

func (b *badWatches) Watch(stream etcdserverpb.Watch_WatchServer) error {
	if _, err := stream.Recv(); err != nil {
		return err
	}
	if b.watches.Add(1)%2 == 0 {
		return status.Error(codes.Unknown, "no")
	}
	header := &etcdserverpb.ResponseHeader{Revision: 7}
	_ = stream.Send(&etcdserverpb.WatchResponse{Header: header, Created: true})
	_ = stream.Send(&etcdserverpb.WatchResponse{Header: header, Canceled: true, CancelReason: "no"})
	<-stream.Context().Done()
	return nil
}

// TestIdleServiceLosesItsWatch and gets it back with the next use.
func TestIdleServiceLosesItsWatch(t *testing.T) {
	cluster := etcdtest.Start(t)
	cli := etcdClient(t, cluster.Endpoints())
	proxy := faultproxy.Start(t, cluster.Endpoints()[0])
	sleepy := func(wake time.Duration) *etcd.Conn {
		return connectTo(t, []string{proxy.Addr()}, withTiming(func(t *discovery.Timing) {
			t.Check, t.Idle, t.Wake = 20*time.Millisecond, 100*time.Millisecond, wake
		}))
	}
	use := func(c *etcd.Conn, n int) {
		t.Helper()
		if res, err := c.Resolver().Resolve(context.Background(), testService); err != nil || len(res.Instances) != n {
			t.Fatalf("a use got %v, %v; want %d", addresses(res.Instances), err, n)
		}
	}
	isIdle := func(c *etcd.Conn) func() bool { return func() bool { return c.Services()[0].Idle } }
	put(t, cli, testService, "a:1")
	c := sleepy(10 * time.Second) // the resync comes first, however busy the machine is
	use(c, 1)
	for i := range 3 {
		eventually(t, "the service is idle", isIdle(c))
		put(t, cli, testService, fmt.Sprintf("b%d:1", i))
		if got := c.Services()[0]; got.Instances != 1+i || !got.Idle {
			t.Fatalf("an idle service saw a change: %+v", got)
		}
		use(c, 2+i)
	}
	// Without etcd it waits a moment, once, and has what there was.
	c = sleepy(50 * time.Millisecond)
	use(c, 4)
	eventually(t, "the service is idle", isIdle(c))
	if got := c.Services(); len(got) != 1 || got[0].Instances != 4 {
		t.Errorf("it is shown as %+v", got)
	}
	proxy.Refuse()
	for range 3 {
		use(c, 4)
	}
}

func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
		time.Sleep(5 * time.Millisecond) // what is waited for has no event
	}
}
