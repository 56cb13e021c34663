package test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cloudwego/kitex/client"
	"github.com/cloudwego/kitex/pkg/discovery"
	"github.com/cloudwego/kitex/pkg/loadbalance"
	"github.com/cloudwego/kitex/pkg/retry"
	"github.com/cloudwego/kitex/pkg/rpcinfo"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/kitex-contrib/kitex-etcd/golden/thrift_unary/kitex_gen/api"
	"github.com/kitex-contrib/kitex-etcd/golden/thrift_unary/kitex_gen/api/hello"
	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
	"github.com/kitex-contrib/kitex-etcd/runtime/etcdtest"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/faultproxy"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/record"
)

type laneKey struct{}

func laneOf(ctx context.Context) string {
	lane, _ := ctx.Value(laneKey{}).(string)
	return lane
}

func inLane(lane string) context.Context {
	return context.WithValue(context.Background(), laneKey{}, lane)
}

// putTagged registers addr with a tag; an empty value is no tag.
func putTagged(t *testing.T, cli *clientv3.Client, service, addr, tag, value string) {
	t.Helper()
	tags := "null"
	if value != "" {
		tags = fmt.Sprintf(`{%q:%q}`, tag, value)
	}
	text := fmt.Sprintf(`{"network":"tcp","address":%q,"weight":10,"tags":%s}`, addr, tags)
	if _, err := cli.Put(testContext(t), record.Key(etcd.DefaultPrefix, service, addr), text); err != nil {
		t.Fatal(err)
	}
}

var routingBalancers = map[string][]client.Option{
	"standard":    nil,
	"random":      {client.WithLoadBalancer(loadbalance.NewWeightedRandomBalancer())},
	"alias":       {client.WithLoadBalancer(loadbalance.NewWeightedRandomWithAliasMethodBalancer())},
	"interleaved": {client.WithLoadBalancer(loadbalance.NewInterleavedWeightedRoundRobinBalancer())},
	"consistent hash": {client.WithLoadBalancer(loadbalance.NewConsistBalancer(loadbalance.NewConsistentHashOption(
		func(_ context.Context, req any) string {
			if args, ok := req.(*api.HelloEchoArgs); ok {
				return args.Req.Message
			}
			return fmt.Sprint(time.Now().UnixNano()) // a stream
		})))},
}

// TestLaneFallsBack has a base of three servers and a lane of one, which leaves by itself, comes back, cannot be reached, and comes back.
// Calls of the lane go to it while it is there and to the base while it is not; no call fails, and no other call goes to the lane.
func TestLaneFallsBack(t *testing.T) {
	t.Parallel()
	for name, opts := range routingBalancers {
		for _, order := range []string{"before", "after"} {
			t.Run(name+", lane "+order, func(t *testing.T) {
				t.Parallel()
				cluster := etcdtest.Start(t)
				cli := etcdClient(t, cluster.Endpoints())
				base := make(map[string]bool)
				for range 3 {
					addr := serveHello(t).addr
					base[addr] = true
					putTagged(t, cli, "Hello", addr, "lane", "")
				}
				way := faultproxy.Start(t, serveHello(t).addr)
				lane := way.Addr()
				putTagged(t, cli, "Hello", lane, "lane", "x")
				putTagged(t, cli, "Hello", serveHello(t).addr, "lane", "y") // another lane

				conn := connect(t, cluster)
				all := append([]client.Option{longPool(), client.WithConnectTimeout(time.Second), client.WithRPCTimeout(time.Second)}, opts...)
				if order == "before" {
					all = append([]client.Option{etcd.Lane("lane", laneOf)}, all...)
				} else {
					all = append(all, etcd.Lane("lane", laneOf))
				}
				c := newHello(t, conn, all...)
				call := func(lane string) string {
					t.Helper()
					resp, err := c.Echo(inLane(lane), &api.Request{Message: fmt.Sprint(time.Now().UnixNano())})
					if err != nil {
						t.Fatalf("a call of lane %q: %v", lane, err)
					}
					return resp.Message
				}
				// goes waits until calls of the lane go to it, or to the base, and checks those that have no lane, or one that nobody serves.
				goes := func(toLane bool) {
					t.Helper()
					eventually(t, fmt.Sprintf("calls of the lane go to it: %v", toLane), func() bool { return base[call("x")] != toLane })
					for range 30 {
						if got := call("x"); base[got] == toLane {
							t.Fatalf("a call of the lane went to %s", got)
						}
						for _, other := range []string{"", "unserved"} {
							if got := call(other); !base[got] {
								t.Fatalf("a call of lane %q went to %s", other, got)
							}
						}
					}
				}
				goes(true)
				remove(t, cli, "Hello", lane)
				goes(false)
				putTagged(t, cli, "Hello", lane, "lane", "x")
				goes(true)
				way.Shut()
				// Those on connections that were just cut may fail.
				eventually(t, "calls succeed", func() bool { return succeed(inLane("x"), c) })
				goes(false)
				way.Open(t)
				goes(true)
			})
		}
	}
}

// succeed says whether ten calls in a row get an answer.
func succeed(ctx context.Context, c hello.Client) bool {
	for range 10 {
		if _, err := c.Echo(ctx, &api.Request{Message: fmt.Sprint(time.Now().UnixNano())}); err != nil {
			return false
		}
	}
	return true
}

// anyErrorAgain has Kitex repeat a call that failed, whatever the error, as docs/routing.md has it.
func anyErrorAgain() client.Option {
	return client.WithFailureRetry(retry.NewFailurePolicyWithResultRetry(retry.AllErrorRetry()))
}

// goes waits until calls, which others count, go on to one side while those to the other have ended.
func goes(t *testing.T, what string, to, not *atomic.Int64) {
	t.Helper()
	eventually(t, what, func() bool {
		ended, began := not.Load(), to.Load()
		eventually(t, what, func() bool { return t.Failed() || to.Load() >= began+50 })
		return t.Failed() || not.Load() == ended
	})
}

// TestPreferZone has three zones of two servers, and callers in one of them all the time. All calls stay in the zone while enough of it is
// usable. The zone is killed, and comes back; Kitex may repeat what was under way. No call fails.
func TestPreferZone(t *testing.T) {
	t.Parallel()
	for name, opts := range routingBalancers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cluster := etcdtest.Start(t)
			cli := etcdClient(t, cluster.Endpoints())
			zones := make(map[string]string)
			var local []*faultproxy.Proxy
			for _, zone := range []string{"a", "b", "c"} {
				for range 2 {
					srv := serveHello(t)
					zones[srv.addr] = zone
					if zone != "a" {
						putTagged(t, cli, "Hello", srv.addr, "zone", zone)
						continue
					}
					way := faultproxy.Start(t, srv.addr)
					local = append(local, way)
					putTagged(t, cli, "Hello", way.Addr(), "zone", zone)
				}
			}
			c := newHello(t, connect(t, cluster), append([]client.Option{etcd.Prefer("zone", "a", 2), longPool(), client.WithConnectTimeout(2 * time.Second),
				client.WithRPCTimeout(5 * time.Second), anyErrorAgain()}, opts...)...)
			var near, far atomic.Int64
			ctx, cancel := context.WithCancel(t.Context())
			var callers sync.WaitGroup
			defer callers.Wait()
			defer cancel()
			for i := range 4 {
				callers.Go(func() {
					for n := 0; ctx.Err() == nil; n++ {
						resp, err := c.Echo(context.Background(), &api.Request{Message: fmt.Sprint(i, n)})
						switch {
						case err != nil:
							t.Errorf("a call failed: %v", err)
						case zones[resp.Message] == "a":
							near.Add(1)
						default:
							far.Add(1)
						}
					}
				})
			}
			goes(t, "calls stay in the zone", &near, &far)
			if n := far.Load(); n > 0 {
				t.Errorf("%d calls left the zone while all of it was usable", n)
			}
			for _, way := range local {
				way.Shut()
			}
			goes(t, "the zone was killed: its calls go to the others", &far, &near)
			for _, way := range local {
				way.Open(t)
			}
			goes(t, "the zone is back", &near, &far)
			local[0].Shut()
			left := far.Load()
			eventually(t, "one of the zone is not enough: calls go to all", func() bool { return t.Failed() || far.Load() >= left+50 })
		})
	}
}

// TestARetryKeepsAwayFromAllThatFailed: a call whose zone of two hangs is answered by its second retry. Kitex says only where the
// attempt before went, which leaves the first one of the zone to go to again.
func TestARetryKeepsAwayFromAllThatFailed(t *testing.T) {
	t.Parallel()
	for name, opts := range routingBalancers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cluster := etcdtest.Start(t)
			cli := etcdClient(t, cluster.Endpoints())
			var local []*faultproxy.Proxy
			far := make(map[string]bool)
			for range 2 {
				way := faultproxy.Start(t, serveHello(t).addr)
				local = append(local, way)
				putTagged(t, cli, "Hello", way.Addr(), "zone", "a")
				addr := serveHello(t).addr
				far[addr] = true
				putTagged(t, cli, "Hello", addr, "zone", "b")
			}
			c := newHello(t, connect(t, cluster), append([]client.Option{etcd.Prefer("zone", "a", 1), longPool(), client.WithConnectTimeout(2 * time.Second),
				client.WithRPCTimeout(500 * time.Millisecond), anyErrorAgain()}, opts...)...)
			eventually(t, "both of the zone answered", func() bool {
				for range 5 { // 50 calls: Kitex repeats none when one of ten failed
					if !succeed(t.Context(), c) {
						t.Fatal("a call failed before anything happened")
					}
				}
				return local[0].Made() > 0 && local[1].Made() > 0
			})
			for _, way := range local {
				way.BlackHole()
			}
			resp, err := c.Echo(t.Context(), &api.Request{Message: "which?"})
			if err != nil || !far[resp.Message] {
				t.Fatalf("%v, %v", resp, err)
			}
		})
	}
}

// TestRoutesRefuseBadInput in the constructor.
func TestRoutesRefuseBadInput(t *testing.T) {
	t.Parallel()
	conn, err := etcd.Connect([]string{"127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	none := func(context.Context) string { return "" }
	for name, tc := range map[string]struct {
		opts []client.Option
		says string
	}{
		"no tag to prefer":   {[]client.Option{etcd.Prefer("", "a", 1)}, "Prefer("},
		"no value to prefer": {[]client.Option{etcd.Prefer("zone", "", 1)}, "Prefer("},
		"at least none":      {[]client.Option{etcd.Prefer("zone", "a", 0)}, "Prefer("},
		"two preferences":    {[]client.Option{etcd.Prefer("zone", "a", 1), etcd.Prefer("zone", "b", 1)}, `Prefer("zone", "b", 1)`},
		"no tag of a lane":   {[]client.Option{etcd.Lane("", none)}, "Lane("},
		"no function":        {[]client.Option{etcd.Lane("lane", nil)}, "Lane("},
		"two lanes":          {[]client.Option{etcd.Lane("lane", none), etcd.Lane("other", none)}, "Lane("},
	} {
		if _, err := hello.NewHelloClientWithEtcd(conn, tc.opts...); err == nil || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s: %v, want an error with %q", name, err, tc.says)
		}
	}
	if _, err := hello.NewHelloClientWithEtcd(conn, etcd.Prefer("zone", "a", 1), etcd.Prefer("zone", "a", 1), etcd.Lane("lane", none)); err != nil {
		t.Errorf("the same preference twice: %v", err)
	}
}

// TestRoutesWithoutConn: clients that find their instances by another resolver each obey their own options, although Kitex keeps
// balancers of one name for the whole process.
func TestRoutesWithoutConn(t *testing.T) {
	t.Parallel()
	servers := make(map[string]string) // address by tag
	var list []discovery.Instance
	for _, tag := range []string{"a", "b", ""} {
		servers[tag] = serveHello(t).addr
		list = append(list, discovery.NewInstance("tcp", servers[tag], 10, map[string]string{"zone": tag, "lane": tag}))
	}
	resolver := &discovery.SynthesizedResolver{
		TargetFunc: func(_ context.Context, to rpcinfo.EndpointInfo) string { return to.ServiceName() },
		ResolveFunc: func(_ context.Context, desc string) (discovery.Result, error) {
			return discovery.Result{Cacheable: true, CacheKey: desc, Instances: list}, nil
		},
		NameFunc: func() string { return servers[""] }, // of this run: Kitex keeps what it knows by this name
	}
	lane := func(name string) client.Option {
		return etcd.Lane("lane", func(context.Context) string { return name })
	}
	for _, tc := range []struct {
		opt  client.Option
		want string
	}{
		{etcd.Prefer("zone", "a", 1), "a"},
		{etcd.Prefer("zone", "b", 1), "b"},
		{lane("a"), "a"},
		{lane("b"), "b"},
		{lane("c"), ""},
	} {
		c, err := hello.NewClient("Hello", client.WithResolver(resolver), tc.opt, closedAfter(t))
		if err != nil {
			t.Fatal(err)
		}
		for range 10 {
			resp, err := c.Echo(testContext(t), &api.Request{})
			if err != nil {
				t.Fatal(err)
			}
			if resp.Message != servers[tc.want] {
				t.Errorf("a call went to %s, want that with the tag %q", resp.Message, tc.want)
			}
		}
	}
}

// TestRoutesComeLast: a client that is made by hand may give its routes after the options of the Conn, and its balancer after
// these. The lane is first, then the zone within it.
func TestRoutesComeLast(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Start(t)
	cli := etcdClient(t, cluster.Endpoints())
	servers := make(map[string]string) // by address
	for _, tags := range []string{`{"lane":"x","zone":"a"}`, `{"lane":"x","zone":"b"}`, `{"zone":"a"}`, `{"zone":"b"}`, `{"lane":"y","zone":"a"}`} {
		addr := serveHello(t).addr
		servers[addr] = tags
		text := fmt.Sprintf(`{"network":"tcp","address":%q,"weight":10,"tags":%s}`, addr, tags)
		if _, err := cli.Put(testContext(t), record.Key(etcd.DefaultPrefix, "Hello", addr), text); err != nil {
			t.Fatal(err)
		}
	}
	lane := etcd.Lane("lane", laneOf)
	for name, opts := range routingBalancers {
		all := append(connect(t, cluster).ClientOptions(closedAfter(t)), lane, etcd.Prefer("zone", "a", 1), lane) // one option twice is one
		c, err := hello.NewClient("Hello", append(all, opts...)...)
		if err != nil {
			t.Fatal(err)
		}
		for range 20 {
			for lane, want := range map[string]string{"x": `{"lane":"x","zone":"a"}`, "": `{"zone":"a"}`, "unserved": `{"zone":"a"}`} {
				resp, err := c.Echo(inLane(lane), &api.Request{Message: fmt.Sprint(time.Now().UnixNano())})
				if err != nil {
					t.Fatal(err)
				}
				if got := servers[resp.Message]; got != want {
					t.Fatalf("%s: a call of lane %q went to %s, want %s", name, lane, got, want)
				}
			}
		}
	}
	defer func() {
		if recover() == nil {
			t.Error("Kitex's own constructor took a lane without a function")
		}
	}()
	_, _ = hello.NewClient("Hello", etcd.Lane("lane", nil))
}
