package discovery

import (
	"context"
	"time"
)

// Timing holds the times of discovery.
type Timing struct {
	Resolve    time.Duration // how long a first Resolve waits for etcd
	Stored     time.Duration // how long etcd has for its first answer until a stored list is shown
	RPC        time.Duration // how long nothing may arrive from etcd while a request waits for its answer
	Check      time.Duration // between two looks whether a service is used; the guard asks at a third of this pace
	Audit      time.Duration // between two comparisons of a service with etcd over one connection
	Recheck    time.Duration // until a check that did not match is repeated
	Settle     time.Duration // until Kitex's cache hears of a change; twice that at most
	Idle       time.Duration // how long an unused service keeps its watch
	Wake       time.Duration // how long the first use of an idle service waits for etcd
	MinBackoff time.Duration // after a first failure
	MaxBackoff time.Duration // after many
	LeastPause time.Duration // that not even a new connection shortens
}

var defaultTiming = Timing{
	Resolve:    3 * time.Second,
	Stored:     300 * time.Millisecond,
	RPC:        2 * time.Second,
	Check:      30 * time.Second,
	Audit:      30 * time.Minute,
	Recheck:    time.Second,
	Settle:     1500 * time.Millisecond,
	Idle:       3 * time.Minute,
	Wake:       300 * time.Millisecond,
	MinBackoff: 50 * time.Millisecond,
	MaxBackoff: 3 * time.Second,
	LeastPause: 250 * time.Millisecond,
}

type timingKey struct{}

// WithTimingForTesting returns a context for a Config that has a Directory use other times: change is given the usual
// ones.
func WithTimingForTesting(ctx context.Context, change func(*Timing)) context.Context {
	t := defaultTiming
	change(&t)
	return context.WithValue(ctx, timingKey{}, t)
}

func timingOf(ctx context.Context) Timing {
	if ctx != nil {
		if t, ok := ctx.Value(timingKey{}).(Timing); ok {
			return t
		}
	}
	return defaultTiming
}
