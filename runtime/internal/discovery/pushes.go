package discovery

import (
	"sync/atomic"
	"time"
)

// pushBounds are the upper bounds of the histogram's buckets.
var pushBounds = [...]time.Duration{
	100 * time.Microsecond, 250 * time.Microsecond, 500 * time.Microsecond, time.Millisecond, 2500 * time.Microsecond,
	5 * time.Millisecond, 10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond,
	250 * time.Millisecond, time.Second, 5 * time.Second,
}

// pushes is a histogram of the time from a change's arrival until the followers were told. Safe for concurrent use.
type pushes struct {
	buckets [len(pushBounds) + 1]atomic.Uint64 // each without those below it; the last is of what is above all bounds
	sum     atomic.Int64                       // nanoseconds
}

func (p *pushes) observe(d time.Duration) {
	i := 0
	for i < len(pushBounds) && d > pushBounds[i] {
		i++
	}
	p.buckets[i].Add(1)
	p.sum.Add(int64(d))
}

// PushTimes is a histogram: how many took as long as each bound, in seconds, or less.
type PushTimes struct {
	Count   uint64
	Sum     time.Duration
	Buckets map[float64]uint64
}

// PushTimes returns how long it took from the arrival of a change until its followers were told, of all services with any.
func (d *Directory) PushTimes() PushTimes {
	t := PushTimes{Sum: time.Duration(d.pushes.sum.Load()), Buckets: make(map[float64]uint64, len(pushBounds))}
	for i := range d.pushes.buckets {
		t.Count += d.pushes.buckets[i].Load()
		if i < len(pushBounds) {
			t.Buckets[pushBounds[i].Seconds()] = t.Count
		}
	}
	return t
}
