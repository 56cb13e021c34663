package main

import (
	"context"
	"fmt"

	"github.com/cloudwego/kitex/client"
	old "github.com/kitex-contrib/registry-etcd"

	"github.com/kitex-contrib/kitex-etcd/example/plain/kitex_gen/api"
	"github.com/kitex-contrib/kitex-etcd/example/plain/kitex_gen/api/hello"
	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
)

// prefixesFamily is a process with connections to etcd that differ in their prefixes, or go to different clusters.
func prefixesFamily() family {
	const calls = 100
	return family{
		name:  "prefixes",
		quick: 2,
		about: "A process has three clients of a service: two whose connections to etcd have different prefixes, and one of another cluster. " +
			"For each there is one server",
		rows: []row{
			{name: "prefixes_mixed", what: fmt.Sprintf("calls to a server that is another client's, of %d", 3*calls), unit: count,
				targets: []target{atMost(0)}},
		},
		open: func(b *bench) ([]side, error) {
			other, err := startEtcd()
			if err != nil {
				return nil, err
			}
			b.cleanup(other.close)
			places := []place{{etcd: b.etcd, prefix: "bench-a"}, {etcd: b.etcd, prefix: "bench-b"}, {etcd: other, prefix: "bench-a"}}
			for i := range places {
				if places[i].server, err = b.serve(); err != nil {
					return nil, err
				}
			}
			turns := 0
			return eachSide(func(ctx context.Context, lib string) (values, error) {
				turns++
				service := fmt.Sprintf("bench-prefixes-%d", turns)
				for _, p := range places {
					record := pair{p.prefix + "/" + service + "/" + p.server, fmt.Sprintf(`{"network":"tcp","address":%q,"weight":10}`, p.server)}
					if err := p.etcd.put(ctx, []pair{record}); err != nil {
						return nil, err
					}
				}
				mixed := 0.0
				for _, p := range places {
					cli, err := b.clientOf(lib, p, service)
					if err != nil {
						return nil, err
					}
					for range calls {
						resp, err := cli.Echo(ctx, &api.Request{Message: "hello"})
						if err != nil {
							return nil, err
						}
						if resp.Server != p.server {
							mixed++
						}
					}
				}
				return values{"prefixes_mixed": {mixed}}, nil
			}), nil
		},
	}
}

// place is where a client finds its service, and the only server that it may find.
type place struct {
	etcd           *etcdProcess
	prefix, server string
}

// clientOf returns a client as a program has it, which shares what clients of a process share.
func (b *bench) clientOf(lib string, p place, service string) (hello.Client, error) {
	if lib == ours {
		conn, err := etcd.Connect(p.etcd.endpoints, etcd.WithEtcdServicePrefix(p.prefix))
		if err != nil {
			return nil, err
		}
		b.cleanup(func() { _ = conn.Close() })
		return hello.NewClient(service, conn.ClientOptions()...)
	}
	r, err := old.NewEtcdResolver(p.etcd.endpoints, quietly, old.WithEtcdServicePrefix(p.prefix))
	if err != nil {
		return nil, err
	}
	return hello.NewClient(service, client.WithResolver(r))
}
