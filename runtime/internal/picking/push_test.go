package picking

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	kitex "github.com/cloudwego/kitex/pkg/discovery"
	"github.com/cloudwego/kitex/pkg/loadbalance"
	"github.com/cloudwego/kitex/pkg/loadbalance/lbcache"
	"github.com/cloudwego/kitex/pkg/rpcinfo"

	"github.com/kitex-contrib/kitex-etcd/runtime/internal/discovery"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/record"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/roster"
)

// gated is a balancer that keeps one picker and can be held while it makes one.
type gated struct {
	kept           atomic.Pointer[roster.Instance]
	building, open chan struct{}
}

func (g *gated) Name() string { return "gated" }

func (g *gated) build(list []kitex.Instance) {
	if g.building != nil {
		g.building <- struct{}{}
		<-g.open
	}
	g.kept.Store(list[0].(*roster.Instance))
}

func (g *gated) GetPicker(res kitex.Result) loadbalance.Picker {
	if g.kept.Load() == nil {
		g.build(res.Instances)
	}
	return g
}

func (g *gated) Next(context.Context, any) kitex.Instance { return g.kept.Load() }
func (g *gated) Rebalance(ch kitex.Change)                { g.build(ch.Result.Instances) }
func (g *gated) Delete(kitex.Change)                      { g.kept.Store(nil) }

// gatedPusher returns a pushing balancer in front of g alone, the service that it picks from, and Kitex's result for that.
func gatedPusher(t *testing.T, g *gated) (*pushBalancer, *discovery.Service, kitex.Result) {
	dir, s := discovery.NewForTesting(testService)
	w := New(Config{Directory: dir, KeepAll: true})
	t.Cleanup(func() { runtime.KeepAlive(w) })
	p := newPushBalancer()
	p.standard = g
	return p, s, kitex.Result{Cacheable: true, CacheKey: keyPrefix + joinTarget(testService, w.id)}
}

// show gives a service one instance, as its watcher does.
func show(s *discovery.Service, addr string) {
	rec := record.Record{Network: "tcp", Address: addr, Weight: 1}
	s.ShowForTesting([]kitex.Instance{roster.NewInstance(addr, rec)})
}

// TestAPickerOutdatedWhileBuilt: a change that comes while a target's first picker is built is built after it.
func TestAPickerOutdatedWhileBuilt(t *testing.T) {
	g := &gated{building: make(chan struct{}), open: make(chan struct{})}
	p, s, result := gatedPusher(t, g)
	show(s, "old:1")
	var running sync.WaitGroup
	running.Go(func() { p.GetPicker(result) })
	<-g.building
	running.Go(func() { show(s, "new:1") })
	eventually(t, "the change is known", func() bool { return s.Latest()[0].Address().String() == "new:1" })
	g.open <- struct{}{}
	<-g.building
	g.open <- struct{}{}
	running.Wait()
	g.building = nil
	if got := p.GetPicker(result).Next(context.Background(), nil).Address().String(); got != "new:1" {
		t.Errorf("the picker gives %s", got)
	}
}

// TestAPickerMadeDuringItsDeletion: a call that is in the balancer while Kitex lets go of the target may leave an outdated
// picker there. The call notices, and has the newest one built.
func TestAPickerMadeDuringItsDeletion(t *testing.T) {
	g := &gated{}
	p, s, result := gatedPusher(t, g)
	show(s, "old:1")
	p.GetPicker(result)
	g.kept.Store(nil) // as if the deletion had just come by
	g.building, g.open = make(chan struct{}), make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() { p.GetPicker(result) })
	<-g.building // the call builds from the old list
	p.Delete(kitex.Change{Result: result})
	show(s, "new:1")
	g.building = nil
	p.GetPicker(result)
	g.open <- struct{}{}
	running.Wait()
	if got := p.GetPicker(result).Next(context.Background(), nil).Address().String(); got != "new:1" {
		t.Errorf("the picker gives %s", got)
	}
}

// TestPickersAreNeverStale asks for pickers from many goroutines while the only instance is replaced again and again, and
// Kitex's cache, and the clients, come and go. After each change the pickers give the new instance and stay with it.
func TestPickersAreNeverStale(t *testing.T) {
	w, etcd := syncedWiring(t, 0)
	p := pusherOf(lbcache.Options{Cacheable: true, RefreshInterval: 5 * time.Millisecond, ExpireInterval: 3 * time.Millisecond})
	hash := loadbalance.NewConsistentHashOption(func(context.Context, any) string { return "key" })
	a, b := w.adopt(loadbalance.NewConsistBalancer(hash)), w.adopt(loadbalance.NewWeightedRandomBalancer())
	var targets []rpcinfo.EndpointInfo
	for _, id := range []string{w.id, a, b} {
		targets = append(targets, rpcinfo.NewEndpointInfo(testService, "", nil, map[string]string{targetTag: joinTarget(testService, id)}))
	}
	pick := func(target rpcinfo.EndpointInfo) string {
		lb, err := p.factory.Get(context.Background(), target)
		if err != nil {
			t.Error(err)
			return ""
		}
		inst := lb.GetPicker().Next(context.Background(), nil)
		if inst == nil {
			return ""
		}
		return inst.Address().String()
	}
	etcd.put("h0:1")
	etcd.await("h0:1")

	var stop atomic.Bool
	var running sync.WaitGroup
	defer running.Wait()
	defer stop.Store(true)
	running.Go(func() { // in use without a pause
		for !stop.Load() {
			pick(targets[0])
		}
	})
	for _, target := range targets {
		running.Go(func() { // now and then, so that Kitex lets go of it
			for !stop.Load() {
				pick(target)
				time.Sleep(7 * time.Millisecond)
			}
		})
	}
	running.Go(func() { // a client with a balancer is closed, another one made
		for !stop.Load() {
			w.disown(b)
			p.release(b)
			w.mu.Lock()
			w.own[b] = loadbalance.NewWeightedRandomBalancer()
			w.mu.Unlock()
			time.Sleep(time.Millisecond)
		}
	})
	for i := range 30 {
		addr := fmt.Sprintf("h%d:1", i+1)
		etcd.put(addr)
		etcd.remove(fmt.Sprintf("h%d:1", i))
		etcd.await(addr)
		for _, target := range targets {
			// The list is known, the pickers are built right after it.
			gives := func() bool {
				for range 20 {
					if pick(target) != addr {
						return false
					}
				}
				return true
			}
			eventually(t, "the pickers give "+addr, gives)
			if !gives() {
				t.Fatalf("a picker went back from %s", addr)
			}
		}
	}
}

// panicking is a user's balancer with a bug.
type panicking struct{ loadbalance.Loadbalancer }

func (panicking) Rebalance(kitex.Change) { panic("a bug") }
func (panicking) Delete(kitex.Change)    { panic("a bug") }

// TestABalancersPanicIsItsOwn: a service is followed on, and its other clients are served.
func TestABalancersPanicIsItsOwn(t *testing.T) {
	w, etcd := syncedWiring(t, 1)
	p, _ := testPusher(w, nil)
	_, bad := testPusher(w, panicking{loadbalance.NewWeightedBalancer()})
	res := kitex.Result{Cacheable: true, CacheKey: bad}
	if p.GetPicker(res).Next(context.Background(), nil) == nil {
		t.Error("no instance")
	}
	etcd.put("z:1")
	etcd.await("10.0.0.0:80", "z:1")
	p.Delete(kitex.Change{Result: res})
}

// counting is a user's balancer, which wants to hear of every call.
type counting struct {
	loadbalance.Loadbalancer
	asked int
}

func (c *counting) Rebalance(kitex.Change) {}
func (c *counting) Delete(kitex.Change)    {}
func (c *counting) GetPicker(res kitex.Result) loadbalance.Picker {
	c.asked++
	return c.Loadbalancer.GetPicker(res)
}

// TestAUsersBalancerIsAskedForEachCall: only of Kitex's own is it known which keep a picker.
func TestAUsersBalancerIsAskedForEachCall(t *testing.T) {
	c := &counting{Loadbalancer: loadbalance.NewWeightedBalancer()}
	for name, lb := range map[string]loadbalance.Loadbalancer{
		"alone":        c,
		"with a Route": routed(c, Route{Prefer: &Prefer{"zone", "a", 1}}),
	} {
		dir, s := discovery.NewForTesting(testService)
		w := New(Config{Directory: dir, KeepAll: true})
		p := newPushBalancer()
		p.standard = lb
		show(s, "127.0.0.1:1")
		res := kitex.Result{Cacheable: true, CacheKey: keyPrefix + joinTarget(testService, w.id)}
		p.GetPicker(res)
		before := c.asked
		for range 10 {
			p.GetPicker(res)
		}
		if got := c.asked - before; got != 10 {
			t.Errorf("%s: asked %d times for 10 calls", name, got)
		}
		runtime.KeepAlive(w)
	}
}
