package test

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/proxy/grpcproxy"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
	"github.com/kitex-contrib/kitex-etcd/runtime/etcdtest"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/record"
)

// grpcProxy serves what `etcd grpc-proxy start` serves a registry, until stop or the end of the test.
func grpcProxy(t *testing.T, endpoints []string) (addr string, stop func()) {
	t.Helper()
	cli := etcdClient(t, endpoints)
	ctx, cancel := context.WithCancel(context.Background())
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: embed.DefaultGRPCKeepAliveMinTime}))
	kv, _ := grpcproxy.NewKvProxy(cli)
	watch, watchDone := grpcproxy.NewWatchProxy(ctx, zap.NewNop(), cli)
	lease, leaseDone := grpcproxy.NewLeaseProxy(ctx, cli)
	etcdserverpb.RegisterKVServer(s, kv)
	etcdserverpb.RegisterWatchServer(s, watch)
	etcdserverpb.RegisterLeaseServer(s, lease)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = s.Serve(ln)
	}()
	stop = sync.OnceFunc(func() {
		s.Stop()
		cancel()
		<-served
		<-watchDone
		<-leaseDone
	})
	t.Cleanup(stop)
	return ln.Addr().String(), stop
}

// TestGRPCProxy has servers and clients behind etcd's gRPC proxy, which joins the watches of many into one.
func TestGRPCProxy(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Start(t)
	cli := etcdClient(t, cluster.Endpoints())
	addr, _ := grpcProxy(t, cluster.Endpoints())
	var made connCounter
	servers, events := connectRegistry(t, []string{addr}, made.option())
	a, b := serverInfo(testService, "127.0.0.1:1"), serverInfo(testService, "127.0.0.1:2")
	mustRegister(t, servers.Registry(), a)
	var clients []*etcd.Conn
	for range 3 {
		c := connectTo(t, []string{addr}, hurry(), etcd.WithEmptyProtection(time.Hour))
		await(t, c, testService, "127.0.0.1:1")
		clients = append(clients, c)
	}
	see := func(addrs ...string) {
		t.Helper()
		for _, c := range clients {
			await(t, c, testService, addrs...)
		}
	}
	mustRegister(t, servers.Registry(), b)
	see("127.0.0.1:1", "127.0.0.1:2")
	put(t, cli, testService, "127.0.0.1:3") // by somebody who has no proxy
	see("127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3")

	// Renewals arrive, and their answers in time: no connection was given up for them.
	key := record.Key(etcd.DefaultPrefix, testService, "127.0.0.1:1")
	lease := leaseOf(t, cli, key)
	waitRenewed(t, cli, lease)
	if n := made.n.Load(); n != 1 {
		t.Errorf("%d connections were made, want 1", n)
	}
	// Nobody but a check says that a quiet watch is right.
	since := time.Now()
	for _, c := range clients {
		eventually(t, "a check that agrees", func() bool { return c.Services()[0].Synced.After(since) })
	}

	if _, err := cli.Delete(testContext(t), key); err != nil {
		t.Fatal(err)
	}
	events.wait(t, etcd.EventRestored, 1)
	if _, err := cli.Revoke(testContext(t), lease); err != nil {
		t.Fatal(err)
	}
	events.wait(t, etcd.EventRestored, 3)
	see("127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3")

	// The list becomes empty for servers that leave, not for those whose lease ends.
	remove(t, cli, testService, "127.0.0.1:3")
	mustDeregister(t, servers.Registry(), a, b)
	see()
	var expiring []clientv3.LeaseID
	for _, addr := range []string{"127.0.0.1:4", "127.0.0.1:5"} {
		expiring = append(expiring, grant(t, cli, 60))
		put(t, cli, testService, addr, clientv3.WithLease(expiring[len(expiring)-1]))
	}
	see("127.0.0.1:4", "127.0.0.1:5")
	for i, want := range [][]string{{"127.0.0.1:5"}, {"127.0.0.1:4", "127.0.0.1:5"}} {
		if _, err := cli.Revoke(testContext(t), expiring[i]); err != nil {
			t.Fatal(err)
		}
		see(want...)
	}
}

// TestFaultGRPCProxyLongLease: the proxy renews a lease when a third of its TTL is over, and answers no earlier.
func TestFaultGRPCProxyLongLease(t *testing.T) {
	t.Parallel()
	if !long {
		t.Skip("takes 30 s; KITEX_ETCD_LONG=1 runs it")
	}
	cluster := etcdtest.Start(t)
	addr, _ := grpcProxy(t, cluster.Endpoints())
	var made connCounter
	servers, _ := connectRegistry(t, []string{addr}, etcd.WithLeaseTTL(time.Minute), made.option())
	mustRegister(t, servers.Registry(), serverInfo(testService, "127.0.0.1:1"))
	time.Sleep(30 * time.Second) // until after a renewal: that nothing happens has no event
	if n := made.n.Load(); n != 1 {
		t.Errorf("%d connections were made, want 1: the proxy answers", n)
	}
}

// TestFaultGRPCProxyRebuilt empties the etcd behind a proxy. The Conns' own connections stand all the while: only a check
// finds out.
func TestFaultGRPCProxyRebuilt(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Start(t)
	cli := etcdClient(t, cluster.Endpoints())
	addr, _ := grpcProxy(t, cluster.Endpoints())
	servers, events := connectRegistry(t, []string{addr})
	mustRegister(t, servers.Registry(), serverInfo(testService, "127.0.0.1:1"))
	for range 20 {
		put(t, cli, testService, "127.0.0.1:2")
	}
	c := connectTo(t, []string{addr}, hurry())
	await(t, c, testService, "127.0.0.1:1", "127.0.0.1:2")

	cluster.Stop()
	if err := cluster.Wipe(); err != nil {
		t.Fatal(err)
	}
	restart(t, cluster)
	begin := time.Now()
	put(t, etcdClient(t, cluster.Endpoints()), testService, "127.0.0.1:2")
	put(t, etcdClient(t, cluster.Endpoints()), testService, "127.0.0.1:3")
	events.wait(t, etcd.EventRestored, 1)
	t.Logf("registered again after %v", time.Since(begin))
	await(t, c, testService, "127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3")
	t.Logf("seen after %v", time.Since(begin))
}

// TestFaultGRPCProxyDies has two proxies: whoever was behind the first goes on behind the second.
func TestFaultGRPCProxyDies(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Start(t)
	cli := etcdClient(t, cluster.Endpoints())
	first, die := grpcProxy(t, cluster.Endpoints())
	second, _ := grpcProxy(t, cluster.Endpoints())
	servers, events := connectRegistry(t, []string{first, second})
	mustRegister(t, servers.Registry(), serverInfo(testService, "127.0.0.1:1"))
	lease := leaseOf(t, cli, record.Key(etcd.DefaultPrefix, testService, "127.0.0.1:1"))
	c := connectTo(t, []string{first, second})
	await(t, c, testService, "127.0.0.1:1")

	die()
	begin := time.Now()
	put(t, cli, testService, "127.0.0.1:2")
	await(t, c, testService, "127.0.0.1:1", "127.0.0.1:2")
	t.Logf("a change is seen after %v", time.Since(begin))
	waitRenewed(t, cli, lease)
	if lost := events.count(etcd.EventLeaseLost) + events.count(etcd.EventRecordLost); lost != 0 {
		t.Errorf("%d losses, want none", lost)
	}
}

// TestFaultGRPCProxyNoLeader: the proxy says nothing of it, nor does a Conn behind it; changes arrive again afterwards.
func TestFaultGRPCProxyNoLeader(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Start(t, etcdtest.WithMembers(3))
	cli := etcdClient(t, cluster.Endpoints())
	put(t, cli, testService, "127.0.0.1:1")
	members := cluster.Members()
	addr, _ := grpcProxy(t, []string{members[0].Endpoint()})
	direct, proxied := newJournal(), newJournal()
	without := connectTo(t, []string{members[0].Endpoint()}, etcd.WithEventHandler(direct.add))
	behind := connectTo(t, []string{addr}, etcd.WithEventHandler(proxied.add))
	await(t, without, testService, "127.0.0.1:1")
	await(t, behind, testService, "127.0.0.1:1")
	members[1].Kill()
	members[2].Kill()
	direct.wait(t, etcd.EventWatchLost, 1)
	await(t, behind, testService, "127.0.0.1:1")
	restart(t, cluster)
	put(t, etcdClient(t, cluster.Endpoints()), testService, "127.0.0.1:2")
	await(t, behind, testService, "127.0.0.1:1", "127.0.0.1:2")
	if n := proxied.count(etcd.EventWatchLost); n != 0 {
		t.Errorf("%d events %q behind the proxy: say so in docs/operations.md", n, etcd.EventWatchLost)
	}
}
