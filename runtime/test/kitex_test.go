package test

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cloudwego/kitex/client"
	"github.com/cloudwego/kitex/pkg/connpool"
	"github.com/cloudwego/kitex/pkg/discovery"
	"github.com/cloudwego/kitex/pkg/kerrors"
	"github.com/cloudwego/kitex/pkg/loadbalance"
	"github.com/cloudwego/kitex/pkg/loadbalance/lbcache"
	"github.com/cloudwego/kitex/pkg/remote/trans/gonet"
	"github.com/cloudwego/kitex/pkg/utils"
	"github.com/cloudwego/kitex/server"

	"github.com/kitex-contrib/kitex-etcd/golden/thrift_unary/kitex_gen/api"
	"github.com/kitex-contrib/kitex-etcd/golden/thrift_unary/kitex_gen/api/hello"
	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
	"github.com/kitex-contrib/kitex-etcd/runtime/etcdtest"
)

// helloServer answers with its own address, and counts.
type helloServer struct {
	addr  string
	calls atomic.Int64
}

func (s *helloServer) Echo(_ context.Context, req *api.Request) (*api.Response, error) {
	s.calls.Add(1)
	return &api.Response{Message: s.addr}, nil
}

// serveHello runs a Kitex server on a free port until the test ends. It is on Kitex's gonet transport: the netpoll one
// closes descriptors of others when it is stopped.
func serveHello(t testing.TB, opts ...server.Option) *helloServer {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := &helloServer{addr: ln.Addr().String()}
	svr := hello.NewServer(h, append(onGonet(ln), opts...)...)
	ran := make(chan error, 1)
	go func() { ran <- svr.Run() }()
	t.Cleanup(func() {
		if err := errors.Join(svr.Stop(), <-ran); err != nil {
			t.Errorf("server %s: %v", h.addr, err)
		}
	})
	return h
}

// onGonet are the options of a server that shares its process with others.
func onGonet(ln net.Listener) []server.Option {
	return []server.Option{
		server.WithListener(ln),
		server.WithTransServerFactory(gonet.NewTransServerFactory()),
		server.WithTransHandlerFactory(gonet.NewSvrTransHandlerFactory()),
		server.WithExitSignal(func() <-chan error { return nil }),
		server.WithExitWaitTime(5 * time.Second),
	}
}

func longPool() client.Option {
	return client.WithLongConnection(connpool.IdleConfig{MaxIdlePerAddress: 100, MaxIdleGlobal: 1000, MaxIdleTimeout: time.Minute})
}

func newHello(t testing.TB, c *etcd.Conn, opts ...client.Option) hello.Client {
	t.Helper()
	cli, err := hello.NewHelloClientWithEtcd(c, append(opts, closedAfter(t))...)
	if err != nil {
		t.Fatal(err)
	}
	return cli
}

// closedAfter closes a client at the end of the test. Generated clients have no Close of their own.
func closedAfter(t testing.TB) client.Option {
	return client.TailOption(client.Option{F: func(o *client.Options, _ *utils.Slice) {
		t.Cleanup(func() {
			for _, f := range o.CloseCallbacks {
				_ = f() // its finalizer may have been first
			}
		})
	}})
}

// echo returns the address of the server that answered.
func echo(t testing.TB, cli hello.Client) string {
	t.Helper()
	resp, err := cli.Echo(context.Background(), &api.Request{Message: "hi"})
	if err != nil {
		t.Fatal(err)
	}
	return resp.Message
}

// stateless is a balancer that keeps nothing: it picks the last of what it is given.
type stateless struct{}

func (stateless) Name() string                                      { return "stateless" }
func (stateless) GetPicker(res discovery.Result) loadbalance.Picker { return lastPicker(res.Instances) }

type lastPicker []discovery.Instance

func (p lastPicker) Next(context.Context, any) discovery.Instance {
	if len(p) == 0 {
		return nil
	}
	return p[len(p)-1]
}

// TestPushReachesEveryBalancer changes a service's only instance again and again: every next call has to go to the new
// one, long before Kitex's refresh.
func TestPushReachesEveryBalancer(t *testing.T) {
	cluster := etcdtest.Start(t)
	raw := etcdClient(t, cluster.Endpoints())
	a, b := serveHello(t), serveHello(t)
	byRequest := func(context.Context, any) string { return "key" }
	long := &lbcache.Options{RefreshInterval: time.Hour, Cacheable: true}
	for name, opts := range map[string][]client.Option{
		"default":                nil,
		"round robin":            {client.WithLoadBalancer(loadbalance.NewWeightedRoundRobinBalancer())},
		"interleaved":            {client.WithLoadBalancer(loadbalance.NewInterleavedWeightedRoundRobinBalancer())},
		"random":                 {client.WithLoadBalancer(loadbalance.NewWeightedRandomBalancer())},
		"alias":                  {client.WithLoadBalancer(loadbalance.NewWeightedRandomWithAliasMethodBalancer())},
		"consistent hash":        {client.WithLoadBalancer(loadbalance.NewConsistBalancer(loadbalance.NewConsistentHashOption(byRequest)))},
		"stateless":              {client.WithLoadBalancer(stateless{})},
		"with options":           {client.WithLoadBalancer(loadbalance.NewWeightedBalancer(), long)},
		"default, hourly":        {client.WithLoadBalancer(nil, long)},
		"stateless with options": {client.WithLoadBalancer(stateless{}, long)},
		"not cacheable":          {client.WithLoadBalancer(loadbalance.NewWeightedBalancer(), &lbcache.Options{})},
	} {
		for _, before := range []bool{true, false} {
			t.Run(name+map[bool]string{true: " before", false: " after"}[before], func(t *testing.T) {
				c := connect(t, cluster)
				var cli hello.Client
				if before { // the option stands before ours, as in opts of a generated constructor
					cli = newHello(t, c, opts...)
				} else {
					all := append(append(c.ClientOptions(), opts...), closedAfter(t))
					var err error
					if cli, err = hello.NewClient("Hello", all...); err != nil {
						t.Fatal(err)
					}
				}
				put(t, raw, "Hello", a.addr)
				for range 5 {
					await(t, c, "Hello", a.addr)
					awaitEcho(t, cli, a.addr)
					put(t, raw, "Hello", b.addr)
					remove(t, raw, "Hello", a.addr)
					await(t, c, "Hello", b.addr)
					awaitEcho(t, cli, b.addr)
					put(t, raw, "Hello", a.addr)
					remove(t, raw, "Hello", b.addr)
				}
				remove(t, raw, "Hello", a.addr)
				await(t, c, "Hello")
				awaitEmpty(t, cli)
			})
		}
	}
}

// awaitEcho calls until addr answers. The list is there already, the pickers are built right after it.
func awaitEcho(t testing.TB, cli hello.Client, addr string) {
	t.Helper()
	deadline := time.Now().Add(2 * time.Second)
	for {
		got := echo(t, cli)
		if got == addr {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s answers, not %s", got, addr)
		}
	}
}

// awaitEmpty calls until the error says that there are no instances.
func awaitEmpty(t testing.TB, cli hello.Client) {
	t.Helper()
	deadline := time.Now().Add(2 * time.Second)
	for {
		_, err := cli.Echo(context.Background(), &api.Request{})
		if err != nil {
			for _, part := range []string{"Hello", etcd.DefaultPrefix, "no instances", "ago"} {
				if !errors.Is(err, kerrors.ErrNoMoreInstance) || !strings.Contains(err.Error(), part) {
					t.Errorf("the error does not say %q: %v", part, err)
				}
			}
			if strings.Contains(err.Error(), "%!") {
				t.Errorf("the error is malformed: %v", err)
			}
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("calls still go through")
		}
	}
}
