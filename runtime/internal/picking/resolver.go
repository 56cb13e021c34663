package picking

import (
	"context"
	"errors"
	"strings"

	kitex "github.com/cloudwego/kitex/pkg/discovery"
	"github.com/cloudwego/kitex/pkg/rpcinfo"

	"github.com/kitex-contrib/kitex-etcd/runtime/internal/discovery"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/roster"
)

// Resolver is Kitex's view of the directory of one Conn, for clients without the push. Those with it have the shared one.
type Resolver struct {
	dir  *discovery.Directory
	name string
}

// Name is unique for each Conn: Kitex keeps what belongs to a resolver in process-wide caches, under this name.
func (r *Resolver) Name() string { return r.name }

// Target describes what a call is for: the key of Kitex's caches.
func (r *Resolver) Target(_ context.Context, target rpcinfo.EndpointInfo) string {
	return target.ServiceName()
}

// Resolve returns the instances; see Service.Get. It is what clients without the push ask. Kitex keeps an empty list until its next
// refresh, so for a call it is an error, and the next call asks again. Kitex's refresh, which is no call, has to hear of it when the
// last instance has left: it keeps the old list after an error.
func (r *Resolver) Resolve(ctx context.Context, service string) (kitex.Result, error) {
	if list, ok := r.dir.Ready(service); ok && len(list) > 0 {
		return kitex.Result{Cacheable: true, CacheKey: service, Instances: list}, nil
	}
	return r.resolve(ctx, service)
}

func (r *Resolver) resolve(ctx context.Context, service string) (kitex.Result, error) {
	s, list, err := r.list(ctx, service)
	if err == nil && len(list) == 0 && rpcinfo.GetRPCInfo(ctx) != nil {
		err = errors.New(describeEmpty(s))
	}
	if err != nil {
		return kitex.Result{}, err
	}
	return kitex.Result{Cacheable: true, CacheKey: service, Instances: list}, nil
}

func (r *Resolver) list(ctx context.Context, service string) (s *discovery.Service, list []kitex.Instance, err error) {
	if s, err = r.dir.Service(service); err != nil {
		return nil, nil, err
	}
	list, err = s.Get(ctx)
	return s, list, err
}

// Diff finds changes of weight and of tags too, and costs nothing when there are none.
func (r *Resolver) Diff(cacheKey string, prev, next kitex.Result) (kitex.Change, bool) {
	added, updated, removed := roster.Diff(prev.Instances, next.Instances)
	return kitex.Change{
		Result:  kitex.Result{Cacheable: next.Cacheable, CacheKey: cacheKey, Instances: next.Instances},
		Added:   added,
		Updated: updated,
		Removed: removed,
	}, len(added)+len(updated)+len(removed) > 0
}

// targetTag is the tag of a client's endpoint that holds its target's description: the service's name, and the id of the Conn or of the
// client's own balancer.
const targetTag = "kitex-etcd-target"

// targetMark separates the parts of a description. No service that is looked up has it in its name: record.CheckService
// refuses control characters, and what stands before the last mark is the name.
const targetMark = "\x1f"

func joinTarget(service, id string) string { return service + targetMark + id }

func splitTarget(desc string) (service, id string) {
	if i := strings.LastIndex(desc, targetMark); i >= 0 {
		return desc[:i], desc[i+len(targetMark):]
	}
	return desc, ""
}

// sharedResolver is Kitex's view of all directories of the process: what its cache in front of a pushBalancer asks. A target's
// description says which of them it is for.
//
// The pickers have the newest instances already; what Kitex does besides when one has gone, the closing of its connections above all,
// cuts off calls on multiplexed connections as long as the server has not announced its end. So the cache hears of changes when they
// have settled.
type sharedResolver struct{}

// sharedName names the sharedResolver in Kitex's caches, and keyPrefix is what they put before a description.
const (
	sharedName = "kitex-etcd"
	keyPrefix  = sharedName + ":"
)

// errNoConn is for a call whose tag was changed on its way. That of a client names a Conn for as long as the client lives.
var errNoConn = errors.New("etcd: the call's tag " + targetTag + " was removed or changed, and does not say which Conn the call is for; leave it as it is")

func (sharedResolver) Name() string { return sharedName }

// Target is the description that the client's endpoint holds. A client that was turned to another service keeps its id.
func (sharedResolver) Target(_ context.Context, target rpcinfo.EndpointInfo) string {
	service := target.ServiceName()
	desc, _ := target.Tag(targetTag)
	name, id := splitTarget(desc)
	if name == service && id != "" {
		return desc
	}
	return joinTarget(service, id)
}

func (sharedResolver) Resolve(ctx context.Context, desc string) (kitex.Result, error) {
	service, id := splitTarget(desc)
	w := wiringOf(id)
	if w == nil {
		if rpcinfo.GetRPCInfo(ctx) != nil {
			return kitex.Result{}, errNoConn
		}
		return kitex.Result{Cacheable: true, CacheKey: desc}, nil // Kitex refreshes what nobody is left to use
	}
	s, list, err := w.resolver.list(ctx, service)
	if err != nil {
		return kitex.Result{}, err
	}
	if settled, ok := s.Settled(); ok {
		list = settled
	}
	return kitex.Result{Cacheable: true, CacheKey: desc, Instances: list}, nil
}

// Diff tells of no change where nobody is left to use the target: Kitex would have every client close connections.
func (sharedResolver) Diff(cacheKey string, prev, next kitex.Result) (kitex.Change, bool) {
	_, id := splitTarget(cacheKey)
	w := wiringOf(id)
	if w == nil {
		return kitex.Change{}, false
	}
	return w.resolver.Diff(cacheKey, prev, next)
}
