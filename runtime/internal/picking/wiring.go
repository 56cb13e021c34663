package picking

import (
	"context"
	"strconv"
	"sync"
	"time"

	"github.com/cloudwego/kitex/client"
	kitex "github.com/cloudwego/kitex/pkg/discovery"
	"github.com/cloudwego/kitex/pkg/endpoint"
	"github.com/cloudwego/kitex/pkg/klog"
	"github.com/cloudwego/kitex/pkg/loadbalance/lbcache"

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
	resolver *Resolver

	mu      sync.Mutex // guards what follows, and Kitex's making of factories: two at once would give two for one key
	pushers map[intervals]*pushBalancer
	lastID  int  // of a client with a balancer of its own
	skipped bool // a client that cannot be wired was reported
}

// New returns the Wiring of the clients that find their instances in dir. id names the Conn in Kitex's process-wide caches:
// no other Wiring of the process has it.
func New(dir *discovery.Directory, id string) *Wiring {
	return &Wiring{resolver: &Resolver{dir: dir, id: id}, pushers: make(map[intervals]*pushBalancer)}
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
	pusher, id := b.pusher(cache)
	if o.Balancer != nil {
		pusher.adopt(id, o.Balancer)
		o.Svr.Tags[balancerTag] = joinTarget(o.Svr.ServiceName, id)
		o.CloseCallbacks = append(o.CloseCallbacks, func() error { pusher.release(id); return nil })
	}
	o.Balancer, o.BalancerCacheOpt = pusher, &cache
	explain := b.resolver.explainEmpty
	o.MWBs = append(o.MWBs, func(context.Context) endpoint.Middleware { return explain })
}

// pusher returns the balancer for the intervals of cache, and an id that no other client has.
func (b *Wiring) pusher(cache lbcache.Options) (p *pushBalancer, id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lastID++
	every := intervals{cache.RefreshInterval, cache.ExpireInterval}
	if p = b.pushers[every]; p == nil {
		p = newPushBalancer(b.resolver, cache)
		b.pushers[every] = p
	}
	return p, strconv.Itoa(b.lastID)
}

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
