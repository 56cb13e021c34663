package etcd

import (
	"context"
	"errors"
	"maps"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/cloudwego/kitex/pkg/discovery"
	"github.com/cloudwego/kitex/pkg/klog"
	"github.com/cloudwego/kitex/pkg/loadbalance"
	"github.com/cloudwego/kitex/pkg/loadbalance/lbcache"
	"github.com/cloudwego/kitex/pkg/rpcinfo"
)

// pushBalancer stands between Kitex and the balancers that clients chose. When a service changes it has them build their
// pickers at once, instead of at Kitex's next refresh.
type pushBalancer struct {
	dir      *directory
	standard loadbalance.Loadbalancer // of the clients that chose none

	factory *lbcache.BalancerFactory // Kitex's cache in front of it
	prefix  string                   // of the CacheKeys that Kitex makes of target descriptions

	keys atomic.Pointer[map[string]*pickerKey] // by CacheKey; replaced, never changed: reading it takes no lock

	mu  sync.Mutex                          // guards own, and keys against two replacements at once
	own map[string]loadbalance.Loadbalancer // by id, what clients chose
}

func newPushBalancer(d *directory, cache lbcache.Options) *pushBalancer {
	p := &pushBalancer{
		dir:      d,
		standard: loadbalance.NewWeightedBalancer(),
		prefix:   d.resolver.Name() + ":",
		own:      make(map[string]loadbalance.Loadbalancer),
	}
	p.keys.Store(&map[string]*pickerKey{})
	p.factory = lbcache.NewBalancerFactory(settledResolver{d.resolver}, p, cache)
	return p
}

// settledResolver is what Kitex's cache asks. The pickers have the newest instances already; what Kitex does besides
// when one has gone, the closing of its connections above all, cuts off calls on multiplexed connections as long as the
// server has not announced its end. So the cache hears of changes when they have settled.
type settledResolver struct{ *resolver }

func (r settledResolver) Resolve(ctx context.Context, desc string) (discovery.Result, error) {
	res, err := r.resolver.Resolve(ctx, desc)
	if err != nil {
		return res, err
	}
	name, _ := splitTarget(desc)
	if settled := (*r.dir.services.Load())[name].settled.Load(); settled != nil {
		res.Instances = settled.instances
	}
	return res, nil
}

// refresh has Kitex's cache take over what has settled, as its ticker does, and run its hooks.
func (k *pickerKey) refresh() {
	target := rpcinfo.NewEndpointInfo(k.service.name, "", nil, nil)
	if k.balancer != "" {
		target = rpcinfo.NewEndpointInfo(k.service.name, "", nil, map[string]string{balancerTag: joinTarget(k.service.name, k.balancer)})
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
func (p *pushBalancer) GetPicker(res discovery.Result) loadbalance.Picker {
	for {
		k, err := p.key(res.CacheKey)
		if err != nil {
			return p.standard.GetPicker(res)
		}
		res.Instances = k.service.use().instances
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

// Rebalance is Kitex's refresh, which comes after the push.
func (p *pushBalancer) Rebalance(ch discovery.Change) {
	if k := p.find(ch); k != nil {
		k.build()
	}
}

// Delete is Kitex's expiry of a service that the client no longer calls.
func (p *pushBalancer) Delete(ch discovery.Change) {
	if k := p.find(ch); k != nil {
		p.retire(k)
	}
}

func (p *pushBalancer) find(ch discovery.Change) *pickerKey {
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
	s, err := p.dir.service(name)
	if err != nil {
		return nil, err
	}
	k := &pickerKey{push: p, service: s, balancer: id, cacheKey: cacheKey}
	k.mu.Lock()
	defer k.mu.Unlock()
	if other := p.enter(k); other != nil {
		return other, nil
	}
	s.attach(k)
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
	k.service.detach(k)
	if rb, ok := k.inner.(loadbalance.Rebalancer); ok {
		k.guard(func() {
			rb.Delete(discovery.Change{Result: discovery.Result{Cacheable: true, CacheKey: k.cacheKey}})
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
	service  *service
	balancer string // id of the client's own, or empty
	cacheKey string // what Kitex makes of the target's description
	inner    loadbalance.Loadbalancer
	state    atomic.Uint32 // keyOpening, keyReady, keyRetired

	mu    sync.Mutex // held while inner builds or deletes, so that an older picker cannot follow a newer one
	built bool
	list  []discovery.Instance // what the picker was built from
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

// build has the balancer build the picker of the newest snapshot, unless it has.
func (k *pickerKey) build() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.state.Load() != keyRetired {
		k.buildLocked()
	}
}

// rebuild is build even if nothing has changed.
func (k *pickerKey) rebuild() {
	k.mu.Lock()
	k.built = false
	k.mu.Unlock()
	k.build()
}

func (k *pickerKey) buildLocked() {
	rb, ok := k.inner.(loadbalance.Rebalancer)
	list := k.service.snapshot().instances
	if !ok || k.built && sameList(k.list, list) {
		return
	}
	added, updated, removed := diff(k.list, list)
	k.guard(func() {
		// The CacheKey stays as it is: balancers keep their state by it.
		rb.Rebalance(discovery.Change{
			Result:  discovery.Result{Cacheable: true, CacheKey: k.cacheKey, Instances: list},
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
			klog.Errorf("etcd: the load balancer %T of service %s panicked: %v\n%s", k.inner, k.service.name, p, debug.Stack())
		}
	}()
	f()
}

// attach has every new snapshot of s built into k.
func (s *service) attach(k *pickerKey) {
	s.attaching.Lock()
	defer s.attaching.Unlock()
	s.pickers = append(slices.Clip(s.pickers), k)
}

func (s *service) detach(k *pickerKey) {
	s.attaching.Lock()
	defer s.attaching.Unlock()
	s.pickers = slices.DeleteFunc(slices.Clone(s.pickers), func(o *pickerKey) bool { return o == k })
}

// attached returns who wants to hear of new snapshots.
func (s *service) attached() []*pickerKey {
	s.attaching.Lock()
	defer s.attaching.Unlock()
	return s.pickers
}
