package etcd

import (
	"context"
	"iter"
	"time"

	kitex "github.com/cloudwego/kitex/pkg/discovery"

	"github.com/kitex-contrib/kitex-etcd/runtime/internal/discovery"
)

// Instances returns the instances of service, with weights and tags, sorted by address. They are those that etcd has, also if they are
// ejected. The slice is shared: do not change it. A service without instances is an empty slice, not an error. The first call for a
// service asks etcd, and waits until ctx ends, 3 s at most; its error has the cause. After that, calls return what was last known,
// without asking etcd.
func (c *Conn) Instances(ctx context.Context, service string) ([]kitex.Instance, error) {
	s, err := c.service(service)
	if err != nil {
		return nil, err
	}
	return s.Get(ctx)
}

// Watch yields the instances of service: first what Instances returns, then each new list as soon as it is known. A reader that is slower
// than the changes gets only the newest list. If the first list cannot be read, if ctx ends, or if the Conn is closed, it yields an
// error and ends.
func (c *Conn) Watch(ctx context.Context, service string) iter.Seq2[[]kitex.Instance, error] {
	return func(yield func([]kitex.Instance, error) bool) {
		s, err := c.service(service)
		if err != nil {
			yield(nil, err)
			return
		}
		s.Watch(ctx)(yield)
	}
}

func (c *Conn) service(name string) (*discovery.Service, error) {
	if c == nil {
		return nil, errNilConn
	}
	return c.directory.Service(name)
}

// ServiceStatus is what a Conn knows about a service.
type ServiceStatus struct {
	Service   string
	Instances int       // number of instances that clients use
	Ejected   int       // how many of them get no calls because they do not answer; see WithEjection
	Protected int       // how many of them are no longer in etcd, but still used because none would be left; see WithEmptyProtection
	Invalid   int       // number of keys of the service that are ignored because they are not instances
	Changes   uint64    // how many times the list of instances has changed
	Synced    time.Time // when etcd last confirmed the list; zero if it never has
	Snapshot  time.Time // if the list is from a file, because etcd has not answered yet: when etcd confirmed it; otherwise zero; see WithSnapshots
	Idle      bool      // not used for 3 minutes: etcd is not asked about it until the next use
}

// Services returns the services that were used through this Conn, sorted by name. It reads memory, and does not count as a use: it is for
// metrics and health checks. A nil Conn has none.
func (c *Conn) Services() []ServiceStatus {
	if c == nil {
		return nil
	}
	services := c.directory.Services()
	list := make([]ServiceStatus, len(services))
	for i, s := range services {
		list[i] = ServiceStatus{
			Service: s.Name(), Instances: len(s.Latest()), Ejected: c.wiring.Ejected(s.Name()),
			Protected: s.Protected(), Invalid: s.Invalid(), Changes: s.Changes(),
			Synced: s.Synced(), Snapshot: s.Stored(), Idle: s.Idle(),
		}
	}
	return list
}

// PushTimes is a histogram: the time from etcd's message about a change until all clients of the Conn use it.
type PushTimes struct {
	Count   uint64             // number of changes, of services that clients call
	Sum     time.Duration      // of all times
	Buckets map[float64]uint64 // number of changes that took at most this many seconds
}

// PushTimes returns how long changes took to reach the load balancers of the clients, for all services together. It reads memory. A nil
// Conn has none.
func (c *Conn) PushTimes() PushTimes {
	if c == nil {
		return PushTimes{}
	}
	return PushTimes(c.directory.PushTimes())
}
