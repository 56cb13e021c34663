package etcd

import (
	"context"

	"github.com/cloudwego/kitex/client"
	"github.com/cloudwego/kitex/pkg/discovery"
	"github.com/cloudwego/kitex/pkg/rpcinfo"
	"github.com/cloudwego/kitex/pkg/utils"
)

// Resolver returns a resolver for client.WithResolver. The first Resolve of a service waits for etcd, for 3 s at most and no longer
// than its context, and its error says why that was in vain; from then on Resolve answers at once with what was last known,
// whether etcd can be reached or not, and even after the Conn is closed. A service without instances is an error of the call, so
// that the next call asks again.
//
// With the resolver alone a client sees changes when Kitex asks next, every 5 s; with ClientOptions, at once.
func (c *Conn) Resolver() discovery.Resolver {
	if c == nil {
		return discovery.SynthesizedResolver{
			TargetFunc:  func(_ context.Context, target rpcinfo.EndpointInfo) string { return target.ServiceName() },
			ResolveFunc: func(context.Context, string) (discovery.Result, error) { return discovery.Result{}, errNilConn },
			NameFunc:    func() string { return "kitex-etcd" },
		}
	}
	return c.wiring.Resolver()
}

// ClientOptions returns the options of a Kitex client that finds its instances through the Conn: the resolver, then opts,
// then what carries changes into the client's load balancer the moment they happen, whichever balancer opts or options
// after these choose. A client that opts give another resolver, a proxy or an xDS suite is left to that.
//
// The clients of a process, of all its Conns, share Kitex's discovery cache, if they have the same intervals (lbcache.Options). Kitex
// tells each of them when an instance of any service leaves, and they close their idle connections to that address.
func (c *Conn) ClientOptions(opts ...client.Option) []client.Option {
	all := make([]client.Option, 0, len(opts)+2)
	all = append(append(all, client.WithResolver(c.Resolver())), opts...)
	if c == nil {
		return all
	}
	// A tail option runs after all others, those appended to these included.
	return append(all, client.TailOption(client.Option{F: func(o *client.Options, di *utils.Slice) {
		c.wiring.Wire(o)
	}}))
}
