package roster

import (
	"fmt"
	"testing"
	"time"

	"github.com/cloudwego/kitex/pkg/discovery"
	"github.com/cloudwego/kitex/pkg/loadbalance"
)

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
	r := &testRoster{Roster: New("p/s/", 10, time.Minute), living: make(map[int64]bool)}
	for i := range n {
		if err := r.Put(r.kv(fmt.Sprintf("10.0.%d.%d:80", i>>8, i&255), 1)); err != nil {
			b.Fatal(err)
		}
	}
	prev, _ := r.Publish()
	kv := r.kv("10.0.0.77:80", 1)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		kv.Value = fmt.Appendf(kv.Value[:0], `{"address":"10.0.0.77:80","weight":%d}`, 1+i%2)
		if err := r.Put(kv); err != nil {
			b.Fatal(err)
		}
		next, differs := r.Publish()
		if _, updated, _ := Diff(prev, next); !differs || len(updated) != 1 {
			b.Fatal("no change")
		}
		rebuild(prev, next)
		prev = next
	}
}
