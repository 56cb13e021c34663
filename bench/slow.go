package main

import (
	"context"
	"fmt"
	"time"

	"github.com/cloudwego/kitex/client"
)

const slowServers = 4

// slowFamily is servers of which none is better than another.
func slowFamily() family {
	const (
		timeout = 50 * time.Millisecond
		late    = 200 * time.Millisecond
		length  = 3 * time.Second
		share   = 0.15
	)
	return family{
		name:   "slow",
		rounds: 3,
		quick:  1,
		about: fmt.Sprintf("%d servers, each of which answers after %s for %s, with %d calls per second and a timeout of %s: no choice is better than "+
			"another. Then all are quick again", slowServers, duration.format(float64(late)), duration.format(float64(length)), callsPerSecond,
			duration.format(float64(timeout))),
		rows: []row{
			{name: "slow_uneven", what: fmt.Sprintf("an even share of the attempts over the smallest one; %d %% at least mean", int(100*share)) +
				fmt.Sprintf(" %.3g at most", 1/share/slowServers), unit: count, targets: []target{atMost(1 / share / slowServers)}},
			{name: "slow_calls", what: "failed calls that begin later than 1 s after all are quick again", unit: count, targets: []target{atMost(0)}},
		},
		open: func(b *bench) ([]side, error) {
			return callingSides(b, "slow", func(ctx context.Context, lib, service string) (values, error) {
				v, ways, err := behindProxies(ctx, b, lib, service, slowServers)
				if err != nil {
					return nil, err
				}
				t, err := v.traffic(ctx, b, lib, service, callerOptions{timeout: timeout, options: []client.Option{longPool()}})
				if err != nil {
					return nil, err
				}
				defer t.stop()
				begin := time.Now()
				for _, w := range ways {
					w.narrow(0, late/2)
				}
				if err := pause(ctx, length); err != nil {
					return nil, err
				}
				all, least := 0, -1
				for _, w := range ways {
					n := t.attemptsAt(w.addr, begin)
					all += n
					if least < 0 || n < least {
						least = n
					}
					w.narrow(0, 0)
				}
				quick := time.Now()
				if err := pause(ctx, 3*time.Second); err != nil {
					return nil, err
				}
				t.stop()
				return values{
					// Half an attempt stands for none: the share has to be a number.
					"slow_uneven": {float64(all) / slowServers / max(float64(least), 0.5)},
					"slow_calls":  {float64(len(later(t.failedCalls(quick), time.Second)))},
				}, nil
			}), nil
		},
	}
}

// reviveFamily is a service that is gone, and comes back.
func reviveFamily() family {
	const length = 3 * time.Second
	return family{
		name:   "revive",
		rounds: 3,
		quick:  1,
		about: fmt.Sprintf("%d servers refuse connections for %s, with %d calls per second; their records stand. Then one accepts them", slowServers,
			duration.format(float64(length)), callsPerSecond),
		rows: []row{
			{name: "revive", what: "from when it accepts until it has answered a call", unit: duration, targets: []target{atMost(float64(time.Second))}},
		},
		open: func(b *bench) ([]side, error) {
			return callingSides(b, "revive", func(ctx context.Context, lib, service string) (values, error) {
				v, ways, err := behindProxies(ctx, b, lib, service, slowServers)
				if err != nil {
					return nil, err
				}
				t, err := v.traffic(ctx, b, lib, service, callerOptions{timeout: crashTimeout, options: []client.Option{longPool()}})
				if err != nil {
					return nil, err
				}
				defer t.stop()
				for _, w := range ways {
					w.shut()
				}
				if err := pause(ctx, length); err != nil {
					return nil, err
				}
				if err := ways[0].open(); err != nil {
					return nil, err
				}
				at := time.Now()
				return values{"revive": {within(ctx, at, againLimit, func() bool { return t.answered(v.addr, at) })}}, ctx.Err()
			}), nil
		},
	}
}

// callingSides are the libraries with clients of their own, each turn with a service of its own.
func callingSides(b *bench, name string, turn func(ctx context.Context, lib, service string) (values, error)) []side {
	turns := 0
	var sides []side
	for _, lib := range callingLibs {
		sides = append(sides, side{lib, func(ctx context.Context) (values, error) {
			turns++
			return turn(ctx, lib, fmt.Sprintf("bench-%s-%d", name, turns))
		}})
	}
	return sides
}
