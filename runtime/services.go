package etcd

import (
	"context"
	"iter"
	"time"

	kitex "github.com/cloudwego/kitex/pkg/discovery"

	"github.com/kitex-contrib/kitex-etcd/runtime/internal/discovery"
)

// Instances returns the instances of service as Kitex clients of this Conn see them: sorted by address, weights and tags
// included. The slice is shared: do not change it. No instances are an empty slice and no error. The first call for a
// service asks etcd and waits, for 3 s at most or until ctx ends; its error then says why. After that, calls return
// what was last known, without asking anybody.
func (c *Conn) Instances(ctx context.Context, service string) ([]kitex.Instance, error) {
	s, err := c.service(service)
	if err != nil {
		return nil, err
	}
	return s.Get(ctx)
}

// Watch yields the instances of service: at once what Instances returns, then every new list, as soon as it is known. A
// reader that is slower than the changes gets the newest list only. It ends, after an error, when the first list cannot
// be had, when ctx ends, and when the Conn is closed.
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

// ServiceStatus is what a Conn knows of a service that it discovers.
type ServiceStatus struct {
	Service   string
	Instances int       // how many etcd holds, or held when it was last heard
	Ejected   int       // how many of them clients do not call because they do not answer; see WithEjection
	Protected int       // how many of them etcd no longer holds: served for a while, because none would be left; see WithEmptyProtection
	Invalid   int       // how many keys of the service are not instances, and ignored
	Changes   uint64    // how many times the list of instances has changed
	Synced    time.Time // when etcd last confirmed them; zero if it never has
	Snapshot  time.Time // zero, unless etcd has not answered yet and the instances are from a file: when etcd confirmed those; see WithSnapshots
	Idle      bool      // not used for minutes: etcd is not asked about it until the next use
}

// Services returns the services that were asked for through this Conn so far, sorted by name. It asks nobody and does not count
// as a use of them: it is for metrics and health checks. A nil Conn has none.
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

// PushTimes is a histogram of the time from a change, when etcd has told of it, until every client of the Conn picks by it.
type PushTimes struct {
	Count   uint64             // changes of services that clients call
	Sum     time.Duration      // of all
	Buckets map[float64]uint64 // by upper bound in seconds: how many took as long or less
}

// PushTimes returns how long changes took until they were in the pickers of the clients, of all services together. It reads
// memory. A nil Conn has none.
func (c *Conn) PushTimes() PushTimes {
	if c == nil {
		return PushTimes{}
	}
	return PushTimes(c.directory.PushTimes())
}
