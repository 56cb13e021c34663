package picking

import (
	"context"
	"runtime"
	"strings"
	"testing"

	"github.com/cloudwego/kitex/client"
	kitex "github.com/cloudwego/kitex/pkg/discovery"
	"github.com/cloudwego/kitex/pkg/rpcinfo"
	"github.com/cloudwego/kitex/pkg/serviceinfo"
	"github.com/cloudwego/kitex/pkg/utils"

	"github.com/kitex-contrib/kitex-etcd/runtime/internal/discovery"
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

// TestTargetsNameTheirConn: a client's target names its service and its Conn, and nothing in a name is taken for something else. A target
// that names no Conn is an error of a call; Kitex's refresh finds that nothing has changed.
func TestTargetsNameTheirConn(t *testing.T) {
	dir, s := discovery.NewForTesting(testService)
	show(s, "a:1")
	w := New(Config{Directory: dir, KeepAll: true})
	defer runtime.KeepAlive(w)
	target := func(service, tag string) string {
		tags := map[string]string{targetTag: tag}
		if tag == "" {
			tags = nil
		}
		return sharedResolver{}.Target(context.Background(), rpcinfo.NewEndpointInfo(service, "", nil, tags))
	}
	own := joinTarget(testService, w.adopt(byKey()))
	for _, desc := range []string{target(testService, joinTarget(testService, w.id)), target(testService, joinTarget("Other", w.id)), target(testService, own)} {
		if res, err := (sharedResolver{}).Resolve(context.Background(), desc); err != nil || len(res.Instances) != 1 {
			t.Errorf("%q: %v, %v", desc, res.Instances, err)
		}
	}
	ri := rpcinfo.NewRPCInfo(nil, rpcinfo.EmptyEndpointInfo(), rpcinfo.NewInvocation("", ""), rpcinfo.NewRPCConfig(), nil)
	call := rpcinfo.NewCtxWithRPCInfo(context.Background(), ri)
	for _, desc := range []string{
		target(testService, ""), target(testService, testService), target(testService, joinTarget(testService, "")),
		target(testService, joinTarget(testService, "no number")), target(joinTarget(testService, w.id), ""),
	} {
		if _, err := (sharedResolver{}).Resolve(call, desc); err != errNoConn {
			t.Errorf("a call with the target %q: %v", desc, err)
		}
		was := kitex.Result{Instances: s.Latest()}
		is, err := sharedResolver{}.Resolve(context.Background(), desc)
		if err != nil {
			t.Errorf("a refresh of the target %q: %v", desc, err)
		}
		if ch, ok := (sharedResolver{}).Diff(keyPrefix+desc, was, is); ok {
			t.Errorf("a refresh of the target %q: %+v", desc, ch)
		}
	}
	if _, err := (sharedResolver{}).Resolve(call, target(joinTarget(testService, w.id), joinTarget(joinTarget(testService, w.id), w.id))); err == nil ||
		!strings.Contains(err.Error(), "control character") {
		t.Errorf("a service's name that looks like a target: %v", err)
	}
}

// TestAWiringEndsWithItsUsers: it lives as long as its Conn or one of its clients, and Kitex's caches do not count.
func TestAWiringEndsWithItsUsers(t *testing.T) {
	dir, s := discovery.NewForTesting(testService)
	show(s, "a:1")
	w := New(Config{Directory: dir, KeepAll: true, Notify: func(Event) {}})
	id := w.id
	cli, err := client.NewClient(&serviceinfo.ServiceInfo{}, client.WithDestService(testService), client.WithResolver(w.Resolver()),
		client.TailOption(client.Option{F: func(o *client.Options, _ *utils.Slice) { w.Wire(o) }}))
	if err != nil {
		t.Fatal(err)
	}
	w = nil
	for range 3 {
		runtime.GC()
	}
	if wiringOf(id) == nil {
		t.Error("gone, and its client is not")
	}
	runtime.KeepAlive(cli)
	cli = nil
	eventually(t, "nothing is left", func() bool {
		runtime.GC()
		_, named := wirings.Load(id)
		return !named
	})
}
