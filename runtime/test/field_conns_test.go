package test

import (
	"context"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/cloudwego/kitex/client"
	"github.com/cloudwego/kitex/pkg/loadbalance"
	"github.com/cloudwego/kitex/pkg/loadbalance/lbcache"
	"github.com/cloudwego/kitex/pkg/rpcinfo"
	"github.com/cloudwego/kitex/pkg/utils"
	"github.com/cloudwego/kitex/pkg/warmup"
	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/embed"
	"google.golang.org/grpc"

	"github.com/kitex-contrib/kitex-etcd/golden/thrift_unary/kitex_gen/api/hello"
	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
	"github.com/kitex-contrib/kitex-etcd/runtime/etcdtest"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/discovery"
)

// TestFieldConnsOpenedAndClosed opens and closes two hundred Conns, each with a client that calls. Half of the clients have a balancer of
// their own, and nobody closes a third of them. Nothing of them is left.
func TestFieldConnsOpenedAndClosed(t *testing.T) {
	const conns = 200
	cluster := etcdtest.Start(t)
	cli := etcdClient(t, cluster.Endpoints())
	put(t, cli, testService, serveHello(t).addr)
	var many []string
	for i := range 50 {
		many = append(many, fmt.Sprintf("10.0.0.%d:80", 10+i))
		put(t, cli, "Many", many[i])
	}
	use := func(i int) {
		t.Helper()
		conn, err := etcd.Connect(cluster.Endpoints())
		if err != nil {
			t.Fatal(err)
		}
		var options *client.Options
		opts := []client.Option{client.WithShortConnection(), client.WithConnectTimeout(patience), {F: func(o *client.Options, _ *utils.Slice) {
			// What Kitex keeps of a client it lets go of soon.
			o.BalancerCacheOpt = &lbcache.Options{Cacheable: true, ExpireInterval: 20 * time.Millisecond}
			if options = o; i%2 == 0 {
				o.Balancer = loadbalance.NewWeightedBalancer()
			}
		}}}
		hello, err := hello.NewHelloClientWithEtcd(conn, opts...)
		if err != nil {
			t.Fatal(err)
		}
		echo(t, hello)
		await(t, conn, "Many", many...)
		for range i % 3 {
			for _, f := range options.CloseCallbacks {
				_ = f()
			}
		}
		if err := conn.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 20 { // whatever grows once, in etcd's memory too, has grown
		use(i)
	}
	goroutines, factories, heap := runtime.NumGoroutine(), len(lbcache.Dump().(map[string]any)), int64(heapInUse())
	for i := range conns {
		use(i)
	}
	if n := len(lbcache.Dump().(map[string]any)); n != factories {
		t.Errorf("Kitex has %d factories, had %d", n, factories)
	}
	// Clients that were dropped are closed by their finalizers.
	eventually(t, "no more goroutines than before", func() bool { runtime.GC(); return runtime.NumGoroutine() <= goroutines+conns/20 })
	eventually(t, "no more memory than before", func() bool { return int64(heapInUse())-heap <= conns*2<<10 })
	t.Logf("each Conn leaves %.3f goroutines and %d bytes", float64(runtime.NumGoroutine()-goroutines)/conns, (int64(heapInUse())-heap)/conns)
}

// TestWarmUp: a client that is warmed up knows its service, and others, before its first call.
func TestWarmUp(t *testing.T) {
	cluster := etcdtest.Start(t)
	srv := serveHello(t)
	cli := etcdClient(t, cluster.Endpoints())
	put(t, cli, testService, srv.addr)
	put(t, cli, "Other", srv.addr)
	conn := connect(t, cluster)
	for name, opts := range map[string][]client.Option{"": nil, "with its own balancer": {client.WithLoadBalancer(stateless{})}} {
		warm := &warmup.ClientOption{
			ErrorHandling:  warmup.FailFast,
			ResolverOption: &warmup.ResolverOption{Dests: []*rpcinfo.EndpointBasicInfo{{ServiceName: testService}, {ServiceName: "Other"}}},
			PoolOption:     &warmup.PoolOption{ConnNum: 1},
		}
		h := newHello(t, conn, append(opts, client.WithWarmingUp(warm), longPool(), client.WithConnectTimeout(patience))...)
		if got := warm.PoolOption.Targets["tcp"]; len(got) != 2 || got[0] != srv.addr {
			t.Errorf("%s: warmed up for %q, want %s twice", name, got, srv.addr)
		}
		echo(t, h)
		if tags := warm.ResolverOption.Dests[0].Tags; tags != nil {
			t.Errorf("%s: the caller's options have tags now: %v", name, tags)
		}
	}
}

// TestAtRest: a Conn whose services do not change asks etcd one question now and then, however many they are: for its revision, which costs
// etcd neither a search nor a sort.
func TestAtRest(t *testing.T) {
	const services, pause = 20, 450 * time.Millisecond // between two questions, at least
	type question struct {
		*etcdserverpb.RangeRequest
		at time.Time
	}
	asked := make(chan question, 1000)
	cluster := etcdtest.Start(t, etcdtest.WithConfig(func(cfg *embed.Config) {
		cfg.GRPCAdditionalServerOptions = append(cfg.GRPCAdditionalServerOptions, grpc.ChainUnaryInterceptor(
			func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
				if req, ok := req.(*etcdserverpb.RangeRequest); ok {
					asked <- question{req, time.Now()}
				}
				return handler(ctx, req)
			}))
	}))
	cli := etcdClient(t, cluster.Endpoints())
	c := connect(t, cluster, withTiming(func(t *discovery.Timing) { t.Check, t.Idle = pause*4/9, time.Hour }))
	for i := range services {
		put(t, cli, fieldService(i), "a:1")
		await(t, c, fieldService(i), "a:1")
	}
	for len(asked) > 0 { // for the lists
		<-asked
	}
	first := <-asked
	last := first
	for range 3 {
		last = <-asked
		if !last.CountOnly || last.SortOrder != etcdserverpb.RangeRequest_NONE || len(last.RangeEnd) > 0 {
			t.Errorf("etcd was asked %v", last.RangeRequest)
		}
	}
	if took := last.at.Sub(first.at); took < 2*pause {
		t.Errorf("four questions in %v", took)
	}
}
