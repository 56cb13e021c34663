package picking

import (
	"context"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/cloudwego/kitex/client"
	kitex "github.com/cloudwego/kitex/pkg/discovery"
	"github.com/cloudwego/kitex/pkg/klog"
	"github.com/cloudwego/kitex/pkg/loadbalance"
	"github.com/cloudwego/kitex/pkg/loadbalance/lbcache"
	"github.com/cloudwego/kitex/pkg/utils"

	"github.com/kitex-contrib/kitex-etcd/runtime/internal/roster"
)

// Route says which of a service's instances a client's calls go to: first the lane, then, within it, what is preferred.
type Route struct {
	Lane   *Lane   // nil: none
	Prefer *Prefer // nil: none
}

// Lane has a call go to the instances whose Tag has the value that Of gives for it. A call without a lane, or of a lane without
// instances, goes to those without the tag.
type Lane struct {
	Tag string
	Of  func(context.Context) string
}

// Prefer has calls go to the instances whose Tag has a Value while there are AtLeast of them.
type Prefer struct {
	Tag, Value string
	AtLeast    int
}

// Option returns the client option that adds r to what the client's other options say. It runs after all of them, so that their order
// is no matter, and panics, as Kitex's own options do, when another one says otherwise.
func (r Route) Option() client.Option {
	return client.TailOption(client.Option{F: func(o *client.Options, _ *utils.Slice) {
		if p, wired := o.Balancer.(*pushBalancer); wired {
			reroute(o, p, r)
			return
		}
		if o.Balancer == nil && o.BalancerCacheOpt == nil {
			o.BalancerCacheOpt = &lbcache.Options{Cacheable: true} // as for Kitex's own balancer
		}
		o.Balancer = routed(o.Balancer, r)
	}})
}

// router is a balancer in front of a client's own. It divides each list into groups, when the list changes, and has the client's
// balancer pick within one. Safe for concurrent use.
type router struct {
	inner loadbalance.Loadbalancer
	route Route

	last  atomic.Pointer[division]             // the one asked for last: a client has one, most often
	all   atomic.Pointer[map[string]*division] // by CacheKey; replaced, never changed
	mu    sync.Mutex                           // held while all is replaced, and inner builds or deletes: as for a pickerKey
	panic sync.Once                            // the lane's function panicked: said once
}

// division is a list divided into groups. It is never changed.
type division struct {
	key   string
	of    []kitex.Instance
	base  group              // of calls without a lane
	lanes map[string]*group  // by the tag's value; nil without a Lane
	pick  loadbalance.Picker // nil where the balancer is asked for each call
}

// group is a part of a list, as the client's balancer knows it.
type group struct {
	kitex.Result
	pick loadbalance.Picker // nil where the balancer is asked for each call
}

// routed returns lb, or Kitex's standard balancer if that is nil, behind a router that does as r says, too.
func routed(lb loadbalance.Loadbalancer, r Route) *router {
	rt, ok := lb.(*router)
	if !ok {
		if lb == nil {
			lb = loadbalance.NewWeightedBalancer()
		}
		rt = &router{inner: lb}
		rt.all.Store(&map[string]*division{})
	}
	if p := r.Prefer; p != nil {
		if old := rt.route.Prefer; old != nil && *old != *p {
			panic(fmt.Sprintf("etcd: Prefer(%q, %q, %d) and Prefer(%q, %q, %d) are given to one client; give one of them",
				old.Tag, old.Value, old.AtLeast, p.Tag, p.Value, p.AtLeast))
		}
		rt.route.Prefer = p
	}
	if l := r.Lane; l != nil {
		if rt.route.Lane != nil && rt.route.Lane != l {
			panic(fmt.Sprintf("etcd: Lane(%q, …) and Lane(%q, …) are given to one client; give one of them", rt.route.Lane.Tag, l.Tag))
		}
		rt.route.Lane = l
	}
	return rt
}

// Name is the inner balancer's, with what is in front of it: without a Conn, Kitex has one of a name serve all clients of the process,
// so no two that route otherwise may have the same. Functions cannot be compared; the addresses of their lanes can.
func (r *router) Name() string {
	name := "kitex-etcd-route"
	if l := r.route.Lane; l != nil {
		name += fmt.Sprintf(" lane %p", l)
	}
	if p := r.route.Prefer; p != nil {
		name += fmt.Sprintf(" prefer %q %q %d", p.Tag, p.Value, p.AtLeast)
	}
	return name + ":" + r.inner.Name()
}

// GetPicker returns a picker of the division, without a Lane that of its only group.
func (r *router) GetPicker(res kitex.Result) loadbalance.Picker {
	d := r.last.Load()
	if !res.Cacheable {
		d = r.divide(res.CacheKey, res.Instances, false)
	} else if d == nil || d.key != res.CacheKey {
		d = r.find(res.CacheKey, res.Instances)
	}
	if d.pick != nil {
		return d.pick
	}
	return r.inner.GetPicker(d.base.Result)
}

// find returns the division of key, made of list when there is none yet.
func (r *router) find(key string, list []kitex.Instance) *division {
	d := (*r.all.Load())[key]
	if d == nil {
		d = r.enter(key, list)
	}
	r.last.Store(d)
	if (*r.all.Load())[key] != d { // replaced before the store, which the one who replaced it did not see
		r.last.CompareAndSwap(d, nil)
	}
	return d
}

// enter divides the list of a new key. Where a change was first, its list is newer.
func (r *router) enter(key string, list []kitex.Instance) *division {
	r.mu.Lock()
	defer r.mu.Unlock()
	if d := (*r.all.Load())[key]; d != nil {
		return d
	}
	return r.update(key, list)
}

// Rebalance divides a list that changed.
func (r *router) Rebalance(ch kitex.Change) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.update(ch.Result.CacheKey, ch.Result.Instances)
}

// Delete forgets a list.
func (r *router) Delete(ch kitex.Change) {
	r.mu.Lock()
	defer r.mu.Unlock()
	d := (*r.all.Load())[ch.Result.CacheKey]
	if d == nil {
		return
	}
	r.replace(ch.Result.CacheKey, nil)
	for _, g := range d.groups() {
		r.drop(g)
	}
}

// update makes the division of a list and has the inner balancer follow, group by group. The caller holds mu.
func (r *router) update(key string, list []kitex.Instance) *division {
	old := (*r.all.Load())[key]
	if old != nil && roster.Same(old.of, list) {
		return old
	}
	d := r.divide(key, list, true)
	before := make(map[string]*group)
	if old != nil {
		before = old.groups()
	}
	rb, rebalances := r.inner.(loadbalance.Rebalancer)
	for name, g := range d.groups() {
		was, known := before[name]
		delete(before, name)
		if !rebalances {
			continue
		}
		if !known {
			was = new(group)
		}
		if !known || !slices.Equal(was.Instances, g.Instances) {
			added, updated, removed := diffOf(was.Instances, g.Instances)
			rb.Rebalance(kitex.Change{Result: g.Result, Added: added, Updated: updated, Removed: removed})
		}
		if givesOne(r.inner) {
			g.pick = r.inner.GetPicker(g.Result)
		}
	}
	if d.pick == nil {
		d.pick = d.base.pick
	}
	r.replace(key, d)
	for _, g := range before { // groups that are gone
		r.drop(g)
	}
	return d
}

// diffOf is roster.Diff for instances of ours; those of others are all new.
func diffOf(prev, next []kitex.Instance) (added, updated, removed []kitex.Instance) {
	for _, inst := range slices.Concat(prev, next) {
		if _, ours := inst.(*roster.Instance); !ours {
			return next, nil, prev
		}
	}
	return roster.Diff(prev, next)
}

func (r *router) drop(g *group) {
	if rb, ok := r.inner.(loadbalance.Rebalancer); ok {
		rb.Delete(kitex.Change{Result: g.Result})
	}
}

// replace makes d the division of key; nil means none. The caller holds mu.
func (r *router) replace(key string, d *division) {
	all := make(map[string]*division, len(*r.all.Load())+1)
	for k, other := range *r.all.Load() {
		all[k] = other
	}
	if all[key] = d; d == nil {
		delete(all, key)
	}
	r.all.Store(&all)
	if last := r.last.Load(); last != nil && last.key == key {
		r.last.Store(d)
	}
}

// divide divides a list as the route says.
func (r *router) divide(key string, list []kitex.Instance, cacheable bool) *division {
	d := &division{key: key, of: list}
	if r.route.Lane == nil {
		d.base = r.group(key, "", list, cacheable)
		return d
	}
	parts := make(map[string][]kitex.Instance)
	var base []kitex.Instance
	for _, inst := range list {
		if lane, ok := inst.Tag(r.route.Lane.Tag); ok && lane != "" {
			parts[lane] = append(parts[lane], inst)
		} else {
			base = append(base, inst)
		}
	}
	d.base = r.group(key, "", base, cacheable)
	d.lanes = make(map[string]*group, len(parts))
	for lane, part := range parts {
		g := r.group(key, lane, part, cacheable)
		d.lanes[lane] = &g
	}
	d.pick = &lanePicker{r, d}
	return d
}

// group is the part of a lane, or of the base, that is preferred.
func (r *router) group(key, lane string, list []kitex.Instance, cacheable bool) group {
	// A lane may have any name: a mark keeps the base apart from it.
	g := group{Result: kitex.Result{Cacheable: cacheable, CacheKey: key + targetMark + lane, Instances: list}}
	if p := r.route.Prefer; p != nil {
		var near []kitex.Instance
		for _, inst := range list {
			if value, ok := inst.Tag(p.Tag); ok && value == p.Value {
				near = append(near, inst)
			}
		}
		if len(near) >= p.AtLeast {
			g.Instances = near
		}
	}
	return g
}

// groups returns the groups by CacheKey.
func (d *division) groups() map[string]*group {
	all := map[string]*group{d.base.CacheKey: &d.base}
	for _, g := range d.lanes {
		all[g.CacheKey] = g
	}
	return all
}

// lanePicker picks in the lane of each call.
type lanePicker struct {
	*router
	*division
}

func (p *lanePicker) Next(ctx context.Context, req any) kitex.Instance {
	g := &p.base
	if lane := p.lane(ctx); lane != "" {
		if in, ok := p.lanes[lane]; ok {
			g = in
		}
	}
	if g.pick != nil {
		return g.pick.Next(ctx, req)
	}
	picker := p.inner.GetPicker(g.Result)
	inst := picker.Next(ctx, req)
	if r, ok := picker.(interface{ Recycle() }); ok {
		r.Recycle()
	}
	return inst
}

// members are those of list that a call may go to.
func (r *router) members(ctx context.Context, list []kitex.Instance) []kitex.Instance {
	d := r.divide("", list, false)
	if r.route.Lane != nil {
		if in, ok := d.lanes[r.lane(ctx)]; ok {
			return in.Instances
		}
	}
	return d.base.Instances
}

// lane is the lane of a call. Where the caller's function panics it is the base.
func (r *router) lane(ctx context.Context) (lane string) {
	defer func() {
		if p := recover(); p != nil {
			lane = ""
			r.panic.Do(func() {
				klog.Errorf("etcd: the function given to Lane(%q, …) panicked; the call goes to instances without the tag: %v\n%s", r.route.Lane.Tag, p, debug.Stack())
			})
		}
	}()
	return r.route.Lane.Of(ctx)
}
