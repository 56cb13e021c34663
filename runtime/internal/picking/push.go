// Package picking carries the snapshots of discovery into Kitex's balancers, whichever a client chose, at the moment that they
// change. Package etcd gives its Wiring to every client of a Conn.
//
// Kitex's way to an instance is client -> balancer cache -> balancer -> picker. A pushBalancer takes the balancer's place
// there, and has the client's own balancer build a new picker when the service changes. There is one pushBalancer for each
// pair of Kitex's intervals, and one pickerKey in it for each service of a Conn as one balancer knows it:
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
	"maps"
	"reflect"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	kitex "github.com/cloudwego/kitex/pkg/discovery"
	"github.com/cloudwego/kitex/pkg/klog"
	"github.com/cloudwego/kitex/pkg/loadbalance"
	"github.com/cloudwego/kitex/pkg/loadbalance/lbcache"
	"github.com/cloudwego/kitex/pkg/rpcinfo"

	"github.com/kitex-contrib/kitex-etcd/runtime/internal/discovery"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/roster"
)

// pushBalancer stands between Kitex and the balancers that clients chose. When a service changes it has them build their
// pickers at once, instead of at Kitex's next refresh. There is one in the process for each pair of intervals, for the clients of every
// Conn: Kitex never frees the factory in front of it.
type pushBalancer struct {
	factory  *lbcache.BalancerFactory // Kitex's cache in front of it
	standard loadbalance.Loadbalancer // of the clients that chose none

	keys atomic.Pointer[map[string]*pickerKey] // by CacheKey; replaced, never changed: reading it takes no lock
	mu   sync.Mutex                            // held while keys is replaced
}

func newPushBalancer() *pushBalancer {
	p := &pushBalancer{standard: loadbalance.NewWeightedBalancer()}
	p.keys.Store(&map[string]*pickerKey{})
	return p
}

// pushers are those of the process. The mutex is held while Kitex makes a factory, too: two at once would give two for one key.
var pushers struct {
	sync.Mutex
	all map[intervals]*pushBalancer
}

// intervals are those at which Kitex refreshes and expires what it keeps of a service.
type intervals struct{ refresh, expire time.Duration }

// pusherOf returns the balancer for the intervals of cache.
func pusherOf(cache lbcache.Options) *pushBalancer {
	pushers.Lock()
	defer pushers.Unlock()
	every := intervals{cache.RefreshInterval, cache.ExpireInterval}
	p := pushers.all[every]
	if p == nil {
		p = newPushBalancer()
		cache.DiagnosisService = nil // of one client
		p.factory = lbcache.NewBalancerFactory(sharedResolver{}, p, cache)
		if pushers.all == nil {
			pushers.all = make(map[intervals]*pushBalancer)
		}
		pushers.all[every] = p
	}
	return p
}

// everyKey yields the targets of all clients of the process.
func everyKey(yield func(*pickerKey) bool) {
	pushers.Lock()
	all := slices.Collect(maps.Values(pushers.all))
	pushers.Unlock()
	for _, p := range all {
		for _, k := range *p.keys.Load() {
			if !yield(k) {
				return
			}
		}
	}
}

// Settle has Kitex's cache take over what has settled, as its ticker does, and run its hooks.
func (k *pickerKey) Settle() {
	name := k.service.Name()
	target := rpcinfo.NewEndpointInfo(name, "", nil, map[string]string{targetTag: joinTarget(name, k.id)})
	k.guard(func() {
		if b, err := k.push.factory.Get(context.Background(), target); err == nil {
			b.Refresh()
		}
	})
}

// release lets go of the targets of a client that was closed, whose balancer it was.
func (p *pushBalancer) release(id string) {
	p.mu.Lock() // whoever found the balancer has entered its target
	keys := *p.keys.Load()
	p.mu.Unlock()
	for _, k := range keys {
		if k.id == id {
			p.retire(k)
		}
	}
}

// Name is the same for all: Kitex adds the resolver's name and the intervals.
func (p *pushBalancer) Name() string { return "kitex-etcd" }

// GetPicker has the client's balancer pick from the instances as they are now.
func (p *pushBalancer) GetPicker(res kitex.Result) loadbalance.Picker {
	if k := (*p.keys.Load())[res.CacheKey]; k != nil {
		if picker := k.keptPicker(); picker != nil {
			return picker
		}
	}
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

// other has the balancer of a target pick another instance than those to be avoided; nil if there is none.
func (p *pushBalancer) other(ctx context.Context, req any, desc string, avoid addrList) kitex.Instance {
	k, err := p.key(keyPrefix + desc)
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
	name, id := splitTarget(strings.TrimPrefix(cacheKey, keyPrefix))
	w := wiringOf(id)
	if w == nil {
		return nil, errNoConn
	}
	s, err := w.resolver.dir.Service(name)
	if err != nil {
		return nil, err
	}
	k := &pickerKey{push: p, service: s, ejector: w.monitor.ejector(name), id: id, cacheKey: cacheKey}
	k.mu.Lock()
	defer k.mu.Unlock()
	if other := p.enter(k, w); other != nil {
		return other, nil
	}
	s.Attach(k)
	k.buildLocked()
	k.state.Store(keyReady)
	return k, nil
}

// enter adds k, a target of w's, unless another was there first, which it returns.
func (p *pushBalancer) enter(k *pickerKey, w *Wiring) (other *pickerKey) {
	p.mu.Lock()
	defer p.mu.Unlock()
	keys := *p.keys.Load()
	if other = keys[k.cacheKey]; other != nil {
		return other
	}
	if k.inner = w.balancer(k.id); k.inner == nil {
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
	id       string   // of the client's own balancer, or else of the Conn
	cacheKey string   // what Kitex makes of the target's description
	inner    loadbalance.Loadbalancer
	spare    spare
	state    atomic.Uint32 // keyOpening, keyReady, keyRetired
	kept     atomic.Pointer[keptPicker]

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
	k.kept.Store(nil)
	k.guard(func() {
		// The CacheKey stays as it is: balancers keep their state by it.
		res := kitex.Result{Cacheable: true, CacheKey: k.cacheKey, Instances: list}
		rb.Rebalance(kitex.Change{Result: res, Added: added, Updated: updated, Removed: removed})
		if givesOne(k.inner) {
			k.kept.Store(&keptPicker{list, k.inner.GetPicker(res)})
		}
	})
	k.built, k.list = true, list
}

// keptPicker is a picker that its balancer gives to every call while the list is the same. It is never changed.
type keptPicker struct {
	of     []kitex.Instance
	picker loadbalance.Picker
}

// keptPicker returns the picker of the list as it is now; nil if that has to be asked for.
func (k *pickerKey) keptPicker() loadbalance.Picker {
	kept := k.kept.Load()
	if kept == nil || !roster.Same(kept.of, k.ejector.usable(k.service.Use())) {
		return nil
	}
	return kept.picker
}

// givesOne says whether lb gives the same picker to every call while the list is the same, as Kitex's balancers do but for the
// consistent hash. What a user's own does is not known.
func givesOne(lb loadbalance.Loadbalancer) bool {
	if rt, ok := lb.(*router); ok {
		return rt.route.Lane != nil || givesOne(rt.inner)
	}
	return reflect.TypeOf(lb) == weighted
}

var weighted = reflect.TypeOf(loadbalance.NewWeightedBalancer())

// guard keeps a panic of a user's balancer from ending the process, as Kitex's refresh does.
func (k *pickerKey) guard(f func()) {
	defer func() {
		if p := recover(); p != nil {
			klog.Errorf("etcd: the load balancer %T of service %s panicked: %v\n%s", k.inner, k.service.Name(), p, debug.Stack())
		}
	}()
	f()
}
