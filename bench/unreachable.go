package main

import (
	"context"
	"fmt"
	"time"

	"github.com/cloudwego/kitex/client"
	"github.com/cloudwego/kitex/pkg/discovery"
	"github.com/cloudwego/kitex/pkg/loadbalance"
)

// balancers are the balancers and transports of Kitex's clients.
var balancers = []struct {
	name, what string
	options    func() []client.Option
}{
	{"weighted", "weighted round robin, connections kept", func() []client.Option {
		return []client.Option{longPool(), client.WithLoadBalancer(loadbalance.NewWeightedRoundRobinBalancer())}
	}},
	{"random", "weighted random", func() []client.Option {
		return []client.Option{longPool(), client.WithLoadBalancer(loadbalance.NewWeightedRandomBalancer())}
	}},
	{"alias", "weighted random, alias method", func() []client.Option {
		return []client.Option{longPool(), client.WithLoadBalancer(loadbalance.NewWeightedRandomWithAliasMethodBalancer())}
	}},
	{"interleaved", "interleaved weighted round robin", func() []client.Option {
		return []client.Option{longPool(), client.WithLoadBalancer(loadbalance.NewInterleavedWeightedRoundRobinBalancer())}
	}},
	{"hash", "consistent hash of a key that differs from call to call", func() []client.Option {
		key := loadbalance.NewConsistentHashOption(func(context.Context, any) string { return fmt.Sprint(time.Now().UnixNano()) })
		return []client.Option{longPool(), client.WithLoadBalancer(loadbalance.NewConsistBalancer(key))}
	}},
	{"own", "a balancer of the user's, random", func() []client.Option {
		return []client.Option{longPool(), client.WithLoadBalancer(anyOf{})}
	}},
	{"short", "a connection for each call", func() []client.Option { return []client.Option{client.WithShortConnection()} }},
	{"mux", "multiplexed connections", func() []client.Option { return []client.Option{client.WithMuxConnection(2)} }},
}

// anyOf is a balancer that a user may have written.
type anyOf struct{}

func (anyOf) GetPicker(res discovery.Result) loadbalance.Picker { return anyPicker(res.Instances) }
func (anyOf) Name() string                                      { return "any" }

type anyPicker []discovery.Instance

func (p anyPicker) Next(context.Context, any) discovery.Instance {
	if len(p) == 0 {
		return nil
	}
	return p[time.Now().UnixNano()%int64(len(p))]
}

// unreachableFamily is a server that one client alone cannot reach.
func unreachableFamily() family {
	f := family{
		name:   "unreachable",
		rounds: 3,
		quick:  1,
		about: fmt.Sprintf("One of four servers refuses the connections of this client for 5 s, while it serves others and its record stands: for each of "+
			"Kitex's balancers and transports, with %d calls per second and a timeout of %s. go-zero and kratos have gRPC's connections and "+
			"a balancer each; they are beside weighted. A call that was under way when the connections were reset cannot but fail", callsPerSecond, duration.format(float64(crashTimeout))),
	}
	for _, w := range balancers {
		name := "unreachable_" + w.name
		f.rows = append(f.rows,
			row{name: name + "_attempts", what: w.what + ": failed attempts", unit: count, targets: []target{atMost(3)}},
			row{name: name + "_calls", what: "failed calls", unit: count, targets: []target{atMost(0)}},
			row{name: name + "_again", what: "from when it can be reached until it has answered a call", unit: duration,
				targets: []target{atMost(float64(2 * time.Second))}})
		if w.name == "weighted" {
			f.plots = []drawing{{title: "Failed attempts: one of four servers refuses this client's connections", from: name + "_times", each: name + "_attempts"}}
		}
	}
	f.open = func(b *bench) ([]side, error) {
		turns := 0
		var sides []side
		for _, lib := range callingLibs {
			of := balancers
			if onGRPC(lib) {
				of = balancers[:1]
			}
			sides = append(sides, side{lib, func(ctx context.Context) (values, error) {
				turns++
				// As many at once as do not wait for each other on two cores.
				return inGroups(len(of), 4, func(i int) (values, error) {
					service := fmt.Sprintf("bench-unreachable-%d-%d", turns, i)
					v, ways, err := behindProxies(ctx, b, lib, service, 4)
					if err != nil {
						return nil, err
					}
					v.strike = func() error { ways[0].shut(); return nil }
					v.mend = func(context.Context) (time.Time, error) { return time.Now(), ways[0].open() }
					return v.trial(ctx, b, "unreachable_"+of[i].name, lib, service, callerOptions{timeout: crashTimeout, options: of[i].options()})
				})
			}})
		}
		return sides, nil
	}
	return f
}
