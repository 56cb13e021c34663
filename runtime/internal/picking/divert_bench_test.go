package picking

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/cloudwego/kitex/pkg/loadbalance"
	"github.com/cloudwego/kitex/pkg/rpcinfo"
	"github.com/cloudwego/kitex/pkg/rpcinfo/remoteinfo"
)

// byKey is a balancer that goes by a key alone, the same for all.
func byKey() loadbalance.Loadbalancer {
	return loadbalance.NewConsistBalancer(loadbalance.NewConsistentHashOption(func(context.Context, any) string { return "key" }))
}

// BenchmarkDivert is what an attempt pays that has to go to another instance than its balancer sent it to, as a retry has.
func BenchmarkDivert(b *testing.B) {
	for name, lb := range map[string]loadbalance.Loadbalancer{"weighted": loadbalance.NewWeightedBalancer(), "consistent": byKey()} {
		for _, n := range []int{10, 100, 1000} {
			b.Run(fmt.Sprintf("balancer=%s/n=%d", name, n), func(b *testing.B) {
				w, _ := syncedWiring(b, n)
				p, key := testPusher(w, lb)
				svr := &rpcinfo.EndpointBasicInfo{ServiceName: testService, Tags: map[string]string{targetTag: strings.TrimPrefix(key, keyPrefix)}}
				call := (&watch{ejector: w.monitor.ejector(testService), push: p, svr: svr, retries: true}).middleware(
					func(context.Context, any, any) error { return nil })
				inst := mustService(b, w).Latest()[0]
				b.ReportAllocs()
				for b.Loop() {
					to := remoteinfo.NewRemoteInfo(svr, "echo")
					to.SetTag(rpcinfo.RetryPrevInstTag, inst.Address().String())
					to.SetInstance(inst)
					ri := rpcinfo.NewRPCInfo(nil, to, rpcinfo.NewInvocation(testService, "echo"), rpcinfo.NewRPCConfig(), nil)
					_ = call(rpcinfo.NewCtxWithRPCInfo(context.Background(), ri), nil, nil)
					if to.GetInstance() == inst {
						b.Fatal("the same instance again")
					}
				}
			})
		}
	}
}
