package main

import (
	"context"
	"fmt"

	"github.com/cloudwego/kitex/client"
	"github.com/cloudwego/kitex/pkg/discovery"
	"github.com/cloudwego/kitex/pkg/loadbalance"
	"github.com/cloudwego/kitex/pkg/loadbalance/lbcache"
	"github.com/cloudwego/kitex/pkg/rpcinfo"
	"github.com/cloudwego/kitex/pkg/utils"

	"github.com/kitex-contrib/kitex-etcd/example/plain/kitex_gen/api/hello"
)

const stock = "stock Kitex"

// pickerFamily is what each call pays for being told of changes at once.
func pickerFamily(n int) family {
	const service = "bench-picker"
	return family{
		name:  "picker",
		about: fmt.Sprintf("What Kitex asks of its balancer for each call, for a service of %d", n),
		rows: []row{
			{name: "picker", what: "time of GetPicker", unit: duration, targets: []target{timesOf(stock, 1.2)}},
			{name: "picker_allocs", what: "allocations of it", unit: count},
		},
		open: func(b *bench) ([]side, error) {
			if err := peers[0].seed(b, service, n); err != nil {
				return nil, err
			}
			conn, err := b.connect()
			if err != nil {
				return nil, err
			}
			res, err := conn.Resolver().Resolve(b.ctx, service)
			if err != nil {
				return nil, err
			}
			// What a client of ours ended up with: the factory is the one that it uses, Kitex keeps these by their names.
			var mine *client.Options
			if _, err := hello.NewClient(service, append(conn.ClientOptions(), client.TailOption(client.Option{
				F: func(o *client.Options, _ *utils.Slice) { mine = o },
			}))...); err != nil {
				return nil, err
			}
			same := discovery.SynthesizedResolver{
				TargetFunc:  func(_ context.Context, target rpcinfo.EndpointInfo) string { return target.ServiceName() },
				ResolveFunc: func(context.Context, string) (discovery.Result, error) { return res, nil },
				NameFunc:    func() string { return "bench-picker" },
			}
			of := func(name string, f *lbcache.BalancerFactory) (side, error) {
				lb, err := f.Get(b.ctx, rpcinfo.NewEndpointInfo(service, "", nil, mine.Svr.Tags))
				if err == nil && lb.GetPicker().Next(b.ctx, nil) == nil {
					err = fmt.Errorf("%s picks nothing", name)
				}
				return side{name, func(context.Context) (values, error) { return pickerTurn(lb) }}, err
			}
			a, err := of(ours, lbcache.NewBalancerFactory(mine.Resolver, mine.Balancer, *mine.BalancerCacheOpt))
			if err != nil {
				return nil, err
			}
			o, err := of(stock, lbcache.NewBalancerFactory(same, loadbalance.NewWeightedBalancer(), lbcache.Options{Cacheable: true}))
			return []side{a, o}, err
		},
	}
}

func pickerTurn(lb *lbcache.Balancer) (values, error) {
	return benchmark("picker", func() error {
		p := lb.GetPicker()
		if r, ok := p.(interface{ Recycle() }); ok { // as Kitex does after the call
			r.Recycle()
		}
		if p == nil {
			return fmt.Errorf("there is no picker")
		}
		return nil
	})
}
