// Package picking carries the snapshots of discovery into Kitex's balancers, whichever a client chose, at the moment that they
// change. Package etcd gives its Wiring to every client of a Conn.
//
// Kitex's way to an instance is client -> balancer cache -> balancer -> picker. A pushBalancer takes the balancer's place
// there, and has the client's own balancer build a new picker when the service changes. There is one pushBalancer for each
// pair of Kitex's intervals, and one pickerKey in it for each service as one balancer knows it:
//
//	          first GetPicker          built                Kitex's expiry; the client was closed
//	(unknown) ───────────────> opening ─────> ready ────────────────────────────────────────────> retired
//	                                          │   ^
//	                                          └───┘ the service has a new snapshot: built again
//
// A pickerKey's mutex is held while its balancer builds or deletes, so that an older picker cannot follow a newer one. The
// builds run on the goroutine that follows the service; calls read an atomic map.
package picking

import (
	"context"
	"errors"
	"maps"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/cloudwego/kitex/client"
	kitex "github.com/cloudwego/kitex/pkg/discovery"
	"github.com/cloudwego/kitex/pkg/klog"
	"github.com/cloudwego/kitex/pkg/loadbalance"
	"github.com/cloudwego/kitex/pkg/loadbalance/lbcache"
	"github.com/cloudwego/kitex/pkg/rpcinfo"

	"github.com/kitex-contrib/kitex-etcd/runtime/internal/discovery"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/roster"
)

// pushBalancer stands between Kitex and the balancers that clients chose. When a service changes it has them build their
// pickers at once, instead of at Kitex's next refresh.
type pushBalancer struct {
	resolver *Resolver
	monitor  *monitor
	standard loadbalance.Loadbalancer // of the clients that chose none
	newID    func() string            // names a client's balancer

	factory *lbcache.BalancerFactory // Kitex's cache in front of it
	prefix  string                   // of the CacheKeys that Kitex makes of target descriptions

	keys atomic.Pointer[map[string]*pickerKey] // by CacheKey; replaced, never changed: reading it takes no lock

	mu  sync.Mutex                          // guards own, and keys against two replacements at once
	own map[string]loadbalance.Loadbalancer // by id, what clients chose
}

func newPushBalancer(r *Resolver, m *monitor, cache lbcache.Options) *pushBalancer {
	p := &pushBalancer{
		resolver: r,
		monitor:  m,
		standard: loadbalance.NewWeightedBalancer(),
		prefix:   r.Name() + ":",
		own:      make(map[string]loadbalance.Loadbalancer),
	}
	p.keys.Store(&map[string]*pickerKey{})
	p.factory = lbcache.NewBalancerFactory(settledResolver{r}, p, cache)
	return p
}

// settledResolver is what Kitex's cache asks. The pickers have the newest instances already; what Kitex does besides
// when one has gone, the closing of its connections above all, cuts off calls on multiplexed connections as long as the
// server has not announced its end. So the cache hears of changes when they have settled.
type settledResolver struct{ *Resolver }

func (r settledResolver) Resolve(ctx context.Context, desc string) (kitex.Result, error) {
	s, list, err := r.list(ctx, desc)
	if err != nil {
		return kitex.Result{}, err
	}
	if settled, ok := s.Settled(); ok {
		list = settled
	}
	return kitex.Result{Cacheable: true, CacheKey: desc, Instances: list}, nil
}

// Settle has Kitex's cache take over what has settled, as its ticker does, and run its hooks.
func (k *pickerKey) Settle() {
	target := rpcinfo.NewEndpointInfo(k.service.Name(), "", nil, nil)
	if k.balancer != "" {
		target = rpcinfo.NewEndpointInfo(k.service.Name(), "", nil, map[string]string{balancerTag: joinTarget(k.service.Name(), k.balancer)})
	}
	k.guard(func() {
		if b, err := k.push.factory.Get(context.Background(), target); err == nil {
			b.Refresh()
		}
	})
}

// errForeignKey is never seen: such a result goes to the standard balancer.
var errForeignKey = errors.New("not of this resolver")

// adopt takes a client's own balancer.
func (p *pushBalancer) adopt(id string, lb loadbalance.Loadbalancer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.own[id] = lb
}

// route puts r in front of the balancer of a client that is wired already, and not yet used.
func (p *pushBalancer) route(o *client.Options, r Route) {
	_, id := splitTarget(o.Svr.Tags[balancerTag])
	if id == "" {
		id = p.newID()
		p.adopt(id, routed(nil, r))
		tellApart(o, p, id)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.own[id] = routed(p.own[id], r)
}

// tellApart has the target's description of a client name its balancer, which is let go of with the client.
func tellApart(o *client.Options, p *pushBalancer, id string) {
	o.Svr.Tags[balancerTag] = joinTarget(o.Svr.ServiceName, id)
	o.CloseCallbacks = append(o.CloseCallbacks, func() error { p.release(id); return nil })
}

// release lets go of the balancer of a client that was closed.
func (p *pushBalancer) release(id string) {
	p.mu.Lock()
	delete(p.own, id)
	p.mu.Unlock()
	for _, k := range *p.keys.Load() {
		if k.balancer == id {
			p.retire(k)
		}
	}
}

// Name is the same for all: Kitex adds the resolver's name and the intervals.
func (p *pushBalancer) Name() string { return "kitex-etcd" }

// GetPicker has the client's balancer pick from the instances as they are now.
func (p *pushBalancer) GetPicker(res kitex.Result) loadbalance.Picker {
	for {
		k, err := p.key(res.CacheKey)
		if err != nil {
			return p.standard.GetPicker(res)
		}
		res.Instances = k.ejector.usable(k.service.Use())
		picker := k.inner.GetPicker(res)
		if k.state.Load() == keyReady {
			return picker
		}
		// Kitex let go of the target meanwhile: what the balancer keeps now may be from older instances.
		if k, err = p.key(res.CacheKey); err == nil {
			k.rebuild()
		}
	}
}

// other has the client's balancer pick another instance than those to be avoided; nil if there is none.
func (p *pushBalancer) other(ctx context.Context, req any, to rpcinfo.EndpointInfo, avoid addrList) kitex.Instance {
	k, err := p.key(p.prefix + p.resolver.Target(ctx, to))
	if err != nil {
		return nil
	}
	return k.other(ctx, req, avoid)
}

// Rebalance is Kitex's refresh, which comes after the push.
func (p *pushBalancer) Rebalance(ch kitex.Change) {
	if k := p.find(ch); k != nil {
		k.Changed()
	}
}

// Delete is Kitex's expiry of a service that the client no longer calls.
func (p *pushBalancer) Delete(ch kitex.Change) {
	if k := p.find(ch); k != nil {
		p.retire(k)
	}
}

func (p *pushBalancer) find(ch kitex.Change) *pickerKey {
	return (*p.keys.Load())[ch.Result.CacheKey]
}

// key returns the ready entry of a target, made when it is new.
func (p *pushBalancer) key(cacheKey string) (*pickerKey, error) {
	for {
		k := (*p.keys.Load())[cacheKey]
		if k == nil {
			var err error
			if k, err = p.open(cacheKey); err != nil {
				return nil, err
			}
		}
		if k.state.Load() == keyReady {
			return k, nil
		}
		k.await()
	}
}

// open enters a target. Pushes reach it from before its first picker is built, so that none is missed.
func (p *pushBalancer) open(cacheKey string) (*pickerKey, error) {
	desc, ok := strings.CutPrefix(cacheKey, p.prefix)
	if !ok {
		return nil, errForeignKey
	}
	name, id := splitTarget(desc)
	s, err := p.resolver.dir.Service(name)
	if err != nil {
		return nil, err
	}
	k := &pickerKey{push: p, service: s, ejector: p.monitor.ejector(name), balancer: id, cacheKey: cacheKey}
	k.mu.Lock()
	defer k.mu.Unlock()
	if other := p.enter(k); other != nil {
		return other, nil
	}
	s.Attach(k)
	k.buildLocked()
	k.state.Store(keyReady)
	return k, nil
}

// enter adds k, unless another was there first, which it returns.
func (p *pushBalancer) enter(k *pickerKey) (other *pickerKey) {
	p.mu.Lock()
	defer p.mu.Unlock()
	keys := *p.keys.Load()
	if other = keys[k.cacheKey]; other != nil {
		return other
	}
	if k.inner = p.own[k.balancer]; k.inner == nil {
		k.inner = p.standard
	}
	keys = maps.Clone(keys)
	keys[k.cacheKey] = k
	p.keys.Store(&keys)
	return nil
}

// retire takes k out. The balancer forgets it before another entry can take its place.
func (p *pushBalancer) retire(k *pickerKey) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.state.Swap(keyRetired) == keyRetired {
		return
	}
	k.service.Detach(k)
	if rb, ok := k.inner.(loadbalance.Rebalancer); ok {
		k.guard(func() {
			rb.Delete(kitex.Change{Result: kitex.Result{Cacheable: true, CacheKey: k.cacheKey}})
			rb.Delete(kitex.Change{Result: kitex.Result{Cacheable: true, CacheKey: k.spareKey()}})
		})
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	keys := maps.Clone(*p.keys.Load())
	delete(keys, k.cacheKey)
	p.keys.Store(&keys)
}

// pickerKey is one target: one service as one balancer knows it.
type pickerKey struct {
	push     *pushBalancer
	service  *discovery.Service
	ejector  *ejector // nil when ejection is off
	balancer string   // id of the client's own, or empty
	cacheKey string   // what Kitex makes of the target's description
	inner    loadbalance.Loadbalancer
	spare    spare
	state    atomic.Uint32 // keyOpening, keyReady, keyRetired

	mu    sync.Mutex // held while inner builds or deletes, so that an older picker cannot follow a newer one
	built bool
	list  []kitex.Instance // what the picker was built from
}

const (
	keyOpening uint32 = iota
	keyReady
	keyRetired
)

// await returns when k is built, or gone.
func (k *pickerKey) await() {
	k.mu.Lock()
	defer k.mu.Unlock()
}

// Changed has the balancer build the picker of the newest snapshot, unless it has.
func (k *pickerKey) Changed() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.state.Load() != keyRetired {
		k.buildLocked()
	}
}

// rebuild is Changed even if nothing has changed.
func (k *pickerKey) rebuild() {
	k.mu.Lock()
	k.built = false
	k.mu.Unlock()
	k.Changed()
}

func (k *pickerKey) buildLocked() {
	latest := k.service.Latest()
	k.ejector.follow(latest)
	rb, ok := k.inner.(loadbalance.Rebalancer)
	list := k.ejector.usable(latest)
	if !ok || k.built && roster.Same(k.list, list) {
		return
	}
	added, updated, removed := roster.Diff(k.list, list)
	k.guard(func() {
		// The CacheKey stays as it is: balancers keep their state by it.
		rb.Rebalance(kitex.Change{
			Result:  kitex.Result{Cacheable: true, CacheKey: k.cacheKey, Instances: list},
			Added:   added,
			Updated: updated,
			Removed: removed,
		})
	})
	k.built, k.list = true, list
}

// guard keeps a panic of a user's balancer from ending the process, as Kitex's refresh does.
func (k *pickerKey) guard(f func()) {
	defer func() {
		if p := recover(); p != nil {
			klog.Errorf("etcd: the load balancer %T of service %s panicked: %v\n%s", k.inner, k.service.Name(), p, debug.Stack())
		}
	}()
	f()
}
