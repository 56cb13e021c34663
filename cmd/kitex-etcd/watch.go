package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
)

const (
	// retryPause is between two attempts to read and watch again.
	retryPause = time.Second
	// A watch on an etcd that is away, or was rebuilt, is silent: etcd is asked for its revision every askEvery, with
	// askTimeout, and everything is read again after rereadAfter.
	askEvery    = 2 * time.Second
	askTimeout  = 2 * time.Second
	rereadAfter = 30 * time.Second
)

func (p *program) watchCommand() *cobra.Command {
	return p.listing(&cobra.Command{
		Use:   "watch [SERVICE…]",
		Short: "A line for each change, until interrupted",
		Long: `Prints what changes: instances that are added, changed or removed, and marks of operators. A removed instance was either removed by its
server, or somebody else, or its lease ended because the server died or was cut off. With -o json and yaml, what is there comes first.

When etcd does not answer, watch says so and goes on when it does.`,
		Example: "  kitex-etcd watch Hello\n  kitex-etcd watch -o json | jq -r 'select(.event == \"removed\") | .address'",
		RunE:    p.withConn(p.watch),
	})
}

// watcher follows what etcd holds, and reports each change.
type watcher struct {
	conn   *etcd.Conn
	prefix string // of all keys
	s      selection
	out    reporter
	every  time.Duration              // after which everything is read again
	known  map[string]etcd.Record     // by key, what was reported
	marks  map[string]etcd.PlacedMark // by key
}

// reporter is told of changes, one after the other.
type reporter interface {
	record(event string, r etcd.Record, what string) error // what says what changed, or why r is gone
	mark(event string, m etcd.PlacedMark) error
	lost(err error) // etcd does not answer
	found()         // and does again
}

func newWatcher(conn *etcd.Conn, prefix string, s selection, every time.Duration, out reporter) *watcher {
	return &watcher{conn, prefix, s, out, every, make(map[string]etcd.Record), make(map[string]etcd.PlacedMark)}
}

func (p *program) watch(cmd *cobra.Command, conn *etcd.Conn, args []string) error {
	s, err := p.selection(args)
	if err != nil {
		return err
	}
	c, err := read(cmd.Context(), conn, s)
	if err != nil {
		return err
	}
	w := newWatcher(conn, p.connection.prefix, s, rereadAfter, p)
	if p.tabular() {
		for _, r := range c.records {
			w.known[r.Key] = r
		}
		for _, m := range c.marks {
			w.marks[m.Key] = m
		}
		p.say("%d instances are registered; changes follow", len(c.records))
	} else if err := w.update(c, "present"); err != nil {
		return err
	}
	return w.run(cmd.Context(), c)
}

// record prints what became of a record.
func (p *program) record(event string, r etcd.Record, what string) error {
	now := time.Now()
	if !p.tabular() {
		i := newInstance(r)
		i.Event, i.Time = event, now.Format(time.RFC3339Nano)
		if event == "removed" {
			i.Why = what
		}
		return p.object(i)
	}
	who := printable(r.Service) + " " + printable(r.Address)
	if r.Err != nil {
		who, what = fmt.Sprintf("%q, which clients ignore:", r.Key), r.Err.Error()
	}
	_, err := fmt.Fprintln(p.stdout, strings.TrimSpace(fmt.Sprintf("%s %-8s %s %s", now.Format(time.TimeOnly), event, who, what)))
	return err
}

// mark prints what became of a mark.
func (p *program) mark(event string, m etcd.PlacedMark) error {
	now := time.Now()
	if !p.tabular() {
		return p.object(instance{Event: event, Time: now.Format(time.RFC3339Nano), Key: m.Key}.marked(m))
	}
	_, err := fmt.Fprintf(p.stdout, "%s %-8s %s %s %s\n", now.Format(time.TimeOnly), event, printable(m.Service), printable(m.Address), markText(m))
	return err
}

func (p *program) lost(err error) { p.say("%v; asked again until it answers", err) }
func (p *program) found()         { p.say("etcd answers again") }

// run reports every change after c until ctx ends. The error is one of reporting.
func (w *watcher) run(ctx context.Context, c *catalog) error {
	for {
		ended, err := w.follow(ctx, c.revision)
		if err != nil {
			return err
		}
		if ended {
			pause(ctx, retryPause)
		}
		if c = w.reread(ctx); ctx.Err() != nil {
			return nil
		}
		if err := w.update(c, "added"); err != nil {
			return err
		}
	}
}

// reread reads everything again, as often as necessary, until ctx ends. It says when that fails, and when no longer.
func (w *watcher) reread(ctx context.Context) *catalog {
	for failed := false; ; pause(ctx, retryPause) {
		c, err := read(ctx, w.conn, w.s)
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			if failed {
				w.out.found()
			}
			return c
		case !failed:
			w.out.lost(err)
			failed = true
		}
	}
}

// recordPrefix is what the keys of the records begin with.
func (w *watcher) recordPrefix() string {
	if name := w.s.only(); name != "" {
		return w.prefix + "/" + name + "/"
	}
	return w.prefix + "/"
}

// follow reports what happens after revision, until it is time to read everything again. It says whether the watch ended by
// itself before; the error is one of reporting.
func (w *watcher) follow(ctx context.Context, revision int64) (ended bool, err error) {
	ctx, cancel := context.WithTimeout(clientv3.WithRequireLeader(ctx), w.every)
	defer cancel()
	created := time.AfterFunc(askTimeout, cancel) // Watch waits for etcd
	open := func(prefix string) clientv3.WatchChan {
		return w.conn.Client().Watch(ctx, prefix, clientv3.WithPrefix(), clientv3.WithRev(revision+1), clientv3.WithPrevKV())
	}
	records, marks := open(w.recordPrefix()), open(w.conn.MarkPrefix(w.s.only()))
	created.Stop()
	ask := time.NewTicker(askEvery)
	defer ask.Stop()
	for {
		select {
		case resp, ok := <-records:
			if !ok {
				return ctx.Err() == nil, nil
			}
			revision = max(revision, resp.Header.Revision)
			for _, ev := range resp.Events {
				if err := w.apply(ctx, ev); err != nil {
					return false, err
				}
			}
		case resp, ok := <-marks:
			if !ok {
				marks = nil // the role may not read them; otherwise the records' watch ends as well
				continue
			}
			for _, ev := range resp.Events {
				if err := w.applyMark(ev); err != nil {
					return false, err
				}
			}
		case <-ask.C:
			if !w.reached(ctx, revision) {
				return false, nil
			}
		}
	}
}

// reached says whether etcd answers, and has come to revision.
func (w *watcher) reached(ctx context.Context, revision int64) bool {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	resp, err := w.conn.Client().Get(ctx, w.recordPrefix(), clientv3.WithPrefix(), clientv3.WithCountOnly())
	return err == nil && resp.Header.Revision >= revision
}

func (w *watcher) apply(ctx context.Context, ev *clientv3.Event) error {
	if ev.Type == mvccpb.DELETE {
		return w.remove(string(ev.Kv.Key), w.why(ctx, ev.PrevKv))
	}
	return w.put(w.conn.ParseRecord(ev.Kv), "added")
}

// why says how a record came to be removed: a lease that ended took it along, its server followed a mark, or somebody deleted it.
func (w *watcher) why(ctx context.Context, before *mvccpb.KeyValue) string {
	if before == nil {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	if before.Lease != 0 {
		resp, err := w.conn.Client().TimeToLive(ctx, clientv3.LeaseID(before.Lease))
		if err != nil {
			return ""
		}
		if resp.TTL <= 0 {
			return "its lease ended"
		}
	}
	mark := w.conn.MarkPrefix("") + strings.TrimPrefix(string(before.Key), w.prefix+"/")
	drained := w.marks[mark].Drain
	if !drained { // its event may come later than that of the record
		resp, err := w.conn.Client().Get(ctx, mark)
		drained = err == nil && len(resp.Kvs) > 0 && w.conn.ParseMark(resp.Kvs[0]).Drain
	}
	if drained {
		return "drained"
	}
	return "deregistered or deleted"
}

func (w *watcher) applyMark(ev *clientv3.Event) error {
	m := w.conn.ParseMark(ev.Kv)
	if ev.Type == mvccpb.DELETE {
		return w.unmark(string(ev.Kv.Key))
	}
	return w.mark(m)
}

func (w *watcher) mark(m etcd.PlacedMark) error {
	if old, ok := w.marks[m.Key]; ok && old.Revision == m.Revision || !w.s.service(m.Service) {
		return nil
	}
	w.marks[m.Key] = m
	return w.out.mark("marked", m)
}

func (w *watcher) unmark(key string) error {
	m, ok := w.marks[key]
	if !ok {
		return nil
	}
	delete(w.marks, key)
	return w.out.mark("unmarked", m)
}

// update reports how a catalog differs from what is known.
func (w *watcher) update(c *catalog, event string) error {
	gone := maps.Clone(w.known)
	for _, r := range c.records {
		delete(gone, r.Key)
	}
	for _, key := range slices.Sorted(maps.Keys(gone)) {
		if err := w.remove(key, ""); err != nil {
			return err
		}
	}
	for _, r := range c.records {
		if err := w.put(r, event); err != nil {
			return err
		}
	}
	ended := maps.Clone(w.marks)
	for _, m := range c.marks {
		delete(ended, m.Key)
		if err := w.mark(m); err != nil {
			return err
		}
	}
	for _, key := range slices.Sorted(maps.Keys(ended)) {
		if err := w.unmark(key); err != nil {
			return err
		}
	}
	return nil
}

// put reports r as event, or as changed if its key is known. One whose tags are not asked for any more is removed.
func (w *watcher) put(r etcd.Record, event string) error {
	if !w.s.record(r) {
		return w.remove(r.Key, "its tags changed")
	}
	old, ok := w.known[r.Key]
	if ok && old.Revision == r.Revision {
		return nil
	}
	w.known[r.Key] = r
	if ok {
		return w.out.record("changed", r, difference(old, r))
	}
	what := strings.TrimSpace(fmt.Sprintf("weight %d %s", r.Weight, tags(r.Tags)))
	return w.out.record(event, r, what)
}

// remove reports that a record is gone, and why, if that is known.
func (w *watcher) remove(key, why string) error {
	r, ok := w.known[key]
	if !ok {
		return nil
	}
	delete(w.known, key)
	return w.out.record("removed", r, why)
}

// difference says what changed: "weight 10 → 20, zone a → b".
func difference(old, r etcd.Record) string {
	if old.Err != nil {
		return strings.TrimSpace(fmt.Sprintf("weight %d %s", r.Weight, tags(r.Tags)))
	}
	var all []string
	if old.Weight != r.Weight {
		all = append(all, fmt.Sprintf("weight %d → %d", old.Weight, r.Weight))
	}
	if old.Address != r.Address {
		all = append(all, fmt.Sprintf("address %s → %s", printable(old.Address), printable(r.Address)))
	}
	names := maps.Clone(old.Tags)
	if names == nil {
		names = make(map[string]string)
	}
	maps.Copy(names, r.Tags)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		before, had := old.Tags[name]
		after, has := r.Tags[name]
		switch {
		case !had:
			all = append(all, fmt.Sprintf("%s=%s added", printable(name), printable(after)))
		case !has:
			all = append(all, fmt.Sprintf("%s=%s removed", printable(name), printable(before)))
		case before != after:
			all = append(all, fmt.Sprintf("%s %s → %s", printable(name), printable(before), printable(after)))
		}
	}
	if old.Lease != r.Lease {
		all = append(all, "registered anew")
	}
	if len(all) == 0 {
		return "written again as it was"
	}
	return strings.Join(all, ", ")
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
