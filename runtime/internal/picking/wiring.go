package picking

import (
	"context"
	"maps"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"weak"

	"github.com/cloudwego/kitex/client"
	kitex "github.com/cloudwego/kitex/pkg/discovery"
	"github.com/cloudwego/kitex/pkg/endpoint"
	"github.com/cloudwego/kitex/pkg/klog"
	"github.com/cloudwego/kitex/pkg/loadbalance"
	"github.com/cloudwego/kitex/pkg/loadbalance/lbcache"
	"github.com/cloudwego/kitex/pkg/remote/trans/ttstream"
	"github.com/cloudwego/kitex/pkg/warmup"

	"github.com/kitex-contrib/kitex-etcd/runtime/internal/discovery"
)

// Kitex's own intervals, for options that leave them open (lbcache.Options).
const (
	kitexRefresh = 5 * time.Second
	kitexExpire  = 15 * time.Second
)

// Wiring puts a pushBalancer in front of the load balancer of every client of a Conn. All clients of the process with the same
// intervals share one, which tells the Conns and the clients' balancers apart by the target's description.
type Wiring struct {
	cfg      Config
	id       string // names the Conn in the descriptions of targets
	resolver *Resolver
	monitor  *monitor

	mu      sync.Mutex                          // guards what follows
	own     map[string]loadbalance.Loadbalancer // by id, what clients chose
	lastOwn int                                 // how many there were
	skipped bool                                // a client that cannot be wired was reported
}

// wirings are those of the process, by id. They are held weakly: the Conn and its clients keep a Wiring alive. Kitex's caches hold
// descriptions of its targets for a while longer, which then name nothing.
var (
	wirings    sync.Map // of weak.Pointer[Wiring]
	lastWiring atomic.Uint64
)

// wiringOf returns the one that an id in a target's description belongs to, nil if it is gone.
func wiringOf(id string) *Wiring {
	id, _, _ = strings.Cut(id, ".")
	if w, ok := wirings.Load(id); ok {
		return w.(weak.Pointer[Wiring]).Value()
	}
	return nil
}

// Config is what a Wiring is made of.
type Config struct {
	Directory *discovery.Directory
	KeepAll   bool                                     // instances that do not answer are called on
	Start     func(func(running context.Context)) bool // runs a function on a goroutine of the Conn's, unless that is closed
	Notify    func(Event)                              // is told what happens; must not block
}

// Event tells that an instance was ejected because it does not answer, or that it is called again.
type Event struct {
	Service, Address string
	Ejected          bool
	Err              error // of the attempt that led to the ejection
}

// New returns a Wiring without clients.
func New(cfg Config) *Wiring {
	id := strconv.FormatUint(lastWiring.Add(1), 10)
	w := &Wiring{
		cfg:      cfg,
		id:       id,
		resolver: &Resolver{dir: cfg.Directory, name: sharedName + "-" + id},
		own:      make(map[string]loadbalance.Loadbalancer),
	}
	w.monitor = newMonitor(w)
	wirings.Store(id, weak.Make(w))
	runtime.AddCleanup(w, func(id string) { wirings.Delete(id) }, id)
	return w
}

// Ejected returns how many instances of a service are not called because they do not answer.
func (w *Wiring) Ejected(service string) int { return w.monitor.ejected(service) }

// Resolver returns Kitex's view of the directory.
func (w *Wiring) Resolver() *Resolver { return w.resolver }

// Wire gives a client the pushing balancer instead of its own. It runs after all options.
func (w *Wiring) Wire(o *client.Options) {
	if _, ok := o.Balancer.(*pushBalancer); ok {
		return // the options of this Conn were given twice
	}
	if o.Resolver != kitex.Resolver(w.resolver) || o.Proxy != nil {
		w.skip(o.Svr.ServiceName)
		return
	}
	cache := lbcache.Options{DiagnosisService: o.DebugService}
	if o.BalancerCacheOpt != nil {
		cache = *o.BalancerCacheOpt
	}
	cache.Cacheable = true
	if cache.RefreshInterval <= 0 {
		cache.RefreshInterval = kitexRefresh
	}
	if cache.ExpireInterval <= 0 {
		cache.ExpireInterval = kitexExpire
	}
	// The service is followed from now on, so that its first call finds it known. An error is that of the call.
	_, _ = w.cfg.Directory.Service(o.Svr.ServiceName)
	pusher := pusherOf(cache)
	id := w.id
	if o.Balancer != nil {
		id = w.adopt(o.Balancer)
	}
	w.tell(o, pusher, id)
	o.Resolver, o.Balancer, o.BalancerCacheOpt = sharedResolver{}, pusher, &cache
	explain := w.resolver.explainEmpty
	o.MWBs = append(o.MWBs, w.resolver.awaitFirst, func(context.Context) endpoint.Middleware { return explain })
	if e := w.monitor.ejector(o.Svr.ServiceName); e != nil {
		watch := newWatch(e, pusher, o).middleware
		o.IMWBs = append(o.IMWBs, func(context.Context) endpoint.Middleware { return watch })
	}
	// Kitex's default pool for streams of TTHeader stays locked after a connection that could not be made: every later
	// stream to that address would hang. The caller's own choice comes after this one and wins.
	o.TTHeaderStreamingOptions.TransportOptions = append(
		[]ttstream.ClientHandlerOption{ttstream.WithClientLongConnPool(ttstream.DefaultLongConnConfig)},
		o.TTHeaderStreamingOptions.TransportOptions...)
}

// tell has the description of a client's targets name id, which is let go of with the client. The callback keeps the Wiring alive as long
// as the client.
func (w *Wiring) tell(o *client.Options, p *pushBalancer, id string) {
	o.Svr.Tags[targetTag] = joinTarget(o.Svr.ServiceName, id)
	if warm := o.WarmUpOption; warm != nil && warm.ResolverOption != nil {
		o.WarmUpOption = warmed(warm, id)
	}
	o.CloseCallbacks = append(o.CloseCallbacks, func() error {
		if w.disown(id) {
			p.release(id)
		}
		return nil
	})
}

// warmed returns the options of a client's warm-up, whose targets name id.
func warmed(warm *warmup.ClientOption, id string) *warmup.ClientOption {
	all, resolver := *warm, *warm.ResolverOption
	all.ResolverOption = &resolver
	resolver.Dests = nil
	for _, dest := range warm.ResolverOption.Dests {
		d := *dest
		d.Tags = maps.Clone(d.Tags)
		if d.Tags == nil {
			d.Tags = make(map[string]string)
		}
		d.Tags[targetTag] = joinTarget(d.ServiceName, id)
		resolver.Dests = append(resolver.Dests, &d)
	}
	return &all
}

// adopt takes a client's own balancer, and returns its id.
func (w *Wiring) adopt(lb loadbalance.Loadbalancer) (id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lastOwn++
	id = w.id + "." + strconv.Itoa(w.lastOwn)
	w.own[id] = lb
	return id
}

// balancer returns a client's own; nil if it has none.
func (w *Wiring) balancer(id string) loadbalance.Loadbalancer {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.own[id]
}

// disown lets go of a client's own balancer, if it has one.
func (w *Wiring) disown(id string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, ok := w.own[id]
	delete(w.own, id)
	return ok
}

// reroute puts r in front of the balancer of a client that is wired already, and not yet used.
func reroute(o *client.Options, p *pushBalancer, r Route) {
	_, id := splitTarget(o.Svr.Tags[targetTag])
	w := wiringOf(id)
	if w == nil {
		return // the tag was changed: every call is told
	}
	if id == w.id {
		w.tell(o, p, w.adopt(routed(nil, r)))
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.own[id] = routed(w.own[id], r)
}

// skip says once that a client is on its own.
func (w *Wiring) skip(service string) {
	w.mu.Lock()
	first := !w.skipped
	w.skipped = true
	w.mu.Unlock()
	if first {
		klog.Infof("etcd: a client of %s was given another resolver or a proxy, and finds its instances by that alone", service)
	}
}
