package etcd

import (
	"context"

	"github.com/cloudwego/kitex/client"
	"github.com/cloudwego/kitex/pkg/discovery"
	"github.com/cloudwego/kitex/pkg/rpcinfo"
	"github.com/cloudwego/kitex/pkg/utils"
)

// Resolver returns a resolver for client.WithResolver. Most programs should use [Conn.ClientOptions]: with the resolver alone, a client
// sees changes when Kitex asks, every 5 s.
//
// The first Resolve of a service waits for etcd, for 3 s at most and not longer than its context; its error has the cause. After that,
// Resolve returns at once what was last known, also if etcd cannot be reached, and after the Conn was closed. A service without
// instances is an error of the call, so that the next call asks again.
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

// ClientOptions returns the options for a Kitex client that finds its instances through the Conn. It consists of the resolver, then
// opts, then the part that brings changes to the client's load balancer as they happen. This works with every balancer, also one that
// is chosen by later options. If opts give the client another resolver, a proxy or an xDS suite, the client uses that alone.
//
// All clients of a process, also of several Conns, share Kitex's discovery cache if they have the same intervals (lbcache.Options).
// Kitex tells each of them when an instance of any service leaves, and they close their idle connections to that address.
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
