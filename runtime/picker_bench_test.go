package etcd

import (
	"context"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/cloudwego/kitex/pkg/discovery"
	"github.com/cloudwego/kitex/pkg/loadbalance"
	"github.com/cloudwego/kitex/pkg/loadbalance/lbcache"
	"github.com/cloudwego/kitex/pkg/rpcinfo"
)

// testPusher returns the pushing balancer of c for Kitex's own intervals, with a balancer of a client's if lb is not nil,
// and the CacheKey of testService.
func testPusher(c *Conn, lb loadbalance.Loadbalancer) (p *pushBalancer, cacheKey string) {
	p, id := c.directory.balance.pusher(lbcache.Options{Cacheable: true, RefreshInterval: kitexRefresh, ExpireInterval: kitexExpire})
	desc := testService
	if lb != nil {
		p.adopt(id, lb)
		desc = joinTarget(testService, id)
	}
	return p, p.prefix + desc
}

// BenchmarkGetPicker compares Kitex's balancer alone with the same behind the push.
func BenchmarkGetPicker(b *testing.B) {
	for _, n := range []int{1, 10_000} {
		c, _ := syncedConn(b, n)
		p, key := testPusher(c, nil)
		res, err := c.Resolver().Resolve(context.Background(), testService)
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
	c, _ := syncedConn(b, 1000)
	p, _ := testPusher(c, nil)
	ctx := context.Background()
	target := rpcinfo.NewEndpointInfo(testService, "echo", nil, nil)
	b.ReportAllocs()
	for b.Loop() {
		lb, err := p.factory.Get(ctx, target)
		if err != nil || lb.GetPicker().Next(ctx, nil) == nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkChange is one change of a service: taking it over and making the new list and its differences, without and
// with Kitex's building of the picker.
func BenchmarkChange(b *testing.B) {
	for _, n := range []int{100, 10_000} {
		b.Run(fmt.Sprintf("picker=false/n=%d", n), func(b *testing.B) { benchmarkChange(b, n, func([]discovery.Instance, []discovery.Instance) {}) })
		b.Run(fmt.Sprintf("picker=true/n=%d", n), func(b *testing.B) {
			lb := loadbalance.NewWeightedBalancer().(loadbalance.Rebalancer)
			benchmarkChange(b, n, func(_, next []discovery.Instance) {
				lb.Rebalance(discovery.Change{Result: discovery.Result{Cacheable: true, CacheKey: "x", Instances: next}})
			})
		})
	}
}

func benchmarkChange(b *testing.B, n int, rebuild func(prev, next []discovery.Instance)) {
	r := &testRoster{roster: newRoster("p/s/", 10, time.Minute), living: make(map[int64]bool)}
	for i := range n {
		if err := r.put(r.kv(fmt.Sprintf("10.0.%d.%d:80", i>>8, i&255), 1)); err != nil {
			b.Fatal(err)
		}
	}
	prev, _ := r.publish()
	kv := r.kv("10.0.0.77:80", 1)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		kv.Value = fmt.Appendf(kv.Value[:0], `{"address":"10.0.0.77:80","weight":%d}`, 1+i%2)
		if err := r.put(kv); err != nil {
			b.Fatal(err)
		}
		next, differs := r.publish()
		if _, updated, _ := diff(prev, next); !differs || len(updated) != 1 {
			b.Fatal("no change")
		}
		rebuild(prev, next)
		prev = next
	}
}

// BenchmarkFootprint is what one process holds for a Conn that discovers 20 services of 10 instances and registers one:
// goroutines and heap above those before it.
func BenchmarkFootprint(b *testing.B) {
	c0, cli := syncedConn(b, 1)
	for i := range 20 {
		for j := range 10 {
			put(b, cli, fmt.Sprint("Service", i), fmt.Sprintf("10.0.%d.%d:80", i, j))
		}
	}
	endpoints := c0.Client().Endpoints()
	var goroutines, heap float64
	for b.Loop() {
		before, beforeHeap := runtime.NumGoroutine(), liveHeap()
		c := connectTo(b, endpoints)
		mustRegister(b, c.Registry(), serverInfo("Registered", "10.1.1.1:80"))
		for i := range 20 {
			if list, err := c.Instances(context.Background(), fmt.Sprint("Service", i)); err != nil || len(list) != 10 {
				b.Fatal(len(list), err)
			}
		}
		// The embedded etcd has goroutines of its own for each connection, stream and watch: they are in the figure.
		goroutines += float64(runtime.NumGoroutine() - before)
		heap += float64(int64(liveHeap()) - int64(beforeHeap))
		if err := c.Close(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(goroutines/float64(b.N), "goroutines")
	b.ReportMetric(heap/float64(b.N)/1e6, "MB")
}

func liveHeap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
