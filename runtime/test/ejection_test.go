package test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cloudwego/kitex/client"
	"github.com/cloudwego/kitex/client/genericclient"
	"github.com/cloudwego/kitex/pkg/endpoint"
	"github.com/cloudwego/kitex/pkg/generic"
	"github.com/cloudwego/kitex/pkg/loadbalance"
	"github.com/cloudwego/kitex/pkg/retry"
	"github.com/cloudwego/kitex/pkg/rpcinfo"
	"github.com/cloudwego/kitex/transport"

	"github.com/kitex-contrib/kitex-etcd/golden/thrift_unary/kitex_gen/api"
	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
	"github.com/kitex-contrib/kitex-etcd/runtime/etcdtest"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/faultproxy"
)

// load calls 200 times a second and keeps what became of each call and of each attempt.
type load struct {
	stop func()

	mu       sync.Mutex
	calls    []outcome
	attempts []outcome
}

type outcome struct {
	addr  string // of an attempt; of a call, that of its last attempt
	begun time.Time
	err   error
}

func startLoad(t *testing.T, conn *etcd.Conn, opts ...client.Option) *load {
	t.Helper()
	l := new(load)
	cli := newHello(t, conn, append(l.options(), opts...)...)
	l.start(t, func(ctx context.Context, key string) error {
		_, err := cli.Echo(ctx, &api.Request{Message: key})
		return err
	})
	return l
}

// lastAddr is the key of where a call's attempts write their address.
type lastAddr struct{}

// options are those of the client that l calls with.
func (l *load) options() []client.Option {
	return []client.Option{
		// A loaded machine takes longer than Kitex's 50 ms to connect. What is gone refuses at once.
		client.WithConnectTimeout(time.Second), client.WithRPCTimeout(300 * time.Millisecond),
		client.WithInstanceMW(func(next endpoint.Endpoint) endpoint.Endpoint {
			return func(ctx context.Context, req, resp any) error {
				begun, addr := time.Now(), rpcinfo.GetRPCInfo(ctx).To().Address().String()
				if last, ok := ctx.Value(lastAddr{}).(*atomic.Value); ok {
					last.Store(addr)
				}
				err := next(ctx, req, resp)
				l.mu.Lock()
				defer l.mu.Unlock()
				l.attempts = append(l.attempts, outcome{addr, begun, err})
				return err
			}
		}),
	}
}

// start calls until stop, or the end of the test.
func (l *load) start(t *testing.T, call func(ctx context.Context, key string) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		var calls sync.WaitGroup
		defer calls.Wait()
		ticker := time.NewTicker(5 * time.Millisecond)
		defer ticker.Stop()
		for i := 0; ; i++ {
			select {
			case <-ticker.C:
			case <-ctx.Done():
				return
			}
			calls.Go(func() {
				var last atomic.Value
				last.Store("")
				begun := time.Now()
				err := call(context.WithValue(context.Background(), lastAddr{}, &last), fmt.Sprint("key", i))
				l.mu.Lock()
				defer l.mu.Unlock()
				l.calls = append(l.calls, outcome{last.Load().(string), begun, err})
			})
		}
	}()
	l.stop = sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(l.stop)
}

// failedCalls are the calls that failed and began after since.
func (l *load) failedCalls(since time.Time) (failed []outcome) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.calls {
		if c.err != nil && c.begun.After(since) {
			failed = append(failed, c)
		}
	}
	return failed
}

// failedAt are the calls that failed at addr and began after since. A busy machine fails others, too.
func (l *load) failedAt(addr string, since time.Time) (failed []outcome) {
	for _, c := range l.failedCalls(since) {
		if c.addr == addr {
			failed = append(failed, c)
		}
	}
	return failed
}

// String says what became of a call or an attempt.
func (o outcome) String() string { return fmt.Sprintf("%s: %v", o.addr, o.err) }

// at are the attempts at addr that began after since.
func (l *load) at(addr string, since time.Time) (attempts []outcome) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, a := range l.attempts {
		if a.addr == addr && a.begun.After(since) {
			attempts = append(attempts, a)
		}
	}
	return attempts
}

// answeredBy says whether addr has answered an attempt that began after since.
func (l *load) answeredBy(addr string, since time.Time) bool {
	return slices.ContainsFunc(l.at(addr, since), func(a outcome) bool { return a.err == nil })
}

// called waits until each of the addresses has answered.
func (l *load) called(t *testing.T, addrs ...string) {
	t.Helper()
	since := time.Now()
	for _, addr := range addrs {
		eventually(t, addr+" answers", func() bool { return l.answeredBy(addr, since) })
	}
}

func addrsOf(children []*child) (addrs []string) {
	for _, c := range children {
		addrs = append(addrs, c.addr)
	}
	return addrs
}

// TestEjectionKilled kills one of five servers. Callers leave it alone long before its lease ends, and call the server
// that takes its place at the same address.
func TestEjectionKilled(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Start(t)
	children := startChildren(t, cluster, 10*time.Second, 5)
	events := newJournal()
	conn := connect(t, cluster, etcd.WithEventHandler(events.add))
	l := startLoad(t, conn, longPool())
	l.called(t, addrsOf(children)...)
	dead := children[0]
	began := time.Now()
	dead.signal(t, os.Kill)
	_ = dead.cmd.Wait()
	events.wait(t, etcd.EventEjected, 1)
	if got := conn.Services()[0]; got.Ejected != 1 || got.Instances != 5 {
		t.Errorf("while one is ejected: %+v", got)
	}
	time.Sleep(3 * time.Second) // that nothing happens has no event
	if _, err := startChild(t, cluster, 10*time.Second, childAddr+"="+dead.addr); err != nil {
		t.Fatal(err)
	}
	registered := time.Now()
	eventually(t, "the new server answers", func() bool { return l.answeredBy(dead.addr, registered) })
	t.Logf("called %v after it registered again", time.Since(registered))
	l.stop()
	var failed int
	for _, a := range l.at(dead.addr, began) {
		if a.err != nil {
			failed++
		}
	}
	calls := l.failedAt(dead.addr, began)
	t.Logf("%d failed attempts, %d failed calls", failed, len(calls))
	if failed > 3 {
		t.Errorf("%d attempts at the dead server, want 3 at most", failed)
	}
	// A call that the server had when it was killed has no other way than to fail.
	if len(calls) > 1 {
		t.Errorf("%d failed calls, want none: %v", len(calls), calls)
	}
}

// TestEjectionStopped stops one of five servers as a debugger does. It accepts connections and answers nothing.
func TestEjectionStopped(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Start(t)
	children := startChildren(t, cluster, 10*time.Second, 5)
	events := newJournal()
	l := startLoad(t, connect(t, cluster, etcd.WithEventHandler(events.add)), longPool())
	l.called(t, addrsOf(children)...)
	hung := children[0]
	began := time.Now()
	hung.signal(t, sigStop)
	events.wait(t, etcd.EventEjected, 1)
	time.Sleep(5*time.Second - time.Since(began)) // shorter than the lease: trials come and go
	hung.signal(t, sigContinue)
	woke := time.Now()
	eventually(t, "the server is called again", func() bool { return l.answeredBy(hung.addr, woke) })
	t.Logf("called %v after it went on", time.Since(woke))
	l.stop()
	all, late := l.failedAt(hung.addr, began), l.failedAt(hung.addr, began.Add(time.Second))
	t.Logf("%d failed calls, %d of them begun after 1 s", len(all), len(late))
	if len(all) > 30 || len(late) > 4 {
		t.Errorf("%d failed calls, %d of them late: want 30 and 4 at most", len(all), len(late))
	}
}

// TestEjectionUnreachable has one of four servers that this client alone cannot reach, whatever its balancer and transport.
func TestEjectionUnreachable(t *testing.T) {
	t.Parallel()
	hash := loadbalance.NewConsistentHashOption(func(_ context.Context, req any) string {
		return req.(*api.HelloEchoArgs).Req.Message
	})
	for name, opts := range map[string][]client.Option{
		"weighted":        {longPool()},
		"random":          {longPool(), client.WithLoadBalancer(loadbalance.NewWeightedRandomBalancer())},
		"alias":           {longPool(), client.WithLoadBalancer(loadbalance.NewWeightedRandomWithAliasMethodBalancer())},
		"interleaved":     {longPool(), client.WithLoadBalancer(loadbalance.NewInterleavedWeightedRoundRobinBalancer())},
		"consistent hash": {longPool(), client.WithLoadBalancer(loadbalance.NewConsistBalancer(hash))},
		"user's own":      {longPool(), client.WithLoadBalancer(stateless{})},
		"short":           {client.WithShortConnection()},
		"multiplexed":     {client.WithMuxConnection(2)},
		"TTHeader":        {longPool(), client.WithTransportProtocol(transport.TTHeader)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cluster := etcdtest.Start(t)
			cli := etcdClient(t, cluster.Endpoints())
			ways := make(map[string]*faultproxy.Proxy)
			for range 4 {
				way := faultproxy.Start(t, serveHello(t).addr)
				ways[way.Addr()] = way
				put(t, cli, "Hello", way.Addr())
			}
			events := newJournal()
			conn := connect(t, cluster, etcd.WithEventHandler(events.add))
			list, err := conn.Instances(testContext(t), "Hello")
			if err != nil {
				t.Fatal(err)
			}
			way := ways[list[3].Address().String()] // which the stateless balancer calls, and no other
			l := startLoad(t, conn, opts...)
			l.called(t, way.Addr())
			began := time.Now()
			way.Shut()
			events.wait(t, etcd.EventEjected, 1)
			time.Sleep(2 * time.Second) // that nothing happens has no event
			way.Open(t)
			open := time.Now()
			eventually(t, "it is called again", func() bool { return l.answeredBy(way.Addr(), open) })
			t.Logf("called %v after it could be reached", time.Since(open))
			l.stop()
			failed := 0
			for _, a := range l.at(way.Addr(), began) {
				if a.err != nil {
					failed++
				}
			}
			calls := l.failedAt(way.Addr(), began)
			t.Logf("%d failed attempts, %d failed calls", failed, len(calls))
			if failed-len(calls) > 3 || len(calls) > 1 { // one may have been under way: it fails, and is no attempt at what cannot be reached
				t.Errorf("%d failed attempts and %d failed calls, want 3 and none: %v", failed, len(calls), calls)
			}
		})
	}
}

// TestRetriesGoElsewhere: a call that got no answer is tried again on another instance, although its balancer knows one alone
// for its key.
func TestRetriesGoElsewhere(t *testing.T) {
	t.Parallel()
	servers, conn, _ := moodyServers(t, 3)
	hash := loadbalance.NewConsistentHashOption(func(context.Context, any) string { return "key" })
	policy := retry.NewFailurePolicy()
	policy.WithMaxRetryTimes(1)
	cli := newHello(t, conn, longPool(), client.WithLoadBalancer(loadbalance.NewConsistBalancer(hash)),
		client.WithConnectTimeout(time.Second), client.WithRPCTimeout(200*time.Millisecond), client.WithFailureRetry(policy))
	first := echo(t, cli)
	for _, s := range servers {
		// The address that answers is that of the proxy in front.
		if s.addr == first {
			s.set(sleepy(time.Second))
		}
	}
	if second := echo(t, cli); second == first {
		t.Errorf("%s answered, which does not answer", second)
	}
}

// TestEjectionGeneric: generic clients notice as others do.
func TestEjectionGeneric(t *testing.T) {
	t.Parallel()
	servers, conn, events := moodyServers(t, 3)
	idl, err := generic.NewThriftFileProvider("../../golden/thrift_unary/hello.thrift")
	if err != nil {
		t.Fatal(err)
	}
	g, err := generic.JSONThriftGeneric(idl)
	if err != nil {
		t.Fatal(err)
	}
	cli, err := genericclient.NewClient("Hello", g, append(conn.ClientOptions(longPool(), client.WithRPCTimeout(time.Second)), closedAfter(t))...)
	if err != nil {
		t.Fatal(err)
	}
	call := func() {
		t.Helper()
		if _, err := cli.GenericCall(context.Background(), "echo", `{"message":"hi"}`); err != nil {
			t.Fatal(err)
		}
	}
	call()
	servers[0].way.Shut()
	eventually(t, "it is ejected", func() bool {
		call()
		return events.count(etcd.EventEjected) == 1
	})
}

// TestBackupRequestsGoElsewhere: the second request of a call that takes long goes to another instance, although its balancer
// knows one alone for its key.
func TestBackupRequestsGoElsewhere(t *testing.T) {
	t.Parallel()
	servers, conn, _ := moodyServers(t, 3)
	hash := loadbalance.NewConsistentHashOption(func(context.Context, any) string { return "key" })
	cli := newHello(t, conn, longPool(), client.WithLoadBalancer(loadbalance.NewConsistBalancer(hash)),
		client.WithConnectTimeout(time.Second), client.WithRPCTimeout(10*time.Second), client.WithBackupRequest(retry.NewBackupPolicy(20)))
	first := echo(t, cli)
	for _, s := range servers {
		if s.addr == first {
			release := make(chan struct{})
			defer close(release)
			s.set(func(string) error { <-release; return nil })
		}
	}
	if second := echo(t, cli); second == first {
		t.Errorf("%s answered, which does not answer", second)
	}
}
