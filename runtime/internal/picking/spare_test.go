package picking

import (
	"context"
	"testing"
	"time"

	kitex "github.com/cloudwego/kitex/pkg/discovery"
	"github.com/cloudwego/kitex/pkg/loadbalance"
)

// slowRing goes by a key alone, and builds no faster than it is told to.
type slowRing struct {
	loadbalance.Loadbalancer
	building chan struct{} // a token for each build that has begun
	build    chan struct{} // lets one build end
}

func (r *slowRing) Rebalance(ch kitex.Change) {
	r.building <- struct{}{}
	<-r.build
	r.Loadbalancer.(loadbalance.Rebalancer).Rebalance(ch)
}
func (r *slowRing) Delete(ch kitex.Change) { r.Loadbalancer.(loadbalance.Rebalancer).Delete(ch) }

// Name is not that of Kitex's consistent hash, for which any other instance will do.
func (*slowRing) Name() string { return "slow ring" }

// TestFailoverOfAConsistentHash: while no second picker can be built, any other instance that the call may go to is picked.
func TestFailoverOfAConsistentHash(t *testing.T) {
	w, _ := syncedWiring(t, 5)
	for name, lb := range map[string]loadbalance.Loadbalancer{"alone": byKey(), "in a lane": routed(byKey(), Route{Lane: &Lane{"lane", laneOf}})} {
		p, key := testPusher(w, lb)
		k, err := p.key(key)
		if err != nil {
			t.Fatal(err)
		}
		ctx := context.Background()
		first, _ := k.choose(ctx, nil, kitex.Result{Cacheable: true, CacheKey: key, Instances: k.service.Latest()}, 1, "")
		k.spare.mu.Lock() // it is being built
		other := k.other(ctx, nil, addrList(first.Address().String()+" "))
		k.spare.mu.Unlock()
		if other == nil || other == first {
			t.Errorf("%s: instead of %v: %v", name, first, other)
		}
	}
}

// TestSparesDoNotMultiplyLoad: while the second picker is built, and for nine times as long afterwards, no attempt builds another, and
// none waits.
func TestSparesDoNotMultiplyLoad(t *testing.T) {
	w, _ := syncedWiring(t, 5)
	r := &slowRing{byKey(), make(chan struct{}, 10), make(chan struct{}, 10)}
	r.build <- struct{}{}
	p, key := testPusher(w, r)
	k, err := p.key(key)
	if err != nil {
		t.Fatal(err)
	}
	<-r.building
	ctx := context.Background()
	first, _ := k.choose(ctx, nil, kitex.Result{Cacheable: true, CacheKey: key, Instances: k.service.Latest()}, 1, "")
	avoid := addrList(first.Address().String())

	got := make(chan kitex.Instance, 1)
	go func() { got <- k.other(ctx, nil, avoid) }()
	<-r.building
	if inst := k.other(ctx, nil, avoid); inst != nil {
		t.Errorf("%v was picked while the only other picker was being built", inst.Address())
	}
	time.Sleep(20 * time.Millisecond) // what the build takes
	r.build <- struct{}{}
	second := <-got
	if second == nil || second == first {
		t.Fatalf("instead of %v: %v", first.Address(), second)
	}
	if inst := k.other(ctx, nil, avoid); inst != second {
		t.Errorf("the same attempt again: %v, want %v", inst, second.Address())
	}
	if k.spare.next.IsZero() {
		t.Error("another may be built at once")
	}
	k.spare.next = k.spare.next.Add(time.Hour) // however slow this machine is
	if inst := k.other(ctx, nil, avoid+addrList(" "+second.Address().String())); inst != nil {
		t.Errorf("another picker was built at once, for %v", inst.Address())
	}
	k.ejector.tracker.EjectForTesting(first.Address().String(), first)
	if inst := k.other(ctx, nil, ""); inst != second {
		t.Errorf("when it is ejected, too: %v, want %v, which the second picker has", inst, second.Address())
	}
	if n := len(r.building); n != 0 {
		t.Errorf("%d more builds", n)
	}
}

func TestAddrListHasWholeAddresses(t *testing.T) {
	l := addrList("110.0.0.1:80 [::1]:8080 ")
	for addr, want := range map[string]bool{"110.0.0.1:80": true, "10.0.0.1:80": false, "[::1]:8080": true, "[::1]:80": false} {
		if l.has(addr) != want {
			t.Errorf("%s in %q: %v", addr, l, !want)
		}
	}
}
