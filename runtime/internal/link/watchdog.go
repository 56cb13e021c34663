package link

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/stats"
)

// What is true about slow and dead connections. An answer that is late says nothing: it may wait behind thousands of others,
// on a line, in etcd or in this process. A connection on which bytes arrive is alive. One on which nothing has arrived since a
// request was sent, for as long as a request may take, is suspect: the member is asked something that it can answer alone, and
// a connection on which even then nothing arrives is closed. Closing one makes everything on it begin again, so it is done for
// one connection at a time, and each time later than the last.

const (
	// endurance is how many times its patience a request may take while other bytes arrive on its connection.
	endurance = 15
	// probeTime is how long a suspect connection has to deliver anything.
	probeTime = 500 * time.Millisecond
	// firstPause and longestPause are between two resets; a connection that was good for calmAfter makes it the first again.
	firstPause   = time.Second
	longestPause = 10 * time.Second
	calmAfter    = 30 * time.Second
)

// Silence is the error of a request that got no answer in time.
type Silence struct {
	Patience time.Duration
	Overload bool // other bytes arrived meanwhile
}

func (e *Silence) Error() string {
	if e.Overload {
		return fmt.Sprintf("no answer within %v, although other answers arrive: etcd, the network or this process is overloaded", endurance*e.Patience)
	}
	return fmt.Sprintf("no answer within %v", e.Patience)
}

// Unwrap makes it a deadline that was exceeded.
func (e *Silence) Unwrap() error { return context.DeadlineExceeded }

// Route says which socket a request, or a stream, was sent on, and when. It comes to know it from the context of the request.
// The zero value knows nothing yet. Safe for concurrent use.
type Route struct {
	socket atomic.Pointer[socket]
	sent   atomic.Int64 // in Unix nanoseconds
}

type routeKey struct{}

// observeRoute is told by gRPC that a request is sent.
func (l *Link) observeRoute(ctx context.Context, h *stats.OutHeader) {
	if r, ok := ctx.Value(routeKey{}).(*Route); ok {
		r.socket.Store(l.socketAt(h.LocalAddr))
		r.sent.Store(time.Now().UnixNano())
	}
}

// Watchdog ends a context when etcd does not answer. It is armed while an answer is awaited. Its clock begins when the request
// is sent, and again whenever something arrives on the same connection.
type Watchdog struct {
	link     *Link
	route    *Route
	patience time.Duration
	cancel   context.CancelCauseFunc

	mu    sync.Mutex
	timer *time.Timer
	armed time.Time // zero: not armed
	due   time.Time // when the timer is to fire
	bit   bool      // the context was ended
}

// Watchdog returns a context for requests, and the Watchdog that ends it with a *Silence as its cause. The Watchdog is not armed.
// A nil route means a new one; several requests of one stream share one. Stop ends the context too.
func (l *Link) Watchdog(ctx context.Context, route *Route, patience time.Duration) (context.Context, *Watchdog) {
	if route == nil {
		route = new(Route)
	}
	ctx, cancel := context.WithCancelCause(context.WithValue(ctx, routeKey{}, route))
	return ctx, &Watchdog{link: l, route: route, patience: patience, cancel: cancel}
}

// Arm begins to wait for an answer.
func (w *Watchdog) Arm() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.armed = time.Now()
	w.set(w.patience)
}

func (w *Watchdog) set(d time.Duration) {
	w.due = time.Now().Add(d)
	if w.timer == nil {
		w.timer = time.AfterFunc(d, w.look)
	} else {
		w.timer.Reset(d)
	}
}

// Disarm ends the wait. It says false when the context was ended meanwhile.
func (w *Watchdog) Disarm() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.armed = time.Time{}
	if w.timer != nil {
		w.timer.Stop()
	}
	return !w.bit
}

// Explain returns what ended the Watchdog's context, where that is why a request failed with err.
func (w *Watchdog) Explain(ctx context.Context, err error) error {
	if silence, ok := context.Cause(ctx).(*Silence); ok {
		err = silence
	}
	return w.link.Explain(err)
}

// Stop is the end of the Watchdog and of its context.
func (w *Watchdog) Stop() {
	w.Disarm()
	w.cancel(context.Canceled)
}

// look finds out whether the patience is at its end.
func (w *Watchdog) look() {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	if w.armed.IsZero() || now.Before(w.due) {
		return
	}
	since := w.armed.UnixNano()
	sock := w.route.socket.Load()
	if sock != nil {
		since = max(since, w.route.sent.Load(), sock.heard.Load())
	} else { // nobody knows: the client, or the stream, is somebody else's
		since = max(since, w.link.heard.Load())
	}
	silent := now.Sub(time.Unix(0, since))
	late := now.Sub(w.due) > w.patience/4 // then it is this process that is not served
	tired := now.Sub(w.armed) >= endurance*w.patience
	if !tired && (late || silent < w.patience) {
		w.set(max(w.patience-silent, w.patience/4))
		return
	}
	w.armed, w.bit = time.Time{}, true
	w.cancel(&Silence{Patience: w.patience, Overload: silent < w.patience})
	if sock != nil && silent >= w.patience && !late {
		w.link.suspect(sock)
	}
}

// Ask runs one request to etcd. It ends, with a *Silence, when etcd does not answer for patience; see Watchdog.
func (l *Link) Ask(ctx context.Context, patience time.Duration, request func(context.Context) error) error {
	askCtx, dog := l.Watchdog(ctx, nil, patience)
	defer dog.Stop()
	dog.Arm()
	err := request(askCtx)
	if err == nil {
		l.heard.Store(time.Now().UnixNano())
		return nil
	}
	return dog.Explain(askCtx, err)
}

// Await receives from ch: a turn among many. Turns come late while etcd is slow, so it waits for as long as anything arrives from
// etcd, and for patience when nothing does.
func Await[T any](ctx context.Context, l *Link, patience time.Duration, ch <-chan T) (turn T, err error) {
	select {
	case turn = <-ch:
		return turn, nil
	default:
	}
	begin := time.Now()
	t := time.NewTimer(patience)
	defer t.Stop()
	for {
		select {
		case turn = <-ch:
			return turn, nil
		case <-ctx.Done():
			return turn, ctx.Err()
		case now := <-t.C:
			heard := time.Unix(0, l.heard.Load())
			if heard.Before(begin) {
				heard = begin
			}
			silent := now.Sub(heard)
			if silent >= patience {
				return turn, l.Explain(&Silence{Patience: patience})
			}
			t.Reset(patience - silent)
		}
	}
}

// suspect has a socket probed, on which nothing arrives, and closed if it proves to be dead.
func (l *Link) suspect(s *socket) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.sockets[s]; !ok || l.probing || l.client == nil || time.Now().Before(l.resetAt) {
		return
	}
	l.probing = true
	probes := min(len(l.sockets), 5) // gRPC takes the connections in turns
	cli := l.client
	l.Start(func(ctx context.Context) {
		l.probe(ctx, s, func(ctx context.Context) {
			var all sync.WaitGroup
			for range probes {
				all.Go(func() {
					local := &etcdserverpb.RangeRequest{Key: []byte("x"), Serializable: true} // any answer will do, a refusal too
					_, _ = etcdserverpb.NewKVClient(cli.ActiveConnection()).Range(ctx, local)
				})
			}
			all.Wait()
		})
	})
}

// probe closes s unless something arrives on it while ask runs.
func (l *Link) probe(ctx context.Context, s *socket, ask func(context.Context)) {
	before := s.heard.Load()
	begin := time.Now()
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	ask(ctx)
	cancel()
	starved := time.Since(begin) > 2*probeTime
	l.mu.Lock()
	l.probing = false
	dead := !starved && s.heard.Load() == before && l.mayReset()
	l.mu.Unlock()
	if dead {
		l.closeSockets(s)
	}
}

// mayReset says whether it is time for another reset, and takes it that one follows. The mutex is held.
func (l *Link) mayReset() bool {
	now := time.Now()
	if now.Before(l.resetAt) {
		return false
	}
	if now.Sub(l.resetAt) > calmAfter {
		l.rest = firstPause
	}
	l.resetAt = now.Add(l.rest)
	l.rest = min(2*l.rest, longestPause)
	return true
}
