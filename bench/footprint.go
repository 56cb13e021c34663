package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"time"

	kratosetcd "github.com/go-kratos/kratos/contrib/registry/etcd/v2"
	kratosregistry "github.com/go-kratos/kratos/v2/registry"
	old "github.com/kitex-contrib/registry-etcd"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/naming/endpoints"

	"github.com/cloudwego/kitex/pkg/registry"
	"github.com/cloudwego/kitex/pkg/utils"
)

const footprintServices, footprintInstances = 20, 50

// footprintFamily is what a process carries that registers one service and calls some.
func footprintFamily() family {
	libs := []string{ours, before, kratos, naming}
	return family{
		name:  "footprint",
		quick: 1,
		about: fmt.Sprintf("What a process holds more when it has registered one service and discovered %d services of %d. registry-etcd has a resolver "+
			"for each service. kratos and etcd naming share one etcd client, which their users have to bring. All run with their default loggers: that of an "+
			"etcd client takes 0.46 MB of heap, and ours turns it off", footprintServices, footprintInstances),
		rows: []row{
			{name: "footprint_conns", what: "connections to etcd", unit: count, targets: []target{atMost(1)}},
			{name: "footprint_goroutines", what: "goroutines", unit: count, targets: []target{atMost(60)}},
			{name: "footprint_heap", what: "heap in use after a collection", unit: size, targets: []target{atMost(1e6)}},
		},
		open: func(b *bench) ([]side, error) {
			var sides []side
			for _, p := range peers {
				for i, lib := range libs {
					if p.name != lib {
						continue
					}
					for s := range footprintServices {
						if err := p.seed(b, p.service(fmt.Sprintf("%d-footprint", s)), footprintInstances); err != nil {
							return nil, err
						}
					}
					sides = append(sides, side{lib, func(context.Context) (values, error) { return footprintTurn(b, i) }})
				}
			}
			return sides, nil
		},
	}
}

func footprintTurn(b *bench, lib int) (values, error) {
	px, err := b.proxy()
	if err != nil {
		return nil, err
	}
	c, err := startChild("footprint", []string{fmt.Sprint(lib), px.endpoints()[0]})
	if err != nil {
		return nil, err
	}
	defer c.close()
	v := make(values)
	if err := c.read(&v); err != nil {
		return nil, err
	}
	v["footprint_conns"] = []float64{float64(px.conns.Load())}
	return v, nil
}

// carryFootprint is what the process does.
func carryFootprint(args []string) error {
	lib := map[string]string{"0": ours, "1": before, "2": kratos, "3": naming}[args[0]]
	b := &bench{ctx: context.Background(), etcd: &etcdProcess{endpoints: args[1:]}}
	heap, goroutines := inUse()
	keep, err := openFootprint(b, lib)
	if err != nil {
		return err
	}
	time.Sleep(time.Second) // nothing tells when the goroutines that only begin have ended, and these must not be counted
	heapAfter, goroutinesAfter := inUse()
	err = json.NewEncoder(os.Stdout).Encode(values{
		"footprint_heap":       {heapAfter - heap},
		"footprint_goroutines": {goroutinesAfter - goroutines},
	})
	awaitParent()
	runtime.KeepAlive(keep)
	return err
}

func inUse() (heap, goroutines float64) {
	runtime.GC()
	runtime.GC() // sync.Pools give up what they hold at the second
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc), float64(runtime.NumGoroutine())
}

// openFootprint registers and discovers, and returns what must stay.
func openFootprint(b *bench, lib string) (keep []any, err error) {
	info := &registry.Info{ServiceName: "bench-footprint", Addr: utils.NewNetAddr("tcp", address(1)), Weight: 10}
	var p peer
	for _, p = range peers {
		if p.name == lib {
			break
		}
	}
	service := func(i int) string { return p.service(fmt.Sprintf("%d-footprint", i)) }
	switch lib {
	case ours:
		conn, err := b.connect()
		if err != nil {
			return nil, err
		}
		if err := conn.Registry().Register(info); err != nil {
			return nil, err
		}
		for i := range footprintServices {
			if _, err := conn.Resolver().Resolve(b.ctx, service(i)); err != nil {
				return nil, err
			}
		}
		return []any{conn}, nil
	case before:
		r, err := old.NewEtcdRegistry(b.etcd.endpoints)
		if err != nil {
			return nil, err
		}
		if err := r.Register(info); err != nil {
			return nil, err
		}
		keep = append(keep, r)
		for i := range footprintServices {
			r, err := old.NewEtcdResolver(b.etcd.endpoints)
			if err != nil {
				return nil, err
			}
			if _, err := r.Resolve(b.ctx, service(i)); err != nil {
				return nil, err
			}
			keep = append(keep, r)
		}
		return keep, nil
	}
	client, err := clientv3.New(clientv3.Config{Endpoints: b.etcd.endpoints})
	if err != nil {
		return nil, err
	}
	b.shared = client
	if lib == kratos {
		instance := &kratosregistry.ServiceInstance{ID: address(1), Name: info.ServiceName, Endpoints: []string{"grpc://" + address(1)}}
		r := kratosetcd.New(client)
		if err := r.Register(b.ctx, instance); err != nil {
			return nil, err
		}
		keep = append(keep, r)
	} else if err := registerNaming(b.ctx, client, info.ServiceName); err != nil {
		return nil, err
	}
	for i := range footprintServices {
		if err := p.watch(b, service(i), func(string) {}); err != nil {
			return nil, err
		}
	}
	return append(keep, client), nil
}

// registerNaming registers with etcd's own library, whose users keep the lease themselves.
func registerNaming(ctx context.Context, client *clientv3.Client, service string) error {
	lease, err := keptLease(ctx, client)
	if err != nil {
		return err
	}
	m, err := endpoints.NewManager(client, service)
	if err != nil {
		return err
	}
	return m.AddEndpoint(ctx, service+"/"+address(1), endpoints.Endpoint{Addr: address(1)}, clientv3.WithLease(lease))
}
