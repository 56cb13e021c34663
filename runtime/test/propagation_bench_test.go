package test

import (
	"context"
	"slices"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/kitex-contrib/kitex-etcd/golden/thrift_unary/kitex_gen/api"
	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
	"github.com/kitex-contrib/kitex-etcd/runtime/etcdtest"
)

// BenchmarkPropagation measures the time from the beginning of a Put of a new instance until a call of a stock Kitex
// client lands on it, and beside it, for the same Puts, until a raw watch sees the record: the floor. Kitex's polling
// needs up to 5 s for the same.
func BenchmarkPropagation(b *testing.B) { benchPropagation(b) }

// BenchmarkPropagationWithSnapshots is the same with lists that are stored: it must not take longer.
func BenchmarkPropagationWithSnapshots(b *testing.B) {
	benchPropagation(b, etcd.WithSnapshots(b.TempDir()))
}

func benchPropagation(b *testing.B, opts ...etcd.Option) {
	cluster := etcdtest.Start(b)
	raw, watching := etcdClient(b, cluster.Endpoints()), etcdClient(b, cluster.Endpoints())
	c := connect(b, cluster, opts...)
	old, fresh := serveHello(b), serveHello(b)
	put(b, raw, "Hello", old.addr)
	cli := newHello(b, c)
	awaitEcho(b, cli, old.addr)
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	events := watching.Watch(ctx, etcd.DefaultPrefix+"/Hello/", clientv3.WithPrefix(), clientv3.WithFilterDelete())

	var call, watch []time.Duration
	for b.Loop() {
		landed := make(chan time.Duration, 1)
		begin := time.Now()
		go func() {
			for {
				resp, err := cli.Echo(ctx, &api.Request{})
				if err != nil || resp.Message == fresh.addr {
					landed <- time.Since(begin)
					return
				}
			}
		}()
		seen := make(chan time.Duration, 1)
		go func() {
			<-events
			seen <- time.Since(begin)
		}()
		put(b, raw, "Hello", fresh.addr)
		call, watch = append(call, <-landed), append(watch, <-seen)

		remove(b, raw, "Hello", fresh.addr)
		await(b, c, "Hello", old.addr)
		awaitEcho(b, cli, old.addr)
	}
	for name, times := range map[string][]time.Duration{"call": call, "watch": watch} {
		slices.Sort(times)
		b.ReportMetric(times[len(times)/2].Seconds()*1e3, name+"-p50-ms")
		b.ReportMetric(times[len(times)*99/100].Seconds()*1e3, name+"-p99-ms")
	}
	b.ReportMetric(0, "ns/op") // the loop does more than what is measured
}
