package picking

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cloudwego/kitex/client"
	kitex "github.com/cloudwego/kitex/pkg/discovery"
	"github.com/cloudwego/kitex/pkg/endpoint"
	"github.com/cloudwego/kitex/pkg/kerrors"
	"github.com/cloudwego/kitex/pkg/remote"
	"github.com/cloudwego/kitex/pkg/remote/trans/netpollmux"
	"github.com/cloudwego/kitex/pkg/rpcinfo"
	"github.com/cloudwego/kitex/pkg/rpcinfo/remoteinfo"
	"github.com/cloudwego/kitex/transport"

	"github.com/kitex-contrib/kitex-etcd/runtime/internal/health"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/roster"
)

// ejector keeps calls from the instances of one service that do not answer. Every attempt of the Conn's clients tells it
// what became of it; the pickers are built from what it leaves of a list. Safe for concurrent use.
type ejector struct {
	service string
	tracker *health.Tracker
	monitor *monitor

	left  atomic.Pointer[remainder] // of the last list; nil before the first that was shortened
	built *health.Set               // what the pickers leave out; the monitor's goroutine owns it
}

// remainder is a list without the excluded. It is never changed.
type remainder struct {
	of      []kitex.Instance
	without *health.Set
	list    []kitex.Instance
}

func newEjector(service string, m *monitor) *ejector {
	t := health.New(rand.Float64)
	return &ejector{service: service, tracker: t, monitor: m, built: t.Excluded()}
}

// usable returns what is left of list. It is list itself while nobody is excluded. A nil ejector excludes nobody.
func (e *ejector) usable(list []kitex.Instance) []kitex.Instance {
	if e == nil || e.tracker.Excluded().Len() == 0 {
		return list
	}
	return e.shorten(list)
}

func (e *ejector) shorten(list []kitex.Instance) []kitex.Instance {
	excluded := e.tracker.Excluded()
	if r := e.left.Load(); r != nil && roster.Same(r.of, list) && r.without == excluded {
		return r.list
	}
	r := &remainder{of: list, without: excluded, list: without(list, excluded.Has)}
	e.left.Store(r)
	return r.list
}

// follow tells the tracker of the service's list.
func (e *ejector) follow(list []kitex.Instance) {
	if e == nil {
		return
	}
	e.tracker.List(len(list), func(addr string) (any, bool) {
		i, found := slices.BinarySearchFunc(list, addr, func(inst kitex.Instance, addr string) int {
			return strings.Compare(inst.Address().String(), addr)
		})
		if !found {
			return nil, false
		}
		return list[i], true
	})
}

// without returns a new list without those whose address is out.
func without(list []kitex.Instance, out func(addr string) bool) []kitex.Instance {
	return slices.DeleteFunc(slices.Clone(list), func(inst kitex.Instance) bool { return out(inst.Address().String()) })
}

// watch is the instance middleware of one client: it sees every attempt, those included that Kitex retries by itself.
type watch struct {
	*ejector
	push    *pushBalancer
	probe   *prober
	remote  *remote.ClientOption       // of the client; complete when it is made
	svr     *rpcinfo.EndpointBasicInfo // of the client; has its target's description when it is made
	grpc    bool                       // its ConnPool is one of gRPC
	shared  bool                       // many calls share a connection: the transport does not keep a call's timeout when its caller leaves
	retries bool                       // the client has a policy for retries, which should go elsewhere
}

// prober makes connections as the client does.
type prober struct {
	dialer  remote.Dialer
	timeout time.Duration
}

func (p *prober) reach(network, addr string) bool {
	conn, err := p.dialer.DialTimeout(network, addr, p.timeout)
	if err != nil {
		return false
	}
	_ = conn.Close()
	return true
}

// newWatch returns the middleware of the client that o makes, whose balancer is p.
func newWatch(e *ejector, p *pushBalancer, o *client.Options) *watch {
	protocol := o.Configs.TransportProtocol()
	_, mux := o.RemoteOpt.ConnPool.(*netpollmux.MuxPool)
	return &watch{
		ejector: e,
		push:    p,
		probe:   &prober{o.RemoteOpt.Dialer, max(o.Configs.ConnectTimeout(), leastProbe)},
		remote:  o.RemoteOpt,
		svr:     o.Svr,
		grpc:    protocol&transport.GRPC != 0,
		shared:  protocol&(transport.GRPC|transport.GRPCStreaming) != 0 || mux,
		retries: o.UnaryOptions.RetryContainer != nil || len(o.UnaryOptions.RetryMethodPolicies) > 0,
	}
}

// leastProbe is the least time for a probe: it is on nobody's way.
const leastProbe = 200 * time.Millisecond

// failedTag holds, within one call, the addresses that it got no connection to, with a space after each.
const failedTag = "kitex-etcd-failed"

// clockBase is what attempts are timed from: time.Since reads one clock, time.Now two.
var clockBase = time.Now()

func (w *watch) middleware(next endpoint.Endpoint) endpoint.Endpoint {
	tracker, retries, shared := w.tracker, w.retries, w.shared // at hand: most attempts need no more
	return func(ctx context.Context, req, resp any) error {
		if retries || !tracker.Quiet() {
			w.divert(ctx, req)
		}
		var began time.Duration
		if shared {
			began = time.Since(clockBase)
		}
		err := next(ctx, req, resp)
		if err == nil && tracker.Quiet() {
			return nil
		}
		return w.learn(ctx, resp, err, began)
	}
}

// target returns whom the attempt is for; false if that is not an instance of the service.
func (w *watch) target(ctx context.Context) (rpcinfo.RPCInfo, remoteinfo.RemoteInfo, *roster.Instance, bool) {
	ri := rpcinfo.GetRPCInfo(ctx)
	if ri == nil {
		return nil, nil, nil, false
	}
	to := remoteinfo.AsRemoteInfo(ri.To())
	if to == nil || to.ServiceName() != w.service {
		return nil, nil, nil, false
	}
	inst, ok := to.GetInstance().(*roster.Instance) // others were chosen by the caller
	return ri, to, inst, ok
}

// divert sends an attempt elsewhere that is about to go to an ejected instance, or to one that the same call failed on. Kitex says only
// where the attempt before went, so a retry keeps away from all instances that failed lately.
func (w *watch) divert(ctx context.Context, req any) {
	_, to, inst, ok := w.target(ctx)
	if !ok {
		return
	}
	last, retry := to.Tag(rpcinfo.RetryPrevInstTag)
	if !retry && w.tracker.Quiet() {
		return
	}
	failed, _ := to.Tag(failedTag)
	avoid := addrList(failed + last)
	addr := inst.Address().String()
	if suspects := w.suspects(retry); suspects != "" && (avoid.has(addr) || suspects.has(addr)) {
		if other := w.push.other(ctx, req, w.svr.Tags[targetTag], suspects+avoid); other != nil {
			to.SetInstance(other)
			return
		}
	}
	if !avoid.has(addr) {
		ok, news := w.tracker.Begin(addr, time.Now())
		if news {
			w.monitor.kick()
		}
		if ok {
			return
		}
	}
	if other := w.push.other(ctx, req, w.svr.Tags[targetTag], avoid); other != nil {
		to.SetInstance(other)
	}
}

// suspects returns those that a retry should not go to, with a space after each.
func (w *watch) suspects(retry bool) (list addrList) {
	if !retry {
		return ""
	}
	for _, addr := range w.tracker.Suspects() {
		list += addrList(addr) + " "
	}
	return list
}

// learn takes what became of an attempt, and returns its error.
func (w *watch) learn(ctx context.Context, resp any, err error, began time.Duration) error {
	ri, to, inst, ok := w.target(ctx)
	if !ok {
		return err
	}
	a := newAttempt(ctx, ri, resp, err)
	if w.shared {
		a.took = time.Since(clockBase) - began
	}
	signal, ok := a.signal()
	if !ok {
		return err
	}
	addr := inst.Address().String()
	if w.tracker.Report(addr, inst, signal, w.probe, err, time.Now()) {
		w.monitor.kick()
	}
	if signal == health.NoConnection {
		w.letGo(inst.Address())
	}
	if none := errors.Is(err, kerrors.ErrGetConnection); none || signal == health.NoConnection || signal == health.DialTimeout {
		failed, _ := to.Tag(failedTag)
		to.ForceSetTag(failedTag, failed+addr+" ")
		if a.opening && !none {
			return kerrors.ErrGetConnection.WithCause(err) // has Kitex try another instance, as for calls
		}
	}
	return err
}

// letGo ends connections of gRPC to an address that refuses new ones; calls that are under way may end. Kitex does not notice that a
// connection ends before the server has sent anything, as when it is killed in that moment: a call on such a connection
// hangs for its timeout, and so would every so many calls of the server that comes back at the address, for ever.
func (w *watch) letGo(addr net.Addr) {
	pools := []remote.ConnPool{w.remote.GRPCStreamingConnPool, nil}
	if w.grpc {
		pools[1] = w.remote.ConnPool
	}
	for _, pool := range pools {
		if long, ok := pool.(remote.LongConnPool); ok {
			long.Clean(addr.Network(), addr.String())
		}
	}
}
