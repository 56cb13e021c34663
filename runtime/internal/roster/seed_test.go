package roster

import (
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/kitex-contrib/kitex-etcd/runtime/internal/record"
)

// TestSeed: etcd's first answer takes the place of what was there before it, whole. Instances that say the same stay the same
// pointers, those that are gone were not lost, and an empty answer is believed.
func TestSeed(t *testing.T) {
	seeded := func() *testRoster {
		r := newTestRoster(t, time.Minute)
		var instances []*Instance
		for _, addr := range []string{"a:1", "b:1", "c:1"} {
			instances = append(instances, NewInstance("p/s/"+addr, record.Record{Network: "tcp", Address: addr, Weight: 10}))
		}
		r.Seed(instances)
		if list, differs := r.Publish(); !differs || len(list) != 3 || r.Live() != 3 {
			t.Fatalf("seeded: %v, %v, %d live", list, differs, r.Live())
		}
		return r
	}
	noneInvalid := func(kv *mvccpb.KeyValue, err error) { t.Errorf("%s: %v", kv.Key, err) }

	r := seeded()
	before := r.List()
	changed := r.kv("b:1", 8)
	changed.Value = []byte(`{"address":"b:1","weight":20}`)
	r.Replace([]*mvccpb.KeyValue{r.kv("a:1", 7), changed, r.kv("d:1", 9)}, 10, false, r.now, noneInvalid)
	r.judge()
	list, differs := r.Publish()
	if !differs || len(list) != 3 || r.Live() != 3 {
		t.Fatalf("answered: %v, %v, %d live", list, differs, r.Live())
	}
	if list[0] != before[0] {
		t.Error("a:1 says the same and is another pointer")
	}
	if list[1] == before[1] || list[1].Weight() != 20 {
		t.Errorf("b:1 has changed and is %+v", list[1])
	}
	if list[2].Address().String() != "d:1" || !r.ForgetAt().IsZero() {
		t.Errorf("c:1 is remembered, or d:1 missing: %v", list)
	}
	// From now on it is etcd's: under another lease a server is another one.
	r.Put(r.kv("a:1", 70))
	if again, _ := r.Publish(); again[0] == list[0] {
		t.Error("a:1 under another lease is the same pointer")
	}

	r = seeded()
	r.Replace(nil, 10, false, r.now, noneInvalid)
	r.judge()
	if list, differs := r.Publish(); !differs || len(list) != 0 || r.Live() != 0 {
		t.Errorf("etcd has none: %v, %v, %d live", list, differs, r.Live())
	}
}
