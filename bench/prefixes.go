package main

import (
	"context"
	"fmt"

	"github.com/cloudwego/kitex/client"
	old "github.com/kitex-contrib/registry-etcd"

	"github.com/kitex-contrib/kitex-etcd/example/kitex_gen/api"
	"github.com/kitex-contrib/kitex-etcd/example/kitex_gen/api/hello"
	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
)

// prefixesFamily is a process with two connections to etcd that differ in their prefixes.
func prefixesFamily() family {
	const calls = 100
	return family{
		name:  "prefixes",
		quick: 2,
		about: "A process has two clients of a service, whose connections to etcd have different prefixes. Under each prefix stands one server",
		rows: []row{
			{name: "prefixes_mixed", what: fmt.Sprintf("calls to the other prefix's server, of %d", 2*calls), unit: count, targets: []target{atMost(0)}},
		},
		open: func(b *bench) ([]side, error) {
			prefixes := []string{"bench-a", "bench-b"}
			servers := make([]string, len(prefixes))
			for i := range servers {
				var err error
				if servers[i], err = b.serve(); err != nil {
					return nil, err
				}
			}
			turns := 0
			return eachSide(func(ctx context.Context, lib string) (values, error) {
				turns++
				service := fmt.Sprintf("bench-prefixes-%d", turns)
				var records []pair
				for i, addr := range servers {
					records = append(records, pair{prefixes[i] + "/" + service + "/" + addr, fmt.Sprintf(`{"network":"tcp","address":%q,"weight":10}`, addr)})
				}
				if err := b.etcd.put(ctx, records); err != nil {
					return nil, err
				}
				mixed := 0.0
				for i, prefix := range prefixes {
					cli, err := b.prefixClient(lib, prefix, service)
					if err != nil {
						return nil, err
					}
					for range calls {
						resp, err := cli.Echo(ctx, &api.Request{Message: "hello"})
						if err != nil {
							return nil, err
						}
						if resp.Server != servers[i] {
							mixed++
						}
					}
				}
				return values{"prefixes_mixed": {mixed}}, nil
			}), nil
		},
	}
}

// prefixClient returns a client as a program has it, which shares what clients of a process share.
func (b *bench) prefixClient(lib, prefix, service string) (hello.Client, error) {
	if lib == ours {
		conn, err := b.connect(etcd.WithEtcdServicePrefix(prefix))
		if err != nil {
			return nil, err
		}
		return hello.NewClient(service, conn.ClientOptions()...)
	}
	r, err := old.NewEtcdResolver(b.etcd.endpoints, quietly, old.WithEtcdServicePrefix(prefix))
	if err != nil {
		return nil, err
	}
	return hello.NewClient(service, client.WithResolver(r))
}
