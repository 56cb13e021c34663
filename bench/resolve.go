package main

import (
	"context"
	"fmt"
	"maps"
	"sync/atomic"

	"github.com/cloudwego/kitex/pkg/discovery"
	old "github.com/kitex-contrib/registry-etcd"
)

// resolveFamily is what a program pays to have the instances of a service.
func resolveFamily(sizes ...int) family {
	f := family{name: "resolve", quick: 2, about: "One look-up of a service's instances, with nothing changing"}
	for _, n := range sizes {
		name := fmt.Sprintf("resolve_%d", n)
		f.rows = append(f.rows,
			row{name: name, what: fmt.Sprintf("time to have %d instances", n), unit: duration, targets: []target{atMost(25), timesOf(nothing, 1.5)}},
			row{name: name + "_allocs", what: "allocations of it", unit: count, targets: []target{atMost(0)}},
		)
	}
	f.open = func(b *bench) ([]side, error) {
		var sides []side
		for _, p := range peers {
			if p.find == nil {
				continue
			}
			finds := make(map[int]func() (int, error))
			for _, n := range sizes {
				service := p.service(fmt.Sprintf("%d-instances", n))
				if err := p.seed(b, service, n); err != nil {
					return nil, err
				}
				find, err := p.find(b, service)
				if err != nil {
					return nil, err
				}
				if _, err := find(); err != nil { // libraries that watch begin here
					return nil, err
				}
				finds[n] = find
			}
			sides = append(sides, side{p.name, func(context.Context) (values, error) { return resolveTurn(sizes, finds) }})
		}
		return append(sides, floorOfResolve(sizes)), nil
	}
	return f
}

func resolveTurn(sizes []int, finds map[int]func() (int, error)) (values, error) {
	all := make(values)
	for _, n := range sizes {
		find := finds[n]
		v, err := benchmark(fmt.Sprintf("resolve_%d", n), func() error {
			if found, err := find(); err != nil || found != n {
				return fmt.Errorf("found %d of %d instances: %w", found, n, err)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		maps.Copy(all, v)
	}
	return all, nil
}

// floorOfResolve is a service looked up in a map, and a list that something else may replace.
func floorOfResolve(sizes []int) side {
	services := make(map[string]*atomic.Pointer[[]discovery.Instance])
	finds := make(map[int]func() (int, error))
	for _, n := range sizes {
		name, list := fmt.Sprint(n), make([]discovery.Instance, n)
		services[name] = new(atomic.Pointer[[]discovery.Instance])
		services[name].Store(&list)
		finds[n] = func() (int, error) { return len(*services[name].Load()), nil }
	}
	return side{nothing, func(context.Context) (values, error) { return resolveTurn(sizes, finds) }}
}

// refreshFamily is what Kitex does every 5 s for every service that a client calls.
func refreshFamily(n int) family {
	return family{
		name:  "refresh",
		about: fmt.Sprintf("What Kitex asks of a resolver every 5 s, for an unchanged service of %d: Resolve and Diff", n),
		rows: []row{
			{name: "refresh", what: "time", unit: duration, targets: []target{atMost(200)}},
			{name: "refresh_allocs", what: "allocations", unit: count, targets: []target{atMost(0)}},
			{name: "refresh_bytes", what: "garbage", unit: size},
		},
		open: func(b *bench) ([]side, error) {
			const service = "bench-refresh"
			if err := peers[0].seed(b, service, n); err != nil {
				return nil, err
			}
			conn, err := b.connect()
			if err != nil {
				return nil, err
			}
			predecessor, err := old.NewEtcdResolver(b.etcd.endpoints, quietly)
			if err != nil {
				return nil, err
			}
			of := func(name string, r discovery.Resolver) side {
				return side{name, func(ctx context.Context) (values, error) { return refreshTurn(ctx, r, service, n) }}
			}
			return []side{of(ours, conn.Resolver()), of(before, predecessor)}, nil
		},
	}
}

func refreshTurn(ctx context.Context, r discovery.Resolver, service string, n int) (values, error) {
	prev, err := r.Resolve(ctx, service)
	if err != nil {
		return nil, err
	}
	return benchmark("refresh", func() error {
		next, err := r.Resolve(ctx, service)
		if err != nil {
			return err
		}
		if _, changed := r.Diff(service, prev, next); changed || len(next.Instances) != n {
			return fmt.Errorf("%d of %d instances, changed: %v", len(next.Instances), n, changed)
		}
		prev = next
		return nil
	})
}
