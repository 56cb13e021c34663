// Package roster knows the records of one service: which instances etcd has, which it lost although nobody deleted them, and the list
// for clients that follows from both. discovery gives it the changes, and publishes its lists.
//
// The package is pure: it does no I/O, starts nothing, and imports neither the etcd client nor Kitex's client or server. The time is an
// argument. A Roster belongs to one goroutine. The Instances and lists that it returns never change, and may be shared. The states of
// one instance:
//
//	            etcd holds it again, also from lost and served
//	        ┌─────────────────────────────────────────────────────────────┐
//	        v      gone, by a lease that may have ended                   │
//	──put──> held ────────────────────────────────────────────> lost ─────┤
//	          │ gone, explicitly                                │ │       │
//	          │                      the lease lives, time over │ │ no instances are left, or etcd was rebuilt
//	          v                                                 v v       │
//	        (forgotten) <──────────────time over────────────────── served ┘
package roster

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/cloudwego/kitex/pkg/discovery"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/kitex-contrib/kitex-etcd/runtime/internal/record"
)

// Roster is what the goroutine of a service knows about its records. Only that goroutine uses it.
type Roster struct {
	prefix        string // of the service's keys
	defaultWeight int
	protection    time.Duration // how long the lost are remembered; <= 0 means not at all

	held     map[string]holding // by key, what etcd holds, readable or not
	live     int                // how many of held are instances
	complete int64              // the revision up to which held knows everything
	lost     map[string]*loss   // by key, instances that went without an explicit delete

	fresh    []*loss   // those of lost that nobody has asked about yet
	forgetAt time.Time // when the first of lost may have been remembered long enough; zero when there are none

	shared  []map[string]string  // the last different tags, one map for all instances that have them
	list    []discovery.Instance // what was last published
	touched map[string]*Instance // by key, what list has for each key that may have changed since; nil for none
}

// holding is one key of etcd.
type holding struct {
	inst     *Instance // nil for a value that is not an instance
	lease    int64
	revision int64 // the key's mod revision
	seeded   bool  // not heard from etcd; see Seed
}

// loss is an instance that etcd no longer holds although nobody is known to have deleted it.
type loss struct {
	inst    *Instance
	lease   int64
	until   time.Time // when it is forgotten
	expired bool      // etcd was asked, and its lease is gone too
	served  bool      // in the list for want of better
}

// New returns the Roster of the service whose keys begin with prefix. Instances that were lost are remembered for
// protection; 0 or less means not at all.
func New(prefix string, defaultWeight int, protection time.Duration) *Roster {
	return &Roster{
		prefix:        prefix,
		defaultWeight: defaultWeight,
		protection:    protection,
		held:          make(map[string]holding),
		lost:          make(map[string]*loss),
		touched:       make(map[string]*Instance),
	}
}

// shown is the instance that a list made now has for key.
func (r *Roster) shown(key string) *Instance {
	if h, ok := r.held[key]; ok {
		return h.inst
	}
	if l := r.lost[key]; l != nil && l.served {
		return l.inst
	}
	return nil
}

// Live returns how many instances etcd holds.
func (r *Roster) Live() int { return r.live }

// Keys returns how many keys etcd holds, readable or not.
func (r *Roster) Keys() int { return len(r.held) }

// Invalid returns how many of them are not instances.
func (r *Roster) Invalid() int { return len(r.held) - r.live }

// Protected returns how many instances the list has, or will have, that etcd does not hold.
func (r *Roster) Protected() (n int) {
	for _, l := range r.lost {
		if l.served {
			n++
		}
	}
	return n
}

// Revision returns the revision of etcd up to which the roster knows everything.
func (r *Roster) Revision() int64 { return r.complete }

// Complete notes that the roster knows everything up to revision.
func (r *Roster) Complete(revision int64) { r.complete = max(r.complete, revision) }

// ForgetAt returns when Forget has something to do; zero when it has not.
func (r *Roster) ForgetAt() time.Time { return r.forgetAt }

// List returns the list that was last published.
func (r *Roster) List() []discovery.Instance { return r.list }

// touch comes before every change of what is shown for key.
func (r *Roster) touch(key string) {
	if _, ok := r.touched[key]; !ok {
		r.touched[key] = r.shown(key)
	}
}

// Put takes over that etcd holds kv. The error says why it is not an instance.
func (r *Roster) Put(kv *mvccpb.KeyValue) error { return r.put(kv, false) }

// put is Put. In a rebuilt etcd every lease is another one, and says nothing.
func (r *Roster) put(kv *mvccpb.KeyValue, rebuilt bool) error {
	key := string(kv.Key)
	h := holding{lease: kv.Lease, revision: kv.ModRevision}
	rec, err := record.Decode(kv.Value, r.defaultWeight)
	if strings.Contains(key[len(r.prefix):], "/") {
		err = record.ErrKeyParts
	}
	if err == nil {
		h.inst = NewInstance(key, r.share(key, rec))
	}
	r.touch(key)
	before, known := r.held[key]
	last, sameServer := before.inst, rebuilt || before.lease == h.lease || before.seeded
	if l := r.lost[key]; l != nil {
		last, sameServer = l.inst, true // it comes back
		delete(r.lost, key)
	}
	// Unchanged ones stay the same pointer. Under another lease it is another server, although it says the same.
	if last != nil && h.inst != nil && sameServer && last.equal(h.inst) {
		h.inst = last
	}
	r.count(before.inst, h.inst)
	r.held[key] = h
	if known && before.revision == h.revision {
		return nil // reported before
	}
	return err
}

// maxShared is how many different tags of a service its instances share.
const maxShared = 8

// share has a record keep no more memory than it needs: servers of a service mostly have one of a few tags, and their keys contain their
// addresses. What is decoded would keep the whole value.
func (r *Roster) share(key string, rec record.Record) record.Record {
	if addr := key[len(r.prefix):]; rec.Address == addr {
		rec.Address = addr
	}
	if rec.Network == "tcp" {
		rec.Network = "tcp" // the constant
	}
	if len(rec.Tags) == 0 {
		return rec
	}
	for _, tags := range r.shared {
		if maps.Equal(tags, rec.Tags) {
			rec.Tags = tags
			return rec
		}
	}
	if len(r.shared) == maxShared {
		r.shared = slices.Delete(r.shared, 0, 1)
	}
	r.shared = append(r.shared, rec.Tags)
	return rec
}

// Drop takes over that etcd no longer holds key.
func (r *Roster) Drop(key string, now time.Time) {
	h, ok := r.held[key]
	if !ok {
		return
	}
	r.touch(key)
	delete(r.held, key)
	r.count(h.inst, nil)
	if h.inst == nil || h.lease == 0 || r.protection <= 0 {
		return
	}
	l := &loss{inst: h.inst, lease: h.lease, until: now.Add(r.protection)}
	r.lost[key] = l
	r.fresh = append(r.fresh, l)
	if r.forgetAt.IsZero() {
		r.forgetAt = now.Add(r.protection)
	}
}

func (r *Roster) count(before, after *Instance) {
	if before != nil {
		r.live--
	}
	if after != nil {
		r.live++
	}
}

// Replace takes over everything that etcd holds at a revision. In a rebuilt etcd what is missing was not deleted by
// anybody: it is served until it comes back.
func (r *Roster) Replace(kvs []*mvccpb.KeyValue, revision int64, rebuilt bool, now time.Time, invalid func(*mvccpb.KeyValue, error)) {
	rebuilt = rebuilt || r.contradict(kvs)
	found := make(map[string]struct{}, len(kvs))
	for _, kv := range kvs {
		found[string(kv.Key)] = struct{}{}
		if err := r.put(kv, rebuilt); err != nil {
			invalid(kv, err)
		}
	}
	for key := range r.held {
		if _, ok := found[key]; !ok {
			r.Drop(key, now)
		}
	}
	r.complete = revision
	if rebuilt {
		r.serveLost()
	}
}

// contradict says whether kvs hold something old that was never seen: then they are not the history that held comes from.
func (r *Roster) contradict(kvs []*mvccpb.KeyValue) bool {
	return slices.ContainsFunc(kvs, func(kv *mvccpb.KeyValue) bool {
		return kv.ModRevision <= r.complete && r.held[string(kv.Key)].revision != kv.ModRevision
	})
}

// Publish returns the list as it now is, and whether it differs from the last one.
func (r *Roster) Publish() (list []discovery.Instance, differs bool) {
	var changes []change
	for key, old := range r.touched {
		if now := r.shown(key); now != old {
			changes = append(changes, change{old, now})
		}
	}
	clear(r.touched)
	if len(changes) > 0 {
		r.list = merge(r.list, changes)
	}
	return r.list, len(changes) > 0
}

// Agrees says whether etcd holds count keys of which these are the newest, the very newest first.
func (r *Roster) Agrees(newest []*mvccpb.KeyValue, count int64) bool {
	if count != int64(len(r.held)) {
		return false
	}
	for _, kv := range newest {
		if r.held[string(kv.Key)].revision != kv.ModRevision {
			return false
		}
	}
	var top int64
	if len(newest) > 0 {
		top = newest[0].ModRevision
	}
	for _, h := range r.held {
		if h.revision > top {
			return false
		}
	}
	return true
}
