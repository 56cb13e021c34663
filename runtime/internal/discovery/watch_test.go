package discovery

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/kitex-contrib/kitex-etcd/runtime/internal/roster"
)

// TestPublicationsArePaced: a change alone is published at once, and so is one after another; a thousand in a tenth of a
// second are a handful of publications, the last of them with everything.
func TestPublicationsArePaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Service{name: "s", prefix: "p/s/"}
		s.latest.Store(&snapshot{replaced: make(chan struct{})})
		w := &watcher{Service: s, timing: defaultTiming, roster: roster.New(s.prefix, 10, time.Minute), checkAt: time.Now().Add(time.Hour), lookAt: time.Now().Add(time.Hour)}
		published := 0
		duties := func() {
			before := s.snapshot()
			if err := w.duties(context.Background(), nil); err != nil {
				t.Fatal(err)
			}
			if s.snapshot() != before {
				published++
			}
		}
		change := func(i int) {
			addr := fmt.Sprintf("h%03d:1", i)
			kv := &mvccpb.KeyValue{Key: []byte(s.prefix + addr), Value: fmt.Appendf(nil, `{"address":%q}`, addr), ModRevision: int64(1 + i)}
			if err := w.roster.Put(kv); err != nil {
				t.Fatal(err)
			}
			w.responses++
			duties()
		}
		// pass lets time go by, with the alarm that the watcher has set.
		pass := func(d time.Duration) {
			end := time.Now().Add(d)
			for next := w.nextDuty(); next.Before(end); next = w.nextDuty() {
				time.Sleep(time.Until(next))
				duties()
			}
			time.Sleep(time.Until(end))
		}

		for i := range 20 {
			change(i)
			if published != i+1 {
				t.Fatalf("change %d was not published at once", i)
			}
			pass(5 * time.Millisecond)
		}
		published = 0
		for i := range 1000 {
			change(i)
			pass(100 * time.Microsecond)
		}
		pass(maxGap)
		if published < 2 || published > 10 {
			t.Errorf("a thousand changes in 100 ms are %d publications", published)
		}
		if n := len(s.snapshot().instances); n != 1000 {
			t.Errorf("%d instances, want 1000", n)
		}
		// The pace of the burst does not outlive it, although changes go on.
		for i := range 30 {
			change(2000 + i)
			pass(10 * time.Millisecond)
		}
		published = 0
		for i := range 20 {
			change(3000 + i)
			if published != i+1 {
				t.Fatalf("change %d after the burst was not published at once", i)
			}
			pass(10 * time.Millisecond)
		}
		// The time that etcd took to say why the last instance went is none of the pickers'.
		pass(time.Second)
		asked := time.Now()
		time.Sleep(2 * time.Second)
		w.responses++
		w.publish(asked)
		pass(time.Millisecond)
		published = 0
		change(4000)
		if published != 1 {
			t.Error("the change after a slow answer of etcd was not published at once")
		}
		pass(time.Second)
		published = 0
		change(5000)
		if published != 1 {
			t.Error("the change after the burst was not published at once")
		}
	})
}
