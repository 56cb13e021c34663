package main

import (
	"context"
	"fmt"
	"time"
)

// changeFamily is one instance more in a large service.
func changeFamily(n int) family {
	return family{
		name:  "change",
		quick: 2,
		about: fmt.Sprintf("From the beginning of the Put of one more instance in a service of %d until Kitex's balancer is handed the list, "+
			"and until that has built its picker; the floor is a raw watch", n),
		rows: []row{
			{name: "change_handed", what: "until the balancer is handed the list", unit: duration,
				targets: []target{{of: nothing, times: 1, plus: float64(time.Millisecond)}}},
			{name: "change_picked", what: "until the next call can pick it", unit: duration},
		},
		open: func(b *bench) ([]side, error) {
			server, err := b.serve()
			if err != nil {
				return nil, err
			}
			var sides []side
			for _, p := range peers {
				if p.name != ours && p.name != before && p.name != nothing {
					continue
				}
				service := p.service("change")
				if err := p.seed(b, service, n); err != nil {
					return nil, err
				}
				c := &change{propagation: propagation{b: b, peer: p, service: service, next: freshInstances}}
				if p.watch != nil {
					if err := p.watch(b, service, c.handed.saw); err != nil {
						return nil, err
					}
				} else {
					caller, err := b.newCaller(p.name, service, callerOptions{
						endpoints: b.etcd.endpoints, server: server, balancer: newProbe(c.handed.saw, c.arrivals.saw),
					})
					if err != nil {
						return nil, err
					}
					if _, err := caller.call(b.ctx); err != nil {
						return nil, err
					}
					c.caller = caller
				}
				sides = append(sides, side{p.name, c.turn})
			}
			return sides, nil
		},
	}
}

type change struct {
	propagation
	handed arrivals
}

func (c *change) turn(ctx context.Context) (values, error) {
	v := make(values)
	puts := c.b.pick(20, 5)
	if c.peer.name == before {
		puts = 1
	}
	for range puts {
		addr := address(c.next)
		c.next++
		handed, picked := c.handed.expect(addr), c.arrivals.expect(addr)
		record := c.peer.record(c.service, addr)
		begin := time.Now()
		if _, err := c.b.etcd.client.Put(ctx, record.key, record.value); err != nil {
			return nil, err
		}
		deadline := time.After(20 * time.Second)
		select {
		case at := <-handed:
			v["change_handed"] = append(v["change_handed"], float64(at.Sub(begin)))
		case <-deadline:
			return nil, fmt.Errorf("%s did not arrive", addr)
		}
		if c.caller != nil {
			select {
			case at := <-picked:
				v["change_picked"] = append(v["change_picked"], float64(at.Sub(begin)))
			case <-deadline:
				return nil, fmt.Errorf("no picker was built with %s", addr)
			}
			if _, err := c.caller.call(ctx); err != nil { // Kitex drops what is not called
				return nil, err
			}
		}
		time.Sleep(50 * time.Millisecond) // nothing tells when all that one change causes is over, and the next must not meet it
	}
	return v, c.remove(ctx)
}
