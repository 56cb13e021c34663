package picking

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cloudwego/kitex/client"
	kitex "github.com/cloudwego/kitex/pkg/discovery"
	"github.com/cloudwego/kitex/pkg/endpoint"
	"github.com/cloudwego/kitex/pkg/klog"
	"github.com/cloudwego/kitex/pkg/loadbalance/lbcache"
	"github.com/cloudwego/kitex/pkg/remote/trans/ttstream"

	"github.com/kitex-contrib/kitex-etcd/runtime/internal/discovery"
)

// Kitex's own intervals, for options that leave them open (lbcache.Options).
const (
	kitexRefresh = 5 * time.Second
	kitexExpire  = 15 * time.Second
)

// intervals are those at which Kitex refreshes and expires what it keeps of a service.
type intervals struct{ refresh, expire time.Duration }

// Wiring puts a pushBalancer in front of every client's load balancer. Kitex makes a factory with goroutines of its
// own for every resolver, balancer and pair of intervals, and never frees it: all clients of a Conn with the same
// intervals share one, which tells their balancers apart by the target's description.
type Wiring struct {
	cfg      Config
	resolver *Resolver
	monitor  *monitor
	lastID   atomic.Int64 // of a client with a balancer of its own

	mu      sync.Mutex // guards what follows, and Kitex's making of factories: two at once would give two for one key
	pushers map[intervals]*pushBalancer
	skipped bool // a client that cannot be wired was reported
}

// Config is what a Wiring is made of.
type Config struct {
	Directory *discovery.Directory
	ID        string // names the Conn in Kitex's process-wide caches: no other Wiring of the process has it

	KeepAll bool                                     // instances that do not answer are called on
	Start   func(func(running context.Context)) bool // runs a function on a goroutine of the Conn's, unless that is closed
	Notify  func(Event)                              // is told what happens; must not block
}

// Event tells that an instance was ejected because it does not answer, or that it is called again.
type Event struct {
	Service, Address string
	Ejected          bool
	Err              error // of the attempt that led to the ejection
}

// New returns a Wiring without clients.
func New(cfg Config) *Wiring {
	w := &Wiring{cfg: cfg, resolver: &Resolver{dir: cfg.Directory, id: cfg.ID}, pushers: make(map[intervals]*pushBalancer)}
	w.monitor = newMonitor(w)
	return w
}

// Ejected returns how many instances of a service are not called because they do not answer.
func (b *Wiring) Ejected(service string) int { return b.monitor.ejected(service) }

// all returns the pushing balancers.
func (b *Wiring) all() []*pushBalancer {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Collect(maps.Values(b.pushers))
}

// Resolver returns Kitex's view of the directory.
func (b *Wiring) Resolver() *Resolver { return b.resolver }

// Wire gives a client the pushing balancer in place of its own. It runs after all options.
func (b *Wiring) Wire(o *client.Options) {
	if _, ok := o.Balancer.(*pushBalancer); ok {
		return // the options of this Conn were given twice
	}
	if o.Resolver != kitex.Resolver(b.resolver) || o.Proxy != nil {
		b.skip(o.Svr.ServiceName)
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
	_, _ = b.cfg.Directory.Service(o.Svr.ServiceName)
	pusher, id := b.pusher(cache)
	if o.Balancer != nil {
		pusher.adopt(id, o.Balancer)
		tellApart(o, pusher, id)
	}
	o.Balancer, o.BalancerCacheOpt = pusher, &cache
	explain := b.resolver.explainEmpty
	o.MWBs = append(o.MWBs, b.resolver.awaitFirst, func(context.Context) endpoint.Middleware { return explain })
	if e := b.monitor.ejector(o.Svr.ServiceName); e != nil {
		watch := newWatch(e, pusher, o).middleware
		o.IMWBs = append(o.IMWBs, func(context.Context) endpoint.Middleware { return watch })
	}
	// Kitex's default pool for streams of TTHeader stays locked after a connection that could not be made: every later
	// stream to that address would hang. The caller's own choice comes after this one and wins.
	o.TTHeaderStreamingOptions.TransportOptions = append(
		[]ttstream.ClientHandlerOption{ttstream.WithClientLongConnPool(ttstream.DefaultLongConnConfig)},
		o.TTHeaderStreamingOptions.TransportOptions...)
}

// pusher returns the balancer for the intervals of cache, and an id that no other client has.
func (b *Wiring) pusher(cache lbcache.Options) (p *pushBalancer, id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	every := intervals{cache.RefreshInterval, cache.ExpireInterval}
	if p = b.pushers[every]; p == nil {
		p = newPushBalancer(b.resolver, b.monitor, cache)
		p.newID = b.newID
		b.pushers[every] = p
	}
	return p, b.newID()
}

// newID returns a name that no other client's balancer has.
func (b *Wiring) newID() string { return strconv.FormatInt(b.lastID.Add(1), 10) }

// skip says once that a client is on its own.
func (b *Wiring) skip(service string) {
	b.mu.Lock()
	first := !b.skipped
	b.skipped = true
	b.mu.Unlock()
	if first {
		klog.Infof("etcd: a client of %s was given another resolver or a proxy, and finds its instances by that alone", service)
	}
}
