package link

import (
	"context"
	"math/rand/v2"
	"time"
)

// Jitter spreads d by a quarter to either side, so that a fleet does not act in step.
func Jitter(d time.Duration) time.Duration {
	return d + time.Duration((rand.Float64()-0.5)*0.5*float64(d))
}

// RandomUpTo returns a duration from 0 to d.
func RandomUpTo(d time.Duration) time.Duration { return time.Duration(rand.Float64() * float64(d)) }

// Sleep waits for d and says whether it did; false means that ctx ended first.
func Sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
