package discovery

import (
	"context"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc/metadata"

	"github.com/kitex-contrib/kitex-etcd/runtime/internal/link"
)

const (
	// maxStreams is how many streams of one connection carry watches.
	maxStreams = 8
	// streamWait is how long a new watch waits for a stream in use before it opens another.
	streamWait = 50 * time.Millisecond
)

// streams are the streams that carry watches. The etcd client asks for the watches of a stream one after the other, a way to
// etcd and back for each. Watches have the same stream when they have the same metadata.
type streams struct {
	free chan int // on which no watch is being made

	mu     sync.Mutex
	opened int

	routes [maxStreams]link.Route
}

func newStreams() *streams { return &streams{free: make(chan int, maxStreams)} }

// acquire returns a stream on which no other watch is being made; release gives it back.
func (s *streams) acquire(ctx context.Context, l *link.Link, patience time.Duration) (int, error) {
	if n, ok := s.tryOpen(0); ok {
		return n, nil
	}
	wait := time.NewTimer(streamWait)
	defer wait.Stop()
	select {
	case n := <-s.free:
		return n, nil
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-wait.C:
	}
	if n, ok := s.tryOpen(maxStreams - 1); ok {
		return n, nil
	}
	return link.Await(ctx, l, patience, s.free)
}

// tryOpen opens another stream if there are no more than most.
func (s *streams) tryOpen(most int) (n int, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.opened > most {
		return 0, false
	}
	s.opened++
	return s.opened - 1, true
}

func (s *streams) release(n int) { s.free <- n }

// context returns the context of a watch on stream n, and which stream of the link's that is.
func (s *streams) context(ctx context.Context, l *link.Link, n int) (watch context.Context, stream int64) {
	if n > 0 {
		ctx = metadata.AppendToOutgoingContext(ctx, "kitex-etcd-watches", strconv.Itoa(n))
	}
	return l.WatchContext(ctx)
}
