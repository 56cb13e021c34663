package test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"regexp"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cloudwego/kitex/client"
	"github.com/cloudwego/kitex/client/streamclient"
	"github.com/cloudwego/kitex/pkg/discovery"
	"github.com/cloudwego/kitex/pkg/loadbalance"
	"github.com/cloudwego/kitex/pkg/loadbalance/lbcache"
	"github.com/cloudwego/kitex/pkg/utils"
	"github.com/cloudwego/kitex/server"

	"github.com/kitex-contrib/kitex-etcd/golden/protobuf_streaming/kitex_gen/pb/chat"
	chatservice "github.com/kitex-contrib/kitex-etcd/golden/protobuf_streaming/kitex_gen/pb/chat/chat"
	"github.com/kitex-contrib/kitex-etcd/golden/thrift_unary/kitex_gen/api"
	"github.com/kitex-contrib/kitex-etcd/golden/thrift_unary/kitex_gen/api/hello"
	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
	"github.com/kitex-contrib/kitex-etcd/runtime/etcdtest"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/faultproxy"
)

// TestFaultEtcdDownForClients has no etcd while one client calls on, one is idle for longer than Kitex keeps what it
// knows, and one is made. None of them has a failed call, and Resolve never waits.
func TestFaultEtcdDownForClients(t *testing.T) {
	outage := 3 * time.Second
	if os.Getenv("KITEX_ETCD_LONG") != "" {
		outage = 180 * time.Second
	}
	cluster := etcdtest.Start(t)
	raw := etcdClient(t, cluster.Endpoints())
	a, b := serveHello(t), serveHello(t)
	put(t, raw, "Hello", a.addr)
	c := connect(t, cluster)
	idle := newHello(t, c, client.WithLoadBalancer(loadbalance.NewWeightedBalancer(), &lbcache.Options{ExpireInterval: 50 * time.Millisecond}))
	echo(t, idle)
	tr := startTraffic(t, c)
	eventually(t, "calls go through", func() bool { return tr.calls.Load() > 10 })

	cluster.Stop()
	over := time.After(outage)
	resolver := c.Resolver()
	var slowest time.Duration
	for down := true; down; {
		begin := time.Now()
		if res, err := resolver.Resolve(context.Background(), "Hello"); err != nil || len(res.Instances) != 1 {
			t.Fatalf("Resolve = %v, %v", res, err)
		}
		slowest = max(slowest, time.Since(begin))
		select {
		case <-over:
			down = false
		case <-time.After(time.Millisecond):
		}
	}
	t.Logf("slowest Resolve: %v", slowest)
	if slowest > time.Second {
		t.Error("Resolve waited for etcd")
	}
	echo(t, idle)
	echo(t, newHello(t, c))

	if err := cluster.Start(); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	raw = etcdClient(t, cluster.Endpoints())
	put(t, raw, "Hello", b.addr)
	await(t, c, "Hello", sorted(a.addr, b.addr)...)
	awaitEcho(t, idle, b.addr)
	took := time.Since(begin)
	t.Logf("new data %v after etcd was back", took)
	if took > 3*time.Second {
		t.Errorf("new data came %v after etcd was back", took)
	}
	tr.check(t)
}

func sorted(a, b string) []string {
	if b < a {
		a, b = b, a
	}
	return []string{a, b}
}

// TestFaultEtcdRebuiltUnderTraffic empties etcd. The servers register again, the client has no failed call meanwhile.
func TestFaultEtcdRebuiltUnderTraffic(t *testing.T) {
	cluster := etcdtest.Start(t)
	children := startChildren(t, cluster, 2*time.Second, 2)
	c := connect(t, cluster)
	tr := startTraffic(t, c)
	want := sorted(children[0].addr, children[1].addr)
	await(t, c, "Hello", want...)
	cluster.Stop()
	if err := cluster.Wipe(); err != nil {
		t.Fatal(err)
	}
	if err := cluster.Start(); err != nil {
		t.Fatal(err)
	}
	raw := etcdClient(t, cluster.Endpoints())
	for _, addr := range want {
		t.Logf("%s is back after %v", addr, waitRecord(t, raw, addr, true))
	}
	children[0].stop(t)
	await(t, c, "Hello", children[1].addr)
	tr.check(t)
}

// TestIsolation gives one process several Conns, alike in as much as possible. None sees the instances of another, and
// the end of one is nothing to the others.
func TestIsolation(t *testing.T) {
	clusters := []*etcdtest.Cluster{etcdtest.Start(t), etcdtest.Start(t)}
	later := serveHello(t)
	type half struct {
		conn *etcd.Conn
		cli  hello.Client
		srv  *helloServer
	}
	var halves []half
	servers := []*helloServer{serveHello(t), serveHello(t), serveHello(t), serveHello(t)}
	for _, cluster := range clusters {
		raw := etcdClient(t, cluster.Endpoints())
		for _, prefix := range []string{etcd.DefaultPrefix, "other"} {
			h := half{conn: connect(t, cluster, etcd.WithEtcdServicePrefix(prefix)), srv: servers[len(halves)]}
			value := fmt.Sprintf(`{"network":"tcp","address":%q,"weight":10,"tags":null}`, h.srv.addr)
			if _, err := raw.Put(context.Background(), prefix+"/Hello/"+h.srv.addr, value); err != nil {
				t.Fatal(err)
			}
			h.cli = newHello(t, h.conn)
			halves = append(halves, h)
		}
	}
	twin := connect(t, clusters[0])
	twinClient := newHello(t, twin)
	for range 20 {
		for _, h := range halves {
			if got := echo(t, h.cli); got != h.srv.addr {
				t.Errorf("%v: %s answered, want %s", h.conn, got, h.srv.addr)
			}
		}
		if got := echo(t, twinClient); got != halves[0].srv.addr {
			t.Errorf("the second Conn of one configuration: %s answered, want %s", got, halves[0].srv.addr)
		}
	}
	if err := halves[0].conn.Close(); err != nil {
		t.Fatal(err)
	}
	raw := etcdClient(t, clusters[0].Endpoints())
	put(t, raw, "Hello", later.addr)
	remove(t, raw, "Hello", halves[0].srv.addr)
	await(t, twin, "Hello", later.addr)
	awaitEcho(t, twinClient, later.addr)
	// A closed Conn serves what it knew last, and nothing that it did not.
	if got := echo(t, halves[0].cli); got != halves[0].srv.addr {
		t.Errorf("the closed Conn: %s answered, want %s", got, halves[0].srv.addr)
	}
	if _, err := twin.Resolver().Resolve(context.Background(), "Hello"); err != nil {
		t.Error(err)
	}
	if _, err := halves[0].conn.Resolver().Resolve(context.Background(), "Unknown"); !errors.Is(err, etcd.ErrClosed) {
		t.Errorf("an unknown service of a closed Conn: %v", err)
	}
}

// TestTwoHashFunctions gives two clients of one Conn and one service a consistent hash each.
func TestTwoHashFunctions(t *testing.T) {
	cluster := etcdtest.Start(t)
	raw := etcdClient(t, cluster.Endpoints())
	for range 3 {
		put(t, raw, "Hello", serveHello(t).addr)
	}
	c := connect(t, cluster)
	hash := func(key func() string) client.Option {
		return client.WithLoadBalancer(loadbalance.NewConsistBalancer(loadbalance.NewConsistentHashOption(
			func(context.Context, any) string { return key() })), &lbcache.Options{Cacheable: true})
	}
	var n atomic.Int64
	fixed := newHello(t, c, hash(func() string { return "always the same" }))
	spread := newHello(t, c, hash(func() string { return fmt.Sprint("key ", n.Add(1)) }))
	fixedAddrs, spreadAddrs := map[string]bool{}, map[string]bool{}
	for range 100 {
		fixedAddrs[echo(t, fixed)] = true
		spreadAddrs[echo(t, spread)] = true
	}
	if len(fixedAddrs) != 1 || len(spreadAddrs) != 3 {
		t.Errorf("one key goes to %d servers, a hundred keys to %d; want 1 and 3", len(fixedAddrs), len(spreadAddrs))
	}
}

// TestFaultThousandClients opens and closes a thousand clients, each with a balancer of its own, and drops as many that
// nobody closes. Nothing grows.
func TestFaultThousandClients(t *testing.T) {
	const clients = 1000
	cluster := etcdtest.Start(t)
	proxy := faultproxy.Start(t, cluster.Endpoints()[0])
	srv := serveHello(t)
	put(t, etcdClient(t, cluster.Endpoints()), "Hello", srv.addr)
	c := connectTo(t, []string{proxy.Addr()})
	var kept atomic.Int64 // balancers of clients that are still reachable
	use := func(closed bool) {
		t.Helper()
		var end []func() error
		own := loadbalance.NewWeightedBalancer()
		kept.Add(1)
		runtime.SetFinalizer(own, func(loadbalance.Loadbalancer) { kept.Add(-1) })
		opts := []client.Option{
			client.WithShortConnection(),
			client.WithLoadBalancer(own, &lbcache.Options{ExpireInterval: 20 * time.Millisecond}),
		}
		if closed {
			opts = append(opts, client.TailOption(client.Option{F: func(o *client.Options, _ *utils.Slice) { end = o.CloseCallbacks }}))
		}
		cli, err := hello.NewHelloClientWithEtcd(c, opts...)
		if err != nil {
			t.Fatal(err)
		}
		echo(t, cli)
		for _, f := range end {
			if err := f(); err != nil {
				t.Fatal(err)
			}
		}
	}
	gone := func() {
		eventually(t, "no client's balancer is kept", func() bool {
			runtime.GC()
			return kept.Load() == 0
		})
	}
	for range 50 {
		use(true)
		use(false)
	}
	gone()
	goroutines, factories, heap := runtime.NumGoroutine(), len(lbcache.Dump().(map[string]any)), heapInUse()
	for i := range clients {
		use(i%2 == 0)
	}
	gone()
	eventually(t, "no more goroutines than before", func() bool { return runtime.NumGoroutine() <= goroutines+5 })
	if n := len(lbcache.Dump().(map[string]any)); n != factories {
		t.Errorf("Kitex has %d factories, had %d", n, factories)
	}
	if n := proxy.Conns(); n != 1 {
		t.Errorf("%d connections to etcd, want 1", n)
	}
	if grown := int64(heapInUse()) - int64(heap); grown > clients*2<<10 {
		t.Errorf("the heap grew by %d bytes a client", grown/clients)
	}
}

func heapInUse() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// countingListener counts the connections that are open.
type countingListener struct {
	net.Listener
	open atomic.Int64
}

func (l *countingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.open.Add(1)
	return &countedConn{Conn: c, l: l}, nil
}

type countedConn struct {
	net.Conn
	l      *countingListener
	closed atomic.Bool
}

func (c *countedConn) Close() error {
	if c.closed.CompareAndSwap(false, true) {
		c.l.open.Add(-1)
	}
	return c.Conn.Close()
}

// slowServer answers when it is told to.
type slowServer struct{ called, answer chan struct{} }

func (s *slowServer) Echo(context.Context, *api.Request) (*api.Response, error) {
	s.called <- struct{}{}
	<-s.answer
	return &api.Response{}, nil
}

// TestRemovedInstancesConnections are closed soon, whatever refresh interval the client has, and not under a call that was
// on its way when the instance was removed.
func TestRemovedInstancesConnections(t *testing.T) {
	hourly := client.WithLoadBalancer(loadbalance.NewWeightedBalancer(), &lbcache.Options{RefreshInterval: time.Hour})
	for name, opts := range map[string][]client.Option{
		"long pool":         {longPool()},
		"long pool, hourly": {longPool(), hourly},
		"short connections": {client.WithShortConnection()},
		"mux":               {client.WithMuxConnection(1)},
		"mux, hourly":       {client.WithMuxConnection(1), hourly},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cluster := etcdtest.Start(t)
			raw := etcdClient(t, cluster.Endpoints())
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			counting := &countingListener{Listener: ln}
			slow := &slowServer{called: make(chan struct{}, 1), answer: make(chan struct{}, 1)}
			serve(t, hello.NewServer(slow, onGonet(counting)...))
			other := serveHello(t)
			addr := ln.Addr().String()
			put(t, raw, "Hello", addr)
			c := connect(t, cluster)
			cli := newHello(t, c, append(opts, client.WithRPCTimeout(10*time.Second))...)

			called := make(chan error, 1)
			go func() {
				_, err := cli.Echo(context.Background(), &api.Request{})
				called <- err
			}()
			<-slow.called
			removed := time.Now()
			put(t, raw, "Hello", other.addr)
			remove(t, raw, "Hello", addr)
			await(t, c, "Hello", other.addr)
			for range 20 { // calls go on elsewhere
				awaitEcho(t, cli, other.addr)
			}
			time.Sleep(200 * time.Millisecond) // the call that was on its way takes its time
			slow.answer <- struct{}{}
			if err := <-called; err != nil {
				t.Errorf("the call that was on its way: %v", err)
			}
			eventually(t, "the connections are closed", func() bool { return counting.open.Load() == 0 })
			t.Logf("the connections were closed after %v", time.Since(removed)) // meant to be 5 s at most
			runtime.KeepAlive(cli)                                              // a client that is collected closes its connections, too
		})
	}
}

// TestDiagnosisShowsInstances reads Kitex's own dump.
func TestDiagnosisShowsInstances(t *testing.T) {
	cluster := etcdtest.Start(t)
	srv := serveHello(t)
	put(t, etcdClient(t, cluster.Endpoints()), "Hello", srv.addr)
	c := connect(t, cluster)
	echo(t, newHello(t, c))
	echo(t, newHello(t, c, client.WithLoadBalancer(stateless{})))
	id := strings.TrimPrefix(c.Resolver().Name(), "kitex-etcd-")
	ofConn := regexp.MustCompile(`^Hello\x1f` + id + `(\.|$)`)
	var shown []string
	for _, routes := range lbcache.Dump().(map[string]any) {
		for target, instances := range routes.(map[string]any) {
			if ofConn.MatchString(target) {
				shown = append(shown, fmt.Sprintf("%s %v", target, instances))
			}
		}
	}
	if len(shown) != 2 || !strings.Contains(shown[0], srv.addr) || !strings.Contains(shown[1], srv.addr) {
		t.Errorf("Kitex shows %q, want two targets with %s", shown, srv.addr)
	}
}

// TestOtherResolversAreLeftAlone: a client that its options turn to other instances is not wired.
func TestOtherResolversAreLeftAlone(t *testing.T) {
	cluster := etcdtest.Start(t)
	mine, theirs := serveHello(t), serveHello(t)
	put(t, etcdClient(t, cluster.Endpoints()), "Hello", mine.addr)
	c := connect(t, cluster)
	other := discovery.SynthesizedResolver{
		ResolveFunc: func(context.Context, string) (discovery.Result, error) {
			return discovery.Result{Instances: []discovery.Instance{discovery.NewInstance("tcp", theirs.addr, 1, nil)}}, nil
		},
		NameFunc: func() string { return t.Name() },
	}
	for _, opt := range []client.Option{client.WithHostPorts(theirs.addr), client.WithResolver(other)} {
		if got := echo(t, newHello(t, c, opt)); got != theirs.addr {
			t.Errorf("%s answered, want %s", got, theirs.addr)
		}
	}
	if followed := c.Services(); len(followed) != 0 {
		t.Errorf("the Conn was asked for %+v", followed)
	}
}

// chatServer answers a stream with its own address.
type chatServer struct {
	chat.Chat
	addr string
}

func (s *chatServer) Say(context.Context, *chat.Request) (*chat.Response, error) {
	return &chat.Response{Message: s.addr}, nil
}

func (s *chatServer) Download(_ *chat.Request, stream chat.Chat_DownloadServer) error {
	return stream.Send(&chat.Response{Message: s.addr})
}

// TestStreamClient moves a service with streams from one server to another.
func TestStreamClient(t *testing.T) {
	t.Setenv(childService, "Chat")
	cluster := etcdtest.Start(t)
	c := connect(t, cluster)
	//lint:ignore SA1019 there is no other way to a stream client's CloseCallbacks
	cli, err := chatservice.NewChatStreamClientWithEtcd(c, streamclient.ConvertOptionFrom(closedAfter(t)))
	if err != nil {
		t.Fatal(err)
	}
	var last *child
	for range 3 {
		next := startChildren(t, cluster, 10*time.Second, 1)[0]
		if last != nil {
			last.stop(t)
		}
		last = next
		await(t, c, "Chat", next.addr)
		for range 20 {
			stream, err := cli.Download(context.Background(), &chat.Request{})
			if err != nil {
				t.Fatal(err)
			}
			resp, err := stream.Recv()
			if err != nil {
				t.Fatal(err)
			}
			if resp.Message != next.addr {
				t.Errorf("the stream is from %s, want %s", resp.Message, next.addr)
			}
		}
	}
}

// serve runs a server until the end of the test.
func serve(t testing.TB, svr server.Server) {
	t.Helper()
	ran := make(chan error, 1)
	go func() { ran <- svr.Run() }()
	t.Cleanup(func() {
		if err := errors.Join(svr.Stop(), <-ran); err != nil {
			t.Errorf("server: %v", err)
		}
	})
}
