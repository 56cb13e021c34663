package picking

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/cloudwego/kitex/pkg/loadbalance"
	"github.com/cloudwego/kitex/pkg/loadbalance/lbcache"
	"github.com/cloudwego/kitex/pkg/rpcinfo"
)

// testPusher returns the pushing balancer of w for Kitex's own intervals, with a balancer of a client's if lb is not nil,
// and the CacheKey of testService.
func testPusher(w *Wiring, lb loadbalance.Loadbalancer) (p *pushBalancer, cacheKey string) {
	id := w.id
	if lb != nil {
		id = w.adopt(lb)
	}
	p = pusherOf(lbcache.Options{Cacheable: true, RefreshInterval: kitexRefresh, ExpireInterval: kitexExpire})
	return p, keyPrefix + joinTarget(testService, id)
}

// BenchmarkGetPicker compares Kitex's balancer alone with the same behind the push.
func BenchmarkGetPicker(b *testing.B) {
	for _, n := range []int{1, 10_000} {
		w, _ := syncedWiring(b, n)
		p, key := testPusher(w, nil)
		res, err := w.Resolver().Resolve(context.Background(), testService)
		if err != nil {
			b.Fatal(err)
		}
		res.CacheKey = key
		for name, lb := range map[string]loadbalance.Loadbalancer{"kitex": loadbalance.NewWeightedBalancer(), "push": p} {
			b.Run(fmt.Sprintf("of=%s/n=%d", name, n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if lb.GetPicker(res) == nil {
						b.Fatal("no picker")
					}
				}
			})
		}
	}
}

// BenchmarkCall is what Kitex does for every call before the connection: target, balancer, picker, instance.
func BenchmarkCall(b *testing.B) {
	w, _ := syncedWiring(b, 1000)
	p, key := testPusher(w, nil)
	ctx := context.Background()
	target := rpcinfo.NewEndpointInfo(testService, "echo", nil, map[string]string{targetTag: strings.TrimPrefix(key, keyPrefix)})
	b.ReportAllocs()
	for b.Loop() {
		lb, err := p.factory.Get(ctx, target)
		if err != nil || lb.GetPicker().Next(ctx, nil) == nil {
			b.Fatal(err)
		}
	}
}
