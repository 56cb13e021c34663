package discovery

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cloudwego/kitex/pkg/klog"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/kitex-contrib/kitex-etcd/runtime/internal/link"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/roster"
)

// watcher keeps one service's snapshot equal to etcd: it reads the service at a revision, watches from the next one on,
// and begins again when the watch ends or proves to be wrong. Its goroutine owns all of it.
//
//	unsynced ──read──> current ──nobody asks──> idle ──use──> waking ──read──> current
//	    └─no answer, but a file─> stored ──read──> current
type watcher struct {
	*Service
	link   *link.Link
	notify func(Event)
	timing Timing
	roster *roster.Roster

	stream    int64 // that the last watch used
	highest   int64 // the highest revision that etcd has ever shown
	failures  int   // in a row
	following time.Time
	lostFor   error // why the last watch ended; nil while it goes well
	rebuilt   bool  // etcd was found not to be what it was

	gap       time.Duration // between two publications; grows with the stream of events
	published time.Time
	responses int       // watch responses that are not published yet
	changedAt time.Time // when the first of these came

	settling *snapshot // becomes the settled one at settleAt; nil when none waits
	settleAt time.Time

	listing listing // the list that is being read

	up     <-chan struct{} // closed when there is a new connection since the list was read
	doubt  <-chan struct{} // closed when all watchers are to check, since the list was read
	listed bool            // the list was read, and no watch made yet

	lookAt  time.Time // when to see whether the service is used
	checkAt time.Time
	doubts  int   // how many checks in a row did not match
	doubted int64 // the roster's revision at the first of them
	// reconnected says that there was a new connection since the last check that matched.
	reconnected bool
	usedAt      time.Time // when the service was last seen in use
	began       time.Time // when etcd was first asked
	saver       *saver    // nil when lists are not stored
	restored    bool      // the stored list was looked for
}

// errIdle ends the following of a service that nobody uses.
var errIdle = errors.New("not used")

// errRebuilt and the other reasons for a resync are what events and logs say.
var (
	errRebuilt  = errors.New("etcd's revision went back: it was rebuilt or restored")
	errDiverged = errors.New("the watch no longer agrees with etcd")
	errEnded    = errors.New("etcd ended the watch without a reason")
)

// run follows the service until ctx ends, or nobody uses it.
func (w *watcher) run(ctx context.Context) {
	for {
		w.rise()
		for {
			err := w.follow(ctx)
			if ctx.Err() != nil || err == errIdle {
				break
			}
			w.fail(err)
			if !w.pause(ctx) || w.unused(time.Now()) {
				break
			}
		}
		if w.settleDown(); w.dir.rest(ctx, w.Service) {
			return
		}
	}
}

// rise begins to follow.
func (w *watcher) rise() {
	w.usedAt = time.Now()
	w.began = w.usedAt
	w.lookAt = w.usedAt.Add(link.Jitter(w.timing.Check))
	if w.snapshot().phase == idle {
		w.swap(&snapshot{instances: w.roster.List(), phase: waking, wakeBy: w.usedAt.Add(w.timing.Wake), confirmed: w.snapshot().confirmed})
	}
}

// settleDown ends to follow. What is known stays.
func (w *watcher) settleDown() {
	w.following, w.lostFor, w.listed, w.failures = time.Time{}, nil, false, 0
	w.dir.settling(w.Service)
	if w.snapshot().phase != unsynced {
		w.swap(&snapshot{instances: w.roster.List(), phase: idle, confirmed: w.snapshot().confirmed})
	}
}

// unused says, now and then, whether nobody has used the service for long.
func (w *watcher) unused(now time.Time) bool {
	if now.Before(w.lookAt) {
		return false
	}
	w.lookAt = now.Add(link.Jitter(w.timing.Check))
	if w.used.Swap(false) || w.readers.Load() > 0 || w.waiting.Load() > 0 || w.snapshot().phase == stored {
		w.usedAt = now
	}
	return now.Sub(w.usedAt) >= w.timing.Idle
}

// fail reports the first failure of a row and tells those who wait for the first snapshot.
func (w *watcher) fail(err error) {
	if !w.following.IsZero() && time.Since(w.following) > w.timing.MaxBackoff {
		w.failures = 0
	}
	w.failures++
	if !w.link.RefusedWatch(err, w.stream) && link.NoLeader(err) {
		w.link.Leaderless(err)
	}
	first := w.lostFor == nil
	w.lostFor = err
	w.rebuilt = w.rebuilt || err == errRebuilt
	if snap := w.snapshot(); snap.phase == unsynced {
		w.swap(&snapshot{err: err})
	}
	if first && !w.following.IsZero() {
		w.notify(Event{Type: WatchLost, Service: w.name, Err: err})
	}
	if first && !errors.Is(err, rpctypes.ErrCompacted) && !link.Unanswered(err) && !link.NoLeader(err) { // the Conn tells of those, once
		known := ""
		if w.snapshot().phase != unsynced {
			known = "; calls go to the instances last known"
		}
		klog.Warnf("etcd: service %s: %v%s; still trying", w.name, w.link.Explain(err), known)
	}
	w.following = time.Time{}
}

// pause waits before the next attempt: hardly after a first failure, then longer each time. A new connection ends the
// wait early, but not before the least pause: a server that ends every connection would otherwise set the pace.
func (w *watcher) pause(ctx context.Context) bool {
	delay := link.Jitter(min(w.timing.MinBackoff<<min(w.failures-1, 16), w.timing.MaxBackoff))
	up := w.link.NextUp()
	least := min(delay, w.timing.LeastPause)
	if !link.Sleep(ctx, least) {
		return false
	}
	t := time.NewTimer(delay - least)
	defer t.Stop()
	select {
	case <-t.C:
	case <-up:
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}

// follow reads the service and applies what happens to it, for as long as that goes well. A list that was read is kept when no
// watch came of it.
func (w *watcher) follow(ctx context.Context) error {
	cli, err := w.client(ctx)
	if err != nil {
		return err
	}
	if !w.listed {
		if err := w.read(ctx, cli); err != nil {
			return err
		}
	}
	watchCtx, events, stop, err := w.watch(ctx, cli)
	defer stop()
	if err != nil {
		return err
	}
	w.listed, w.lostFor = false, nil
	w.following = time.Now()
	w.standing.Store(true)
	defer w.standing.Store(false)
	alarm := time.NewTimer(0)
	defer alarm.Stop()
	for {
		select {
		case resp, ok := <-events:
			if !ok {
				return errEnded
			}
			if err := w.apply(&resp); err != nil {
				return err
			}
		case <-w.up:
			w.up = w.link.NextUp()
			w.reconnected = true
			w.checkAt = time.Now().Add(w.dir.spread())
		case <-w.doubt:
			w.doubt = w.dir.nextDoubt()
			w.reconnected = true
			w.checkAt = time.Time{}
		case <-alarm.C:
		case <-watchCtx.Done():
			return ctx.Err()
		}
		if err := w.duties(ctx, cli); err != nil {
			return err
		}
		alarm.Reset(time.Until(w.nextDuty()))
	}
}

// watch has etcd watch the service from the next revision on. It returns when etcd has accepted that; stop ends it.
func (w *watcher) watch(ctx context.Context, cli *clientv3.Client) (watchCtx context.Context, events clientv3.WatchChan, stop func(), err error) {
	n, err := w.dir.streams.acquire(ctx, w.link, w.timing.RPC)
	if err != nil {
		return nil, nil, func() {}, err
	}
	defer w.dir.streams.release(n)
	watchCtx, w.stream = w.dir.streams.context(ctx, w.link, n)
	watchCtx, dog := w.link.Watchdog(watchCtx, &w.dir.streams.routes[n], w.timing.RPC)
	dog.Arm()
	events = cli.Watch(watchCtx, w.prefix, clientv3.WithPrefix(), clientv3.WithRev(w.highest+1))
	if !dog.Disarm() {
		err = fmt.Errorf("etcd accepted no watch: %w", dog.Explain(watchCtx, nil))
	}
	return watchCtx, events, dog.Stop, err
}

// client waits for the etcd client to exist, for as long as one request may take.
func (w *watcher) client(ctx context.Context) (cli *clientv3.Client, err error) {
	ctx, cancel := context.WithTimeout(ctx, w.timing.RPC)
	defer cancel()
	w.awaiting(func() { cli, err = w.link.Get(ctx) })
	return cli, err
}

// takeOver makes the roster hold what etcd holds at a revision.
func (w *watcher) takeOver(kvs []*mvccpb.KeyValue, revision int64) (now time.Time) {
	now = time.Now()
	if revision < w.highest {
		w.lostFor, w.rebuilt = errRebuilt, true
	}
	var ignored ignoredKeys
	w.roster.Replace(kvs, revision, w.rebuilt, now, ignored.add)
	w.report(&ignored)
	w.highest, w.rebuilt = revision, false
	w.dir.saw(revision)
	w.heard(now)
	return now
}

// apply takes over a response of the watch.
func (w *watcher) apply(resp *clientv3.WatchResponse) error {
	if err := resp.Err(); err != nil {
		return err
	}
	now := time.Now()
	var ignored ignoredKeys
	for _, ev := range resp.Events {
		w.roster.Complete(ev.Kv.ModRevision)
		if ev.Type == mvccpb.Event_DELETE {
			w.roster.Drop(string(ev.Kv.Key), now)
		} else if err := w.roster.Put(ev.Kv); err != nil {
			ignored.add(ev.Kv, err)
		}
	}
	w.report(&ignored)
	w.highest = max(w.highest, resp.Header.Revision)
	w.dir.saw(resp.Header.Revision)
	w.change(now)
	w.heard(now)
	return nil
}

// judge finds out why instances went, where that matters, and protects the list from becoming empty without cause.
func (w *watcher) judge(ctx context.Context, cli *clientv3.Client) {
	for _, lease := range w.roster.Questions() {
		lives := false
		_ = w.link.Ask(ctx, w.timing.RPC, func(ctx context.Context) error {
			resp, err := cli.TimeToLive(ctx, clientv3.LeaseID(lease))
			lives = err == nil && resp.TTL > 0
			return err
		})
		w.roster.Answer(lease, lives)
	}
	w.roster.Protect()
}

// duties does what the time has come for.
func (w *watcher) duties(ctx context.Context, cli *clientv3.Client) error {
	now := time.Now()
	if !w.roster.ForgetAt().IsZero() && !now.Before(w.roster.ForgetAt()) {
		w.roster.Forget(now)
		w.change(now)
	}
	if w.responses > 0 && !now.Before(w.published.Add(w.gap)) {
		if w.roster.Live() > 0 {
			w.publish(now)
			w.judge(ctx, cli)
		} else {
			w.judge(ctx, cli)
			w.publish(now)
		}
	}
	if w.settling != nil && !now.Before(w.settleAt) {
		w.settle(now)
	}
	if w.unused(now) {
		return errIdle
	}
	if now.Before(w.checkAt) {
		return nil
	}
	return w.check(ctx, cli)
}

// nextDuty is when duties has something to do again.
func (w *watcher) nextDuty() time.Time {
	next := w.checkAt
	if w.lookAt.Before(next) {
		next = w.lookAt
	}
	if at := w.published.Add(w.gap); w.responses > 0 && at.Before(next) {
		next = at
	}
	if w.settling != nil && w.settleAt.Before(next) {
		next = w.settleAt
	}
	if at := w.roster.ForgetAt(); !at.IsZero() && at.Before(next) {
		next = at
	}
	return next
}

// change notes that there is something to publish.
func (w *watcher) change(now time.Time) {
	if w.responses++; w.responses == 1 {
		w.changedAt = now
	}
}

// A change alone is published at once. Changes that keep coming are published together, at growing distances: a
// thousand in a tenth of a second are a handful of lists, each of which makes every client build a picker. The least
// distance is about what etcd needs for two writes, one after the other: these still go out one by one. A distance is
// never less than what building the pickers took, so that this takes no more than half of the time. Changes that keep
// coming slower than crowd apart are no reason for a distance: one that a burst left behind would stay for ever.
const (
	minGap = 250 * time.Microsecond
	maxGap = 32 * time.Millisecond
	crowd  = 4 * time.Millisecond
)

// publish makes the list as it is now the snapshot, and has the pickers built.
func (w *watcher) publish(now time.Time) {
	if w.responses > 1 && now.Sub(w.published) < time.Duration(w.responses)*crowd {
		w.gap = min(2*w.gap, maxGap)
	} else {
		w.gap = max(w.gap/2, minGap)
	}
	changedAt := w.changedAt
	w.responses, w.changedAt = 0, time.Time{}
	begin := time.Now() // now may be from before a question to etcd
	defer func() {
		w.published = time.Now()
		w.gap = max(w.gap, w.published.Sub(begin))
	}()
	w.invalid.Store(int64(w.roster.Invalid()))
	w.protected.Store(int64(w.roster.Protected()))
	list, differs := w.roster.Publish()
	if !differs && w.snapshot().phase == current {
		return
	}
	w.swap(&snapshot{instances: list, phase: current})
	followers := w.attached()
	for _, f := range followers {
		f.Changed()
	}
	w.saver.notice()
	if differs {
		w.changes.Add(1)
	}
	if !changedAt.IsZero() && len(followers) > 0 {
		w.dir.pushes.observe(time.Since(changedAt))
	}
	if w.settled.Load() == nil {
		w.settled.Store(w.snapshot())
	} else if w.settling == nil {
		w.settling, w.settleAt = w.snapshot(), now.Add(w.timing.Settle)
	}
}

// settle lets Kitex's cache hear of changes that are old enough, and puts the newer ones in their place.
func (w *watcher) settle(now time.Time) {
	w.settled.Store(w.settling)
	for _, f := range w.attached() {
		f.Settle()
	}
	if latest := w.snapshot(); roster.Same(latest.instances, w.settling.instances) {
		w.settling = nil
	} else {
		w.settling, w.settleAt = latest, now.Add(w.timing.Settle)
	}
}

func (w *watcher) heard(now time.Time) { w.synced.Store(now.UnixNano()) }

func (w *watcher) report(i *ignoredKeys) {
	if i.count == 0 {
		return
	}
	err := i.err
	if i.count > 1 {
		err = fmt.Errorf("%w; and %d more like it", err, i.count-1)
	}
	klog.Warnf("etcd: service %s: key %q (revision %d) is ignored: %v", w.name, i.first, i.revision, err)
	w.notify(Event{Type: InvalidRecord, Service: w.name, Key: i.first, Err: err})
}
