package link

import (
	"context"
	"sync"
)

// Life is the time in which the goroutines of a Conn may run. It ends in two steps: Refuse, after which nothing new
// begins and those who wait for etcd are told ErrClosed, then Stop, which waits for every goroutine. Safe for concurrent use.
//
//	open ──Refuse──> closing ──Stop──> stopped
type Life struct {
	closing context.Context // ended by Refuse
	refuse  context.CancelFunc
	running context.Context // ended by Stop
	stop    context.CancelFunc

	mu         sync.Mutex // guards the start of a goroutine against Refuse
	goroutines sync.WaitGroup
}

func newLife() *Life {
	l := new(Life)
	l.closing, l.refuse = context.WithCancel(context.Background())
	l.running, l.stop = context.WithCancel(context.Background())
	return l
}

// Closing ends when Close begins.
func (l *Life) Closing() context.Context { return l.closing }

// Running ends when goroutines are to return.
func (l *Life) Running() context.Context { return l.running }

// Start runs f on a goroutine that Stop waits for; f returns when its context ends. It says false, and runs nothing,
// after Refuse.
func (l *Life) Start(f func(running context.Context)) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closing.Err() != nil {
		return false
	}
	l.goroutines.Go(func() { f(l.running) })
	return true
}

// Refuse begins the end. It says whether this was the first call.
func (l *Life) Refuse() (first bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	first = l.closing.Err() == nil
	l.refuse()
	return first
}

// Stop ends every goroutine and waits for them. It comes after Refuse.
func (l *Life) Stop() {
	l.stop()
	l.goroutines.Wait()
}
