package etcd

import (
	"maps"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/cloudwego/kitex/pkg/discovery"
	"github.com/cloudwego/kitex/pkg/klog"
	"github.com/cloudwego/kitex/pkg/loadbalance"
)

// pushBalancer stands between Kitex and the balancers that clients chose. When a service changes it has them build their
// pickers at once, instead of at Kitex's next refresh.
type pushBalancer struct {
	dir      *directory
	standard loadbalance.Loadbalancer // of the clients that chose none

	keys atomic.Pointer[map[string]*pickerKey] // by CacheKey; replaced, never changed: reading it takes no lock

	mu  sync.Mutex                          // guards own, and keys against two replacements at once
	own map[string]loadbalance.Loadbalancer // by id, what clients chose
}

func newPushBalancer(d *directory) *pushBalancer {
	p := &pushBalancer{
		dir:      d,
		standard: loadbalance.NewWeightedBalancer(),
		own:      make(map[string]loadbalance.Loadbalancer),
	}
	p.keys.Store(&map[string]*pickerKey{})
	return p
}

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
		k := p.key(res.CacheKey)
		if k == nil {
			return p.standard.GetPicker(res)
		}
		res.Instances = k.service.use().instances
		picker := k.inner.GetPicker(res)
		if k.state.Load() == keyReady {
			return picker
		}
	}
}

// Rebalance is Kitex's refresh, which comes after the push.
func (p *pushBalancer) Rebalance(ch discovery.Change) {
	if k := (*p.keys.Load())[ch.Result.CacheKey]; k != nil {
		k.build()
	}
}

// Delete is Kitex's expiry of a service that the client no longer calls.
func (p *pushBalancer) Delete(ch discovery.Change) {
	if k := (*p.keys.Load())[ch.Result.CacheKey]; k != nil {
		p.retire(k)
	}
}

// key returns the ready entry of a CacheKey, made when it is new; nil for a key that is not of this Conn.
func (p *pushBalancer) key(cacheKey string) *pickerKey {
	for {
		k := (*p.keys.Load())[cacheKey]
		if k == nil {
			if k = p.open(cacheKey); k == nil {
				return nil
			}
		}
		if k.state.Load() == keyReady {
			return k
		}
		k.mu.Lock() // until it is built, or gone
		k.mu.Unlock()
	}
}

// open enters a CacheKey. Pushes reach it from before its first picker is built, so that none is missed.
func (p *pushBalancer) open(cacheKey string) *pickerKey {
	desc, ok := strings.CutPrefix(cacheKey, p.dir.resolver.Name()+":")
	if !ok {
		return nil
	}
	name, id := splitTarget(desc)
	s, err := p.dir.service(name)
	if err != nil {
		return nil
	}
	k := &pickerKey{service: s, balancer: id, cacheKey: cacheKey}
	k.mu.Lock()
	defer k.mu.Unlock()
	if other := p.enter(k); other != nil {
		return other
	}
	s.attach(k)
	k.buildLocked()
	k.state.CompareAndSwap(keyOpening, keyReady)
	return k
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

// pickerKey is one CacheKey: one service as one balancer knows it.
type pickerKey struct {
	service  *service
	balancer string // id of the client's own, or empty
	inner    loadbalance.Loadbalancer
	cacheKey string
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

// build has the balancer build the picker of the newest snapshot, unless it has.
func (k *pickerKey) build() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.state.Load() != keyRetired {
		k.buildLocked()
	}
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

// push has the pickers of all clients built from the latest snapshot.
func (s *service) push() {
	s.attaching.Lock()
	pickers := s.pickers
	s.attaching.Unlock()
	for _, k := range pickers {
		k.build()
	}
}
