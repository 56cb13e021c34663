package picking

import (
	"context"
	"testing"
	"time"

	kitex "github.com/cloudwego/kitex/pkg/discovery"
	"github.com/cloudwego/kitex/pkg/rpcinfo"
	"github.com/cloudwego/kitex/pkg/rpcinfo/remoteinfo"

	"github.com/kitex-contrib/kitex-etcd/runtime/internal/discovery"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/health"
)

// BenchmarkAttempt is what an attempt that succeeds pays for ejection: the instance middleware alone, around nothing, while
// nothing is suspect, for clients of all kinds; while an instance that is not called is ejected; and while one is suspect.
func BenchmarkAttempt(b *testing.B) {
	for _, state := range []string{"without", "quiet", "retries", "shared", "ejected", "suspect"} {
		b.Run("state="+state, func(b *testing.B) {
			w, _ := syncedWiring(b, 100)
			e := w.monitor.ejector(testService)
			list := mustService(b, w).Latest()
			if state == "ejected" {
				e.follow(list)
				addr := list[0].Address().String()
				e.tracker.EjectForTesting(addr, list[0])
				e.tracker.Apply(e.tracker.Excluded())
			}
			if state == "suspect" {
				e.follow(list)
				e.tracker.Report(list[0].Address().String(), list[0], health.NoAnswer, nil, nil, time.Now())
			}
			call := (&watch{ejector: e, retries: state == "retries", shared: state == "shared"}).middleware(func(context.Context, any, any) error { return nil })
			if state == "without" {
				call = func(context.Context, any, any) error { return nil }
			}
			ctx := attemptContext(list[1])
			b.ReportAllocs()
			for b.Loop() {
				if err := call(ctx, nil, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func mustService(tb testing.TB, w *Wiring) *discovery.Service {
	s, err := w.cfg.Directory.Service(testService)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func attemptContext(inst kitex.Instance) context.Context {
	to := remoteinfo.NewRemoteInfo(&rpcinfo.EndpointBasicInfo{ServiceName: testService}, "echo")
	to.SetInstance(inst)
	ri := rpcinfo.NewRPCInfo(nil, to, rpcinfo.NewInvocation(testService, "echo"), rpcinfo.NewRPCConfig(), nil)
	return rpcinfo.NewCtxWithRPCInfo(context.Background(), ri)
}
