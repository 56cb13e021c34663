package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cloudwego/kitex/client"
	"github.com/cloudwego/kitex/pkg/discovery"
	"github.com/cloudwego/kitex/pkg/endpoint"
	"github.com/cloudwego/kitex/pkg/loadbalance"
	"github.com/cloudwego/kitex/pkg/loadbalance/lbcache"
	"github.com/cloudwego/kitex/pkg/remote"
	"github.com/cloudwego/kitex/pkg/remote/trans/gonet"
	"github.com/cloudwego/kitex/pkg/remote/trans/netpoll"
	"github.com/cloudwego/kitex/pkg/rpcinfo"
	"github.com/cloudwego/kitex/pkg/utils"
	"github.com/cloudwego/kitex/server"
	old "github.com/kitex-contrib/registry-etcd"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/kitex-contrib/kitex-etcd/example/plain/kitex_gen/api"
	"github.com/kitex-contrib/kitex-etcd/example/plain/kitex_gen/api/hello"
	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
)

// A caller is a Kitex client as a program has it, one that tells when its balancer can pick an instance.
type caller struct {
	hello.Client
	picked atomic.Pointer[string] // the address of the last call
}

// callerOptions say how a caller differs from others.
type callerOptions struct {
	endpoints []string                                      // of etcd
	etcd      func(*clientv3.Config)                        // changes the etcd client; may be nil
	server    string                                        // where all calls end, whichever address was picked; empty means at that address
	balancer  loadbalance.Loadbalancer                      // nil means Kitex's choice, or that of options
	cache     lbcache.Options                               // how long Kitex keeps what it has found
	timeout   time.Duration                                 // of a call; 0 means 3 s
	conn      []etcd.Option                                 // of ours
	options   []client.Option                               // more of them
	attempted func(addr string, begun time.Time, err error) // told of every attempt; may be nil
}

// newCaller returns a client of a service through ours or the predecessor. It is as if in a process of its own: it shares
// neither connection nor cache with another.
func (b *bench) newCaller(lib, service string, o callerOptions) (*caller, error) {
	c := new(caller)
	opts := []client.Option{
		client.WithRPCTimeout(cmp.Or(o.timeout, 3*time.Second)),
		client.WithInstanceMW(func(next endpoint.Endpoint) endpoint.Endpoint {
			return func(ctx context.Context, req, resp any) error {
				addr := rpcinfo.GetRPCInfo(ctx).To().Address().String()
				c.picked.Store(&addr)
				begun := time.Now()
				err := next(ctx, req, resp)
				if o.attempted != nil {
					o.attempted(addr, begun, err)
				}
				return err
			}
		}),
		client.TailOption(client.Option{F: func(made *client.Options, _ *utils.Slice) {
			b.cleanup(func() {
				for _, f := range made.CloseCallbacks {
					_ = f()
				}
			})
		}}),
	}
	opts = append(opts, o.options...)
	if o.balancer != nil {
		opts = append(opts, client.WithLoadBalancer(o.balancer, &o.cache))
	}
	if o.server != "" {
		opts = append(opts, client.WithDialer(detour{netpoll.NewDialer(), o.server}))
	}
	mine, theirs := configured(o.etcd)
	switch lib {
	case ours:
		conn, err := etcd.Connect(o.endpoints, append(o.conn, mine)...)
		if err != nil {
			return nil, err
		}
		b.cleanup(func() { _ = conn.Close() })
		opts = conn.ClientOptions(opts...)
	case before:
		r, err := old.NewEtcdResolver(o.endpoints, theirs)
		if err != nil {
			return nil, err
		}
		opts = append(opts, client.WithResolver(alone{r, fmt.Sprintf("etcd-%d", resolvers.Add(1))}))
	}
	var err error
	c.Client, err = hello.NewClient(service, opts...)
	return c, err
}

// call makes one call and says which instance it went to, if any.
func (c *caller) call(ctx context.Context) (addr string, err error) {
	_, err = c.Echo(ctx, &api.Request{Message: "hello"})
	if picked := c.picked.Load(); picked != nil {
		addr = *picked
	}
	return addr, err
}

// alone keeps a resolver from sharing Kitex's cache with others of its kind, as if its process were another.
type alone struct {
	discovery.Resolver
	name string
}

var resolvers atomic.Int64

func (a alone) Name() string { return a.name }

// detour dials one server whatever the address.
type detour struct {
	remote.Dialer
	server string
}

func (d detour) DialTimeout(network, _ string, timeout time.Duration) (net.Conn, error) {
	return d.Dialer.DialTimeout(network, d.server, timeout)
}

// A probe is Kitex's standard balancer, which tells of the instances that are added to its pickers.
type probe struct {
	loadbalance.Loadbalancer
	handed func(addr string) // a list with it has arrived; may be nil
	saw    func(addr string) // the next call can pick it
}

func newProbe(handed, saw func(addr string)) probe {
	return probe{loadbalance.NewWeightedBalancer(), handed, saw}
}

func (p probe) Rebalance(ch discovery.Change) {
	if p.handed != nil {
		for _, i := range ch.Added {
			p.handed(i.Address().String())
		}
	}
	p.Loadbalancer.(loadbalance.Rebalancer).Rebalance(ch)
	p.GetPicker(ch.Result) // the standard balancer builds the picker here
	for _, i := range ch.Added {
		p.saw(i.Address().String())
	}
}

func (p probe) Delete(ch discovery.Change) { p.Loadbalancer.(loadbalance.Rebalancer).Delete(ch) }

// A view is Kitex's standard balancer, which tells from which instances the next call can pick.
type view struct {
	loadbalance.Loadbalancer
	list atomic.Pointer[[]discovery.Instance]
}

func newView() *view { return &view{Loadbalancer: loadbalance.NewWeightedBalancer()} }

func (v *view) GetPicker(res discovery.Result) loadbalance.Picker {
	v.list.CompareAndSwap(nil, &res.Instances) // no change tells of the first list
	return v.Loadbalancer.GetPicker(res)
}

func (v *view) Rebalance(ch discovery.Change) {
	v.Loadbalancer.(loadbalance.Rebalancer).Rebalance(ch)
	v.list.Store(&ch.Result.Instances)
}

func (v *view) Delete(ch discovery.Change) { v.Loadbalancer.(loadbalance.Rebalancer).Delete(ch) }

func (v *view) has(addr string) bool {
	list := v.list.Load()
	return list != nil && slices.ContainsFunc(*list, func(i discovery.Instance) bool { return i.Address().String() == addr })
}

func (v *view) empty() bool {
	list := v.list.Load()
	return list != nil && len(*list) == 0
}

// arrivals notes when awaited addresses arrive.
type arrivals struct {
	mu      sync.Mutex
	awaited map[string]chan time.Time
}

func (a *arrivals) expect(addr string) <-chan time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.awaited == nil {
		a.awaited = make(map[string]chan time.Time)
	}
	ch := make(chan time.Time, 1)
	a.awaited[addr] = ch
	return ch
}

func (a *arrivals) saw(addr string) {
	now := time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	if ch := a.awaited[addr]; ch != nil {
		ch <- now
		delete(a.awaited, addr)
	}
}

// echoServer answers calls of Hello.
type echoServer struct{ addr string }

func (s *echoServer) Echo(_ context.Context, req *api.Request) (*api.Response, error) {
	return &api.Response{Message: req.Message, Server: s.addr}, nil
}

// serve runs a server that is not registered, until the family ends. It is on Kitex's gonet transport: the netpoll one
// closes other servers' sockets when it is stopped.
func (b *bench) serve() (addr string, err error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	s := &echoServer{ln.Addr().String()}
	svr := hello.NewServer(s,
		server.WithListener(ln),
		server.WithTransServerFactory(gonet.NewTransServerFactory()),
		server.WithTransHandlerFactory(gonet.NewSvrTransHandlerFactory()),
		server.WithExitWaitTime(100*time.Millisecond), // whose calls they were does not wait any more
		server.WithExitSignal(func() <-chan error { return nil }),
	)
	ran := make(chan error, 1)
	go func() { ran <- svr.Run() }()
	b.cleanup(func() { _ = errors.Join(svr.Stop(), <-ran) })
	return s.addr, nil
}
