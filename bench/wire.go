package main

import (
	"context"
	"fmt"
)

// wireFamily is what a look-up costs the network.
func wireFamily(sizes ...int) family {
	f := family{name: "wire", about: "Bytes between a process and etcd for one look-up of a service's instances, with nothing changing: both directions"}
	for _, n := range sizes {
		f.rows = append(f.rows, row{name: fmt.Sprintf("wire_%d", n), what: fmt.Sprintf("%d instances", n), unit: size, targets: []target{atMost(0)}})
	}
	f.open = func(b *bench) ([]side, error) {
		direct := b.etcd.endpoints
		defer func() { b.etcd.endpoints = direct }()
		var sides []side
		for _, p := range peers {
			if p.find == nil {
				continue
			}
			px, err := b.proxy()
			if err != nil {
				return nil, err
			}
			b.etcd.endpoints = px.endpoints()
			finds := make(map[int]func() (int, error))
			for _, n := range sizes {
				service := p.service(fmt.Sprintf("%d-wire", n))
				if err := p.seed(b, service, n); err != nil {
					return nil, err
				}
				if finds[n], err = p.find(b, service); err != nil {
					return nil, err
				}
				if found, err := finds[n](); err != nil || found != n { // libraries that watch begin here
					return nil, fmt.Errorf("%s found %d of %d instances: %w", p.name, found, n, err)
				}
			}
			b.etcd.endpoints = direct
			sides = append(sides, side{p.name, func(context.Context) (values, error) {
				v := make(values)
				for n, find := range finds {
					begin := px.bytes.Load()
					if _, err := find(); err != nil {
						return nil, err
					}
					v[fmt.Sprintf("wire_%d", n)] = []float64{float64(px.bytes.Load() - begin)}
				}
				return v, nil
			}})
		}
		return sides, nil
	}
	return f
}
