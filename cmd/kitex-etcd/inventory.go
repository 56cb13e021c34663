package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"text/tabwriter"
	"time"
	"unicode"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"

	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
)

const (
	// leaseTimeout bounds the questions how long leases have left; leaseQuestions how many are asked at once.
	leaseTimeout   = 5 * time.Second
	leaseQuestions = 16
	// retryPause is between two attempts of -watch to read and watch anew.
	retryPause = time.Second
	// A watch on an etcd that is away, or was rebuilt, is silent: -watch asks etcd for its revision every askEvery, with
	// askTimeout, and reads everything anew after rereadAfter.
	askEvery    = 2 * time.Second
	askTimeout  = 2 * time.Second
	rereadAfter = 30 * time.Second
)

// inventory prints what is registered.
type inventory struct {
	conn           *etcd.Conn
	opts           *instancesOptions
	stdout, stderr io.Writer

	known map[string]etcd.Record // by key, what -watch has printed
}

// list prints everything once.
func (i *inventory) list(ctx context.Context) error {
	records, _, err := i.conn.Records(ctx, i.opts.service)
	if err != nil {
		return err
	}
	return i.print(ctx, records)
}

// print prints records as a table or, with -json, as lines.
func (i *inventory) print(ctx context.Context, records []etcd.Record) error {
	left := i.leases(ctx, records)
	if i.opts.json {
		for _, r := range records {
			line := newLine(r)
			if seconds, ok := left[r.Lease]; ok {
				line.TTL = &seconds
			}
			if err := i.printLine(line); err != nil {
				return err
			}
		}
		return nil
	}
	if len(records) == 0 {
		i.say("nothing is registered below %s", i.prefix())
		return nil
	}
	table := tabwriter.NewWriter(i.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "SERVICE\tADDRESS\tWEIGHT\tTAGS\tLEASE")
	for _, r := range records {
		if r.Err != nil {
			i.say("clients ignore the key %q: %v", r.Key, r.Err)
			continue
		}
		lease := "none" // stands until somebody deletes it
		if r.Lease != 0 {
			lease = "?"
			if seconds, ok := left[r.Lease]; ok {
				lease = (time.Duration(seconds) * time.Second).String()
			}
		}
		fmt.Fprintf(table, "%s\t%s\t%d\t%s\t%s\n", printable(r.Service), printable(r.Address), r.Weight, cmp.Or(tags(r.Tags), "-"), lease)
	}
	return table.Flush()
}

// leases asks how many seconds the leases of records have left. Those that etcd did not tell in time are missing.
func (i *inventory) leases(ctx context.Context, records []etcd.Record) map[clientv3.LeaseID]int64 {
	ctx, cancel := context.WithTimeout(ctx, leaseTimeout)
	defer cancel()
	var mu sync.Mutex
	left := make(map[clientv3.LeaseID]int64)
	var questions errgroup.Group
	questions.SetLimit(leaseQuestions)
	asked := map[clientv3.LeaseID]bool{clientv3.NoLease: true}
	for _, r := range records {
		if asked[r.Lease] {
			continue
		}
		asked[r.Lease] = true
		questions.Go(func() error {
			resp, err := i.conn.Client().TimeToLive(ctx, r.Lease)
			if err != nil {
				return nil // the list is worth printing without
			}
			mu.Lock()
			defer mu.Unlock()
			left[r.Lease] = max(resp.TTL, 0) // -1 when it has ended
			return nil
		})
	}
	_ = questions.Wait()
	return left
}

// watch prints everything and then every change, until ctx ends. Only the first list may fail.
func (i *inventory) watch(ctx context.Context) error {
	i.known = make(map[string]etcd.Record)
	records, revision, err := i.conn.Records(ctx, i.opts.service)
	if err != nil {
		return err
	}
	if i.opts.json {
		err = i.update(records, "present")
	} else {
		for _, r := range records {
			i.known[r.Key] = r
		}
		err = i.print(ctx, records)
	}
	if err != nil {
		return err
	}
	for {
		ended, err := i.follow(ctx, revision)
		if err != nil {
			return err
		}
		if ended {
			pause(ctx)
		}
		if records, revision = i.reread(ctx); ctx.Err() != nil {
			return nil
		}
		if err := i.update(records, "added"); err != nil {
			return err
		}
	}
}

// reread reads everything anew, as often as it takes until ctx ends. It says when that fails, and when no longer.
func (i *inventory) reread(ctx context.Context) (records []etcd.Record, revision int64) {
	for failed := false; ; pause(ctx) {
		records, revision, err := i.conn.Records(ctx, i.opts.service)
		switch {
		case ctx.Err() != nil:
			return nil, 0
		case err == nil:
			if failed {
				i.say("etcd answers again")
			}
			return records, revision
		case !failed:
			i.say("%v; trying on", err)
			failed = true
		}
	}
}

// follow prints what happens after revision, until it is time to read everything anew. It says whether the watch ended by
// itself before; the error is one of printing.
func (i *inventory) follow(ctx context.Context, revision int64) (ended bool, err error) {
	ctx, cancel := context.WithTimeout(clientv3.WithRequireLeader(ctx), rereadAfter)
	defer cancel()
	created := time.AfterFunc(askTimeout, cancel) // Watch waits for etcd
	watch := i.conn.Client().Watch(ctx, i.prefix(), clientv3.WithPrefix(), clientv3.WithRev(revision+1))
	created.Stop()
	ask := time.NewTicker(askEvery)
	defer ask.Stop()
	for {
		select {
		case resp, ok := <-watch:
			if !ok {
				return ctx.Err() == nil, nil
			}
			revision = max(revision, resp.Header.Revision)
			for _, ev := range resp.Events {
				if ev.Type == mvccpb.Event_DELETE {
					err = i.remove(string(ev.Kv.Key))
				} else {
					err = i.put(i.conn.ParseRecord(ev.Kv), "added")
				}
				if err != nil {
					return false, err
				}
			}
		case <-ask.C:
			if !i.reached(ctx, revision) {
				return false, nil
			}
		}
	}
}

// reached says whether etcd answers, and has come to revision.
func (i *inventory) reached(ctx context.Context, revision int64) bool {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	resp, err := i.conn.Client().Get(ctx, i.prefix(), clientv3.WithPrefix(), clientv3.WithCountOnly())
	return err == nil && resp.Header.Revision >= revision
}

// update prints how records differ from what is known.
func (i *inventory) update(records []etcd.Record, event string) error {
	gone := maps.Clone(i.known)
	for _, r := range records {
		delete(gone, r.Key)
	}
	for _, key := range slices.Sorted(maps.Keys(gone)) {
		if err := i.remove(key); err != nil {
			return err
		}
	}
	for _, r := range records {
		if err := i.put(r, event); err != nil {
			return err
		}
	}
	return nil
}

// put prints r as event, or as changed if its key is known.
func (i *inventory) put(r etcd.Record, event string) error {
	if old, ok := i.known[r.Key]; ok {
		if event = "changed"; old.Revision == r.Revision {
			return nil
		}
	}
	i.known[r.Key] = r
	return i.printChange(event, r)
}

func (i *inventory) remove(key string) error {
	r, ok := i.known[key]
	if !ok {
		return nil
	}
	delete(i.known, key)
	return i.printChange("removed", r)
}

func (i *inventory) printChange(event string, r etcd.Record) error {
	now := time.Now()
	if i.opts.json {
		line := newLine(r)
		line.Event, line.Time = event, now.Format(time.RFC3339Nano)
		return i.printLine(line)
	}
	what := fmt.Sprintf("%s %s weight %d %s", printable(r.Service), printable(r.Address), r.Weight, tags(r.Tags))
	if r.Err != nil {
		what = fmt.Sprintf("%q, which clients ignore: %v", r.Key, r.Err)
	}
	_, err := fmt.Fprintf(i.stdout, "%s %-7s %s\n", now.Format(time.TimeOnly), event, strings.TrimSpace(what))
	return err
}

func (i *inventory) printLine(l line) error {
	text, err := json.Marshal(l)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(i.stdout, "%s\n", text)
	return err
}

// say tells the user what is no part of the output.
func (i *inventory) say(format string, args ...any) {
	fmt.Fprintf(i.stderr, "kitex-etcd: "+format+"\n", args...)
}

// prefix is what the keys begin with.
func (i *inventory) prefix() string {
	if i.opts.service != "" {
		return i.opts.prefix + "/" + i.opts.service + "/"
	}
	return i.opts.prefix + "/"
}

// line is a line of -json.
type line struct {
	Event   string            `json:"event,omitempty"`
	Time    string            `json:"time,omitempty"`
	Service string            `json:"service"`
	Network string            `json:"network,omitempty"`
	Address string            `json:"address,omitempty"`
	Weight  int               `json:"weight,omitempty"`
	Tags    map[string]string `json:"tags,omitempty"`
	Key     string            `json:"key"`
	Lease   string            `json:"lease,omitempty"`
	TTL     *int64            `json:"ttl,omitempty"` // 0 is a lease that has just ended
	Error   string            `json:"error,omitempty"`
}

func newLine(r etcd.Record) line {
	l := line{Service: r.Service, Key: r.Key}
	if r.Lease != clientv3.NoLease {
		l.Lease = strconv.FormatInt(int64(r.Lease), 16)
	}
	if r.Err != nil {
		l.Error = r.Err.Error()
	} else {
		l.Network, l.Address, l.Weight, l.Tags = r.Network, r.Address, r.Weight, r.Tags
	}
	return l
}

// tags prints tags in the order of their names.
func tags(m map[string]string) string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(m)) {
		all = append(all, printable(name)+"="+printable(m[name]))
	}
	return strings.Join(all, ",")
}

// printable quotes what would disturb the terminal or the columns: anybody may have written it.
func printable(s string) string {
	if s == "" || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) || r == ' ' || r == ',' || r == '=' || r == '"' }) {
		return strconv.Quote(s)
	}
	return s
}

func pause(ctx context.Context) {
	select {
	case <-time.After(retryPause):
	case <-ctx.Done():
	}
}
