package main

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/cloudwego/kitex/client"

	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
)

const zoneTag = "zone"

// laneFamily is calls that prefer some servers, which go.
func laneFamily() family {
	return family{
		name:  "lane",
		quick: 1,
		about: fmt.Sprintf("A client calls in a lane, one call after the other, and the record of the lane's only instance is deleted: its calls go to the base of "+
			"three. And a client with %d calls per second prefers the two servers of its zone, which are killed at once (kill -9); two of another zone are "+
			"left. registry-etcd has no such thing", callsPerSecond),
		rows: []row{
			{name: "lane_base", what: "from the beginning of the deletion until a call of the lane is answered by the base", unit: duration,
				targets: []target{atMost(float64(5 * time.Millisecond))}},
			{name: "lane_calls", what: "failed calls of it", unit: count, targets: []target{atMost(0)}},
			{name: "zone_calls", what: "failed calls of the client whose zone is killed; one that a server had then cannot but fail", unit: count, targets: []target{atMost(0)}},
			{name: "zone_attempts", what: "failed attempts of it", unit: count},
		},
		open: func(b *bench) ([]side, error) {
			server, err := b.serve()
			if err != nil {
				return nil, err
			}
			turns := 0
			return []side{{ours, func(ctx context.Context) (values, error) {
				turns++
				v, err := laneTurn(ctx, b, server, fmt.Sprintf("bench-lane-%d", turns))
				if err != nil {
					return nil, err
				}
				attempts, calls, err := zoneTurn(ctx, b, fmt.Sprintf("bench-zone-%d", turns))
				v["zone_calls"], v["zone_attempts"] = []float64{float64(len(calls))}, []float64{float64(len(attempts))}
				return v, err
			}}}, nil
		},
	}
}

// laneTurn has the lane's instance leave ten times.
func laneTurn(ctx context.Context, b *bench, server, service string) (values, error) {
	const lane = "blue"
	var base []pair
	for i := range 3 {
		base = append(base, kitexRecord(service, address(i)))
	}
	if err := b.etcd.put(ctx, base); err != nil {
		return nil, err
	}
	own := pair{etcd.DefaultPrefix + "/" + service + "/" + address(3),
		fmt.Sprintf(`{"network":"tcp","address":%q,"weight":10,"tags":{"lane":%q}}`, address(3), lane)}
	var failed atomic.Int64
	c, err := b.newCaller(ours, service, callerOptions{endpoints: b.etcd.endpoints, server: server, options: []client.Option{
		longPool(), etcd.Lane("lane", func(context.Context) string { return lane }),
	}})
	if err != nil {
		return nil, err
	}
	// goes calls until an answer comes from the lane, or from the base.
	goes := func(toLane bool) error {
		for end := time.Now().Add(againLimit); ; {
			addr, err := c.call(ctx)
			switch {
			case err != nil:
				failed.Add(1)
			case (addr == address(3)) == toLane:
				return nil
			}
			if time.Now().After(end) {
				return fmt.Errorf("calls go to %s, for the lane: %v", addr, toLane)
			}
		}
	}
	v := make(values)
	for range b.pick(10, 3) {
		if err := b.etcd.put(ctx, []pair{own}); err != nil {
			return nil, err
		}
		if err := goes(true); err != nil {
			return nil, err
		}
		begin := time.Now()
		deleted := make(chan error, 1)
		go func() {
			_, err := b.etcd.client.Delete(ctx, own.key)
			deleted <- err
		}()
		if err := goes(false); err != nil {
			return nil, err
		}
		v["lane_base"] = append(v["lane_base"], float64(time.Since(begin)))
		if err := <-deleted; err != nil {
			return nil, err
		}
	}
	v["lane_calls"] = []float64{float64(failed.Load())}
	return v, nil
}

// zoneTurn kills the zone that a client prefers.
func zoneTurn(ctx context.Context, b *bench, service string) (attempts, calls []float64, err error) {
	near, err := b.startServers(ctx, serverOf{lib: ours, service: service, zone: "a"}, 2)
	if err != nil {
		return nil, nil, err
	}
	defer killAll(near)
	far, err := b.startServers(ctx, serverOf{lib: ours, service: service, zone: "b"}, 2)
	if err != nil {
		return nil, nil, err
	}
	defer killAll(far)
	v := victim{addr: near[0].addr, others: []string{near[1].addr}}
	t, err := v.traffic(ctx, b, ours, service, callerOptions{timeout: crashTimeout, options: []client.Option{longPool(), etcd.Prefer(zoneTag, "a", 1)}})
	if err != nil {
		return nil, nil, err
	}
	defer t.stop()
	begin := time.Now()
	killAll(near)
	if err := pause(ctx, crashLength); err != nil {
		return nil, nil, err
	}
	t.stop()
	return t.failedAttempts("", begin), t.failedCalls(begin), nil
}
