package picking

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"

	kitex "github.com/cloudwego/kitex/pkg/discovery"
	"github.com/cloudwego/kitex/pkg/klog"
	"github.com/cloudwego/kitex/pkg/loadbalance"

	"github.com/kitex-contrib/kitex-etcd/runtime/internal/record"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/roster"
)

func tagged(addr string, tags map[string]string) kitex.Instance {
	return roster.NewInstance(addr, record.Record{Network: "tcp", Address: addr, Weight: 10, Tags: tags})
}

type laneKey struct{}

func inLane(lane string) context.Context {
	return context.WithValue(context.Background(), laneKey{}, lane)
}

func laneOf(ctx context.Context) string {
	lane, _ := ctx.Value(laneKey{}).(string)
	return lane
}

var balancers = map[string]func() loadbalance.Loadbalancer{
	"weighted":    loadbalance.NewWeightedBalancer,
	"random":      loadbalance.NewWeightedRandomBalancer,
	"alias":       loadbalance.NewWeightedRandomWithAliasMethodBalancer,
	"interleaved": loadbalance.NewInterleavedWeightedRoundRobinBalancer,
	"consistent hash": func() loadbalance.Loadbalancer {
		return loadbalance.NewConsistBalancer(loadbalance.NewConsistentHashOption(func(_ context.Context, req any) string { return fmt.Sprint(req) }))
	},
	"user's own": func() loadbalance.Loadbalancer { return first{} },
}

// first is a balancer that keeps nothing: it picks the first of what it is given.
type first struct{ list []kitex.Instance }

func (first) Name() string                                  { return "first" }
func (first) GetPicker(res kitex.Result) loadbalance.Picker { return first{res.Instances} }
func (f first) Next(context.Context, any) kitex.Instance {
	if len(f.list) == 0 {
		return nil
	}
	return f.list[0]
}

// TestRoutesProperty: whatever a list becomes, each call goes where it should: to its lane, else to those without the tag; within these
// to those preferred while there are enough of them.
func TestRoutesProperty(t *testing.T) {
	const atLeast = 2
	for name, lb := range balancers {
		t.Run(name, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(1, 2))
			r := routed(lb(), Route{Prefer: &Prefer{"zone", "a", atLeast}})
			r = routed(r, Route{Lane: &Lane{"lane", laneOf}})
			for range 200 {
				var list []kitex.Instance
				for i := range rng.IntN(12) {
					tags := make(map[string]string)
					if lane := rng.IntN(4); lane > 0 {
						tags["lane"] = fmt.Sprint(lane)
					}
					tags["zone"] = []string{"a", "b"}[rng.IntN(2)]
					list = append(list, tagged(fmt.Sprintf("h%02d:1", i), tags))
				}
				r.Rebalance(kitex.Change{Result: kitex.Result{Cacheable: true, CacheKey: "k", Instances: list}})
				for _, cacheable := range []bool{true, false} {
					picker := r.GetPicker(kitex.Result{Cacheable: cacheable, CacheKey: "k", Instances: list})
					for _, lane := range []string{"", "1", "2", "3", "unknown"} {
						checkPick(t, list, lane, atLeast, picker.Next(inLane(lane), rng.IntN(100)))
					}
				}
			}
			r.Delete(kitex.Change{Result: kitex.Result{Cacheable: true, CacheKey: "k"}})
			if n := len(*r.all.Load()); n != 0 {
				t.Errorf("%d divisions are kept", n)
			}
		})
	}
}

func checkPick(t *testing.T, list []kitex.Instance, lane string, atLeast int, got kitex.Instance) {
	t.Helper()
	var base, in []kitex.Instance
	for _, inst := range list {
		switch l, _ := inst.Tag("lane"); l {
		case "":
			base = append(base, inst)
		case lane:
			in = append(in, inst)
		}
	}
	if len(in) == 0 {
		in = base
	}
	var near []kitex.Instance
	for _, inst := range in {
		if zone, _ := inst.Tag("zone"); zone == "a" {
			near = append(near, inst)
		}
	}
	if len(near) >= atLeast {
		in = near
	}
	if got == nil && len(in) == 0 {
		return
	}
	for _, inst := range in {
		if inst == got {
			return
		}
	}
	t.Fatalf("a call of lane %q got %v, want one of %v", lane, got, in)
}

// TestRouterKeepsNothingOld: picks that run while a list changes leave nothing behind of the list as it was.
func TestRouterKeepsNothingOld(t *testing.T) {
	before := []kitex.Instance{tagged("a:1", map[string]string{"lane": "x"})}
	after := []kitex.Instance{tagged("b:1", nil)}
	for range 5000 {
		r := routed(first{}, Route{Lane: &Lane{"lane", laneOf}})
		was := kitex.Result{Cacheable: true, CacheKey: "k", Instances: before}
		var all sync.WaitGroup
		r.Rebalance(kitex.Change{Result: was})
		for range 4 {
			all.Go(func() { r.GetPicker(was) })
		}
		all.Go(func() {
			r.Rebalance(kitex.Change{Result: kitex.Result{Cacheable: true, CacheKey: "k", Instances: after}})
		})
		all.Wait()
		if got := r.GetPicker(was).Next(inLane("x"), nil); got != after[0] {
			t.Fatalf("got %v, want %v", got, after[0])
		}
	}
}

// TestLaneFunctionPanics: the call goes to the base, and one line says so.
func TestLaneFunctionPanics(t *testing.T) {
	var log bytes.Buffer
	klog.SetOutput(&log)
	defer klog.SetOutput(os.Stderr)
	r := routed(nil, Route{Lane: &Lane{"lane", func(context.Context) string { panic("a bug") }}})
	list := []kitex.Instance{tagged("a:1", nil), tagged("b:1", map[string]string{"lane": "x"})}
	picker := r.GetPicker(kitex.Result{Cacheable: true, CacheKey: "k", Instances: list})
	for range 10 {
		if got := picker.Next(context.Background(), nil); got != list[0] {
			t.Fatalf("got %v", got)
		}
	}
	if n := strings.Count(log.String(), `the function given to Lane("lane", …) panicked`); n != 1 || !strings.Contains(log.String(), "a bug") {
		t.Errorf("%d lines say so: %s", n, log.String())
	}
}

// BenchmarkRoute is one pick: of Kitex's balancer alone, with Prefer, and with a Lane, of 1,000 instances in 100 lanes.
func BenchmarkRoute(b *testing.B) {
	var list []kitex.Instance
	for i := range 1000 {
		list = append(list, tagged(fmt.Sprintf("10.0.%d.%d:80", i>>8, i&255), map[string]string{"lane": fmt.Sprint(i % 100), "zone": "a"}))
	}
	ctx := inLane("42")
	for name, lb := range map[string]loadbalance.Loadbalancer{
		"none":   loadbalance.NewWeightedBalancer(),
		"prefer": routed(nil, Route{Prefer: &Prefer{"zone", "a", 2}}),
		"lane":   routed(nil, Route{Lane: &Lane{"lane", laneOf}}),
	} {
		b.Run("route="+name, func(b *testing.B) {
			res := kitex.Result{Cacheable: true, CacheKey: "k", Instances: list}
			b.ReportAllocs()
			for b.Loop() {
				if lb.GetPicker(res).Next(ctx, nil) == nil {
					b.Fatal("no instance")
				}
			}
		})
	}
}
