package roster

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cloudwego/kitex/pkg/discovery"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/kitex-contrib/kitex-etcd/runtime/internal/record"
)

// testRoster drives a roster the way its watcher does.
type testRoster struct {
	*Roster
	t        *testing.T
	now      time.Time
	revision int64
	living   map[int64]bool // leases
}

func newTestRoster(t *testing.T, protection time.Duration) *testRoster {
	return &testRoster{Roster: New("p/s/", 10, protection), t: t, now: time.Now(), living: make(map[int64]bool)}
}

func (r *testRoster) kv(addr string, lease int64) *mvccpb.KeyValue {
	r.revision++
	if lease != 0 {
		r.living[lease] = true
	}
	return &mvccpb.KeyValue{Key: []byte("p/s/" + addr), Value: fmt.Appendf(nil, `{"network":"tcp","address":%q,"weight":10,"tags":null}`, addr), Lease: lease, ModRevision: r.revision}
}

func (r *testRoster) add(addr string, lease int64) {
	r.t.Helper()
	if err := r.Put(r.kv(addr, lease)); err != nil {
		r.t.Fatal(err)
	}
	r.complete = r.revision
	r.judge()
}

// end is the lease's own end, or, with lives, an explicit delete after which the lease is revoked.
func (r *testRoster) end(addr string, lives bool) {
	lease := r.held["p/s/"+addr].lease
	r.living[lease] = lives
	r.Drop("p/s/"+addr, r.now)
	r.judge()
	r.living[lease] = false
}

func (r *testRoster) judge() {
	for _, lease := range r.Questions() {
		r.Answer(lease, r.living[lease])
	}
	r.Protect()
}

func (r *testRoster) pass(d time.Duration) {
	r.now = r.now.Add(d)
	if !r.forgetAt.IsZero() && !r.now.Before(r.forgetAt) {
		r.Forget(r.now)
	}
}

func (r *testRoster) want(addrs ...string) {
	r.t.Helper()
	list, _ := r.Publish()
	if got := addresses(list); strings.Join(got, " ") != strings.Join(addrs, " ") {
		r.t.Errorf("the list is %v, want %v", got, addrs)
	}
	live := 0
	for _, h := range r.held {
		if h.inst != nil {
			live++
		}
	}
	if live != r.live {
		r.t.Errorf("%d instances are counted as %d", live, r.live)
	}
}

func TestProtectionBelievesExplicitDeletes(t *testing.T) {
	r := newTestRoster(t, time.Minute)
	for i := range 3 * askBelow {
		r.add(fmt.Sprintf("h%02d:1", i), int64(i+1))
	}
	r.add("static:1", 0)
	for i := range 3 * askBelow {
		r.end(fmt.Sprintf("h%02d:1", i), true)
	}
	r.want("static:1")
	r.end("static:1", false)
	r.want()
}

func TestProtectionServesAnAilingFleet(t *testing.T) {
	r := newTestRoster(t, 30*time.Second)
	for i := range 20 {
		r.add(fmt.Sprintf("h%02d:1", i), int64(i+1))
	}
	var all []string
	for i := range 20 { // one lease after another ends, as etcd ails
		all = append(all, fmt.Sprintf("h%02d:1", i))
		r.end(all[i], false)
		r.pass(time.Second)
	}
	r.want(all...)
	r.pass(10 * time.Second) // the first has been gone for 30 s
	r.want(all[1:]...)
	r.add(all[7], 100)
	r.want(all[1:]...) // one that is back does not drive out the others
	r.end(all[7], true)
	r.want(slices.Delete(slices.Clone(all[1:]), 6, 7)...) // an explicit delete does
	r.add(all[19], 101)
	r.pass(30 * time.Second)
	r.want(all[19])
	if !r.forgetAt.IsZero() || len(r.lost) != 0 {
		t.Error("something is still remembered")
	}
}

func TestProtectionLeavesTheDeadAlone(t *testing.T) {
	r := newTestRoster(t, time.Minute)
	r.add("a:1", 1)
	r.add("b:1", 2)
	r.end("a:1", false) // killed
	r.want("b:1")
	r.end("b:1", true) // the last one is deregistered: the dead one is better than none
	r.want("a:1")
	r.add("b:1", 3)
	r.want("a:1", "b:1")
	r.pass(time.Minute)
	r.want("b:1")
}

func TestProtectionOff(t *testing.T) {
	r := newTestRoster(t, -1)
	r.add("a:1", 1)
	r.end("a:1", false)
	r.want()
}

func TestProtectionInARebuiltEtcd(t *testing.T) {
	r := newTestRoster(t, time.Minute)
	r.add("a:1", 1)
	r.add("b:1", 1)
	r.add("c:1", 2)
	r.want("a:1", "b:1", "c:1")
	before, _ := r.Publish()
	r.revision = 0
	r.Replace([]*mvccpb.KeyValue{r.kv("b:1", 9)}, 100, false, r.now, nil) // long past what was known
	r.judge()
	r.want("a:1", "b:1", "c:1")
	after, differs := r.Publish()
	if differs || !Same(before, after) {
		t.Error("a list that did not change was published again")
	}
	r.pass(time.Minute)
	r.want("b:1")
}

func TestRosterReportsAnInvalidRecordOnce(t *testing.T) {
	r := newTestRoster(t, time.Minute)
	bad := &mvccpb.KeyValue{Key: []byte("p/s/x"), Value: []byte("{"), ModRevision: 5}
	if r.Put(bad) == nil {
		t.Error("not reported")
	}
	if r.Put(bad) != nil {
		t.Error("reported twice")
	}
	bad.ModRevision++
	if r.Put(bad) == nil {
		t.Error("the next revision is not reported")
	}
	r.add("a:1", 0)
	r.want("a:1")
	bad.Key = []byte("p/s/a:1")
	_ = r.Put(bad)
	r.want()
}

// TestMergeIsASort changes lists at random, in many sizes, and compares them with ones made anew.
func TestMergeIsASort(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var list []discovery.Instance
	holds := map[string]*Instance{}
	for range 2000 {
		var changes []change
		for range 1 + rng.IntN(4) {
			key := fmt.Sprintf("k%d", rng.IntN(12))
			if slices.ContainsFunc(changes, func(c change) bool { return c.old != nil && c.old.key == key || c.new != nil && c.new.key == key }) {
				continue
			}
			c := change{old: holds[key]}
			if c.old == nil || rng.IntN(2) == 0 {
				c.new = NewInstance(key, record.Record{Network: "tcp", Address: fmt.Sprintf("h%d:1", rng.IntN(8)), Weight: float64(1 + rng.IntN(2))})
			}
			if holds[key] = c.new; c.new == nil {
				delete(holds, key)
			}
			changes = append(changes, c)
		}
		before := slices.Clone(list)
		next := merge(list, changes)
		if !slices.Equal(before, list) {
			t.Fatal("the old list was changed")
		}
		var want []discovery.Instance
		for _, i := range holds {
			want = append(want, i)
		}
		slices.SortFunc(want, func(a, b discovery.Instance) int { return a.(*Instance).compare(b.(*Instance)) })
		if !slices.Equal(next, want) {
			t.Fatalf("merge(%v, %v) = %v, want %v", list, changes, next, want)
		}
		checkDiff(t, list, next)
		list = next
	}
}

// checkDiff holds diff against a comparison by maps.
func checkDiff(t *testing.T, prev, next []discovery.Instance) {
	t.Helper()
	byKey := func(list []discovery.Instance) map[string]*Instance {
		m := make(map[string]*Instance, len(list))
		for _, i := range list {
			m[i.Address().String()+"|"+i.(*Instance).key] = i.(*Instance)
		}
		return m
	}
	p, n := byKey(prev), byKey(next)
	added, updated, removed := Diff(prev, next)
	for _, i := range added {
		if p[i.Address().String()+"|"+i.(*Instance).key] != nil {
			t.Fatalf("%v is not new", i)
		}
	}
	for _, i := range removed {
		if n[i.Address().String()+"|"+i.(*Instance).key] != nil {
			t.Fatalf("%v is not gone", i)
		}
	}
	for _, i := range updated {
		if old := p[i.Address().String()+"|"+i.(*Instance).key]; old == nil || old.equal(i.(*Instance)) {
			t.Fatalf("%v is not changed", i)
		}
	}
	if len(p)+len(added)-len(removed) != len(n) {
		t.Fatalf("%d + %d - %d is not %d", len(p), len(added), len(removed), len(n))
	}
}

// TestAnotherLeaseIsAnotherServer, even if it says the same.
func TestAnotherLeaseIsAnotherServer(t *testing.T) {
	r := newTestRoster(t, time.Minute)
	r.add("a:1", 1)
	r.want("a:1")
	first := r.List()[0]
	r.add("a:1", 1)
	r.want("a:1")
	if r.List()[0] != first {
		t.Error("the same record written again became another instance")
	}
	r.add("a:1", 2)
	r.want("a:1")
	if r.List()[0] == first {
		t.Error("the record of another lease is the same instance")
	}
}

func TestDiffSeesWeightAndTags(t *testing.T) {
	list := func(weight float64, tags map[string]string) []discovery.Instance {
		return []discovery.Instance{NewInstance("k", record.Record{Network: "tcp", Address: "a:1", Weight: weight, Tags: tags})}
	}
	base := list(10, nil)
	for name, next := range map[string][]discovery.Instance{
		"weight": list(11, nil),
		"tag":    list(10, map[string]string{"a": "b"}),
	} {
		added, updated, removed := Diff(base, next)
		if len(updated) != 1 || updated[0] != next[0] || len(added)+len(removed) != 0 {
			t.Errorf("%s: Diff = %v, %v, %v", name, added, updated, removed)
		}
	}
	if added, updated, removed := Diff(base, list(10, map[string]string{})); len(added)+len(updated)+len(removed) != 0 {
		t.Error("an equal instance is a change")
	}
}

func addresses(list []discovery.Instance) []string {
	addrs := make([]string, len(list))
	for i, inst := range list {
		addrs[i] = inst.Address().String()
	}
	return addrs
}

// TestEqualTagsAreShared: a thousand servers with three different tags keep three maps, also when these come in turns.
func TestEqualTagsAreShared(t *testing.T) {
	const prefix = "kitex/registry-etcd/Hello/"
	r := New(prefix, 10, 0)
	maps := make(map[uintptr]bool)
	for i := range 1000 {
		addr := fmt.Sprintf("10.0.%d.%d:80", i/250, i%250)
		if err := r.Put(&mvccpb.KeyValue{Key: []byte(prefix + addr), Value: fmt.Appendf(nil, `{"address":%q,"tags":{"zone":"z%d"}}`, addr, i%3), Lease: 1, ModRevision: int64(i + 1)}); err != nil {
			t.Fatal(err)
		}
		inst := r.held[prefix+addr].inst
		if zone, _ := inst.Tag("zone"); zone != fmt.Sprintf("z%d", i%3) || inst.Address().String() != addr {
			t.Fatalf("%s has zone %q and address %s", addr, zone, inst.Address())
		}
		maps[reflect.ValueOf(inst.Tags()).Pointer()] = true
	}
	if len(maps) != 3 {
		t.Errorf("%d maps for 3 different tags", len(maps))
	}
}
