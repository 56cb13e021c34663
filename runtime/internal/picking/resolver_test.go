package picking

import (
	"testing"

	kitex "github.com/cloudwego/kitex/pkg/discovery"

	"github.com/kitex-contrib/kitex-etcd/runtime/internal/record"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/roster"
)

// TestDiffTellsKitex what changed, under the key that Kitex asked for.
func TestDiffTellsKitex(t *testing.T) {
	result := func(weight float64) kitex.Result {
		inst := roster.NewInstance("k", record.Record{Network: "tcp", Address: "a:1", Weight: weight})
		return kitex.Result{Cacheable: true, Instances: []kitex.Instance{inst}}
	}
	r, prev, next := &Resolver{}, result(10), result(11)
	ch, ok := r.Diff("x", prev, next)
	if !ok || len(ch.Updated) != 1 || ch.Updated[0] != next.Instances[0] || len(ch.Added)+len(ch.Removed) != 0 {
		t.Errorf("Diff = %+v, %v", ch, ok)
	}
	if !ch.Result.Cacheable || ch.Result.CacheKey != "x" {
		t.Errorf("the result is %+v", ch.Result)
	}
	if _, ok := r.Diff("x", prev, result(10)); ok {
		t.Error("an equal instance is a change")
	}
}
