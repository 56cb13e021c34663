package etcd

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/cloudwego/kitex/client"
	"github.com/cloudwego/kitex/pkg/discovery"
	"github.com/cloudwego/kitex/pkg/endpoint"
	"github.com/cloudwego/kitex/pkg/kerrors"
	"github.com/cloudwego/kitex/pkg/rpcinfo"
	"github.com/cloudwego/kitex/pkg/utils"
)

// resolver is Kitex's view of the directory. Kitex describes a target by the service's name, or by name/balancer for a
// client with a balancer of its own.
type resolver struct{ dir *directory }

// Resolver returns a resolver for client.WithResolver. The first Resolve of a service waits for etcd, for 3 s at most
// whatever its context says, because Kitex shares it among callers; from then on Resolve answers at once with what was
// last known, whether etcd can be reached or not, and even after the Conn is closed. No instances are not an error.
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
	return c.directory.resolver
}

// ClientOptions returns the options of a Kitex client that finds its instances through the Conn: the resolver, then opts,
// then what carries changes into the client's load balancer the moment they happen, whichever balancer opts or options
// after these choose. A client that opts give another resolver, a proxy or an xDS suite is left to that.
//
// Clients of one Conn share Kitex's discovery cache. Kitex then tells each of them when an instance of any service of
// the Conn leaves, and they close their idle connections to that address.
func (c *Conn) ClientOptions(opts ...client.Option) []client.Option {
	all := make([]client.Option, 0, len(opts)+2)
	all = append(append(all, client.WithResolver(c.Resolver())), opts...)
	if c == nil {
		return all
	}
	// A tail option runs after all others, those appended to these included.
	return append(all, client.TailOption(client.Option{F: func(o *client.Options, di *utils.Slice) {
		c.directory.balance.wire(o)
	}}))
}

// Name is unique for each Conn: Kitex keeps what belongs to a resolver in process-wide caches, under this name.
func (r *resolver) Name() string { return r.dir.conn.id }

// balancerTag is the tag of a client's endpoint that holds its target description when it has a balancer of its own.
const balancerTag = "kitex-etcd-target"

func (r *resolver) Target(_ context.Context, target rpcinfo.EndpointInfo) string {
	service := target.ServiceName()
	desc, ok := target.Tag(balancerTag)
	if !ok {
		return service
	}
	name, id := splitTarget(desc)
	if name == service {
		return desc
	}
	return joinTarget(service, id) // the client was turned to another service
}

// A service's name cannot contain a slash.
func joinTarget(service, balancer string) string { return service + "/" + balancer }

func splitTarget(desc string) (service, balancer string) {
	service, balancer, _ = strings.Cut(desc, "/")
	return service, balancer
}

func (r *resolver) Resolve(_ context.Context, desc string) (discovery.Result, error) {
	snap, err := r.snapshot(desc)
	if err != nil {
		return discovery.Result{}, err
	}
	return discovery.Result{Cacheable: true, CacheKey: desc, Instances: snap.instances}, nil
}

func (r *resolver) snapshot(desc string) (*snapshot, error) {
	name, _ := splitTarget(desc)
	s, err := r.dir.service(name)
	if err != nil {
		return nil, err
	}
	return s.get(context.Background())
}

// Diff finds changes of weight and of tags too, and costs nothing when there are none.
func (r *resolver) Diff(cacheKey string, prev, next discovery.Result) (discovery.Change, bool) {
	added, updated, removed := diff(prev.Instances, next.Instances)
	return discovery.Change{
		Result:  discovery.Result{Cacheable: next.Cacheable, CacheKey: cacheKey, Instances: next.Instances},
		Added:   added,
		Updated: updated,
		Removed: removed,
	}, len(added)+len(updated)+len(removed) > 0
}

// explainEmpty is a client middleware that adds to Kitex's "no more instance" what it means here.
func (d *directory) explainEmpty(next endpoint.Endpoint) endpoint.Endpoint {
	return func(ctx context.Context, req, resp any) error {
		err := next(ctx, req, resp)
		if err == nil || !errors.Is(err, kerrors.ErrNoMoreInstance) {
			return err
		}
		info := rpcinfo.GetRPCInfo(ctx)
		if info == nil || info.To() == nil {
			return err
		}
		s := (*d.services.Load())[info.To().ServiceName()]
		if s == nil {
			return err
		}
		// Kitex's text for a call that had no attempt shows a nil error in the form of a mistaken format.
		what := strings.TrimSuffix(err.Error(), ": last error: %!w(<nil>)")
		return &emptyError{what + "; " + s.describeEmpty(), err}
	}
}

// emptyError is Kitex's error in other words.
type emptyError struct {
	text string
	err  error
}

func (e *emptyError) Error() string { return e.text }
func (e *emptyError) Unwrap() error { return e.err }

func (s *service) describeEmpty() string {
	snap := s.snapshot()
	state := "has no instances"
	if n := len(snap.instances); n > 0 {
		state = fmt.Sprintf("has %d instances of which the load balancer gave none", n)
	}
	return fmt.Sprintf("etcd: service %s %s (keys %s…, last heard of %s ago); a call succeeds as soon as a server registers",
		s.name, state, s.prefix, time.Since(time.Unix(0, s.synced.Load())).Round(time.Millisecond))
}
