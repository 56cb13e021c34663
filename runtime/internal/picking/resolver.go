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

// Resolver is Kitex's view of the directory. Kitex describes a target by the service's name; for a client with its own balancer,
// that balancer's id follows.
type Resolver struct {
	dir *discovery.Directory
	id  string
}

// Name is unique for each Conn: Kitex keeps what belongs to a resolver in process-wide caches, under this name.
func (r *Resolver) Name() string { return r.id }

// balancerTag is the tag of a client's endpoint that holds its target description when it has a balancer of its own.
const balancerTag = "kitex-etcd-target"

// Target describes what a call is for: the key of Kitex's caches.
func (r *Resolver) Target(_ context.Context, target rpcinfo.EndpointInfo) string {
	service := target.ServiceName()
	desc, ok := target.Tag(balancerTag)
	if !ok {
		if strings.Contains(service, targetMark) {
			return joinTarget(service, "") // the name stays whole, and is refused
		}
		return service
	}
	name, id := splitTarget(desc)
	if name == service {
		return desc
	}
	return joinTarget(service, id) // the client was turned to another service
}

// targetMark separates the parts of a description. No service that is looked up has it in its name: record.CheckService
// refuses control characters, and what stands before the last mark is the name.
const targetMark = "\x1f"

func joinTarget(service, balancer string) string { return service + targetMark + balancer }

func splitTarget(desc string) (service, balancer string) {
	if i := strings.LastIndex(desc, targetMark); i >= 0 {
		return desc[:i], desc[i+len(targetMark):]
	}
	return desc, ""
}

// Resolve returns the instances; see Service.Get. It is what clients without the push ask. Kitex keeps an empty list until its next
// refresh, so for a call it is an error, and the next call asks again. Kitex's refresh, which is no call, has to hear of it when the
// last instance has left: it keeps the old list after an error.
func (r *Resolver) Resolve(ctx context.Context, desc string) (kitex.Result, error) {
	s, list, err := r.list(ctx, desc)
	if err == nil && len(list) == 0 && rpcinfo.GetRPCInfo(ctx) != nil {
		err = errors.New(describeEmpty(s))
	}
	if err != nil {
		return kitex.Result{}, err
	}
	return kitex.Result{Cacheable: true, CacheKey: desc, Instances: list}, nil
}

func (r *Resolver) list(ctx context.Context, desc string) (s *discovery.Service, list []kitex.Instance, err error) {
	name, _ := splitTarget(desc)
	if s, err = r.dir.Service(name); err != nil {
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
