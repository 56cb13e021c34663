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

// TestSparesDoNotMultiplyLoad: the second picker is built once for all attempts that it can serve, and, for nine times as long as that
// took, for no other.
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

	got := make(chan kitex.Instance, 10)
	for range cap(got) {
		go func() { got <- k.other(ctx, nil, avoid) }()
	}
	<-r.building
	time.Sleep(20 * time.Millisecond) // what the build takes, at least
	r.build <- struct{}{}
	second := <-got
	if second == nil || second == first {
		t.Fatalf("instead of %v: %v", first.Address(), second)
	}
	for range cap(got) - 1 {
		if inst := <-got; inst != second {
			t.Errorf("another attempt at the same time: %v, want %v", inst, second.Address())
		}
	}
	k.ejector.tracker.EjectForTesting(first.Address().String(), first)
	if inst := k.other(ctx, nil, ""); inst != second {
		t.Errorf("when %s is ejected: %v, want %v", avoid, inst, second.Address())
	}
	k.spare.next = k.spare.next.Add(time.Hour) // however slow this machine is
	if inst := k.other(ctx, nil, addrList(second.Address().String())); inst != nil && inst != first {
		t.Errorf("%v, which needs another build", inst.Address())
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
