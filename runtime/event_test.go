package etcd

import (
	"testing"
	"testing/synctest"

	"github.com/kitex-contrib/kitex-etcd/runtime/internal/link"
)

// TestASlowEventHandlerHoldsUpNobody: events wait for the handler up to a bound, what is beyond it is counted, and the
// order stays.
func TestASlowEventHandlerHoldsUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const extra = 3
		release := make(chan struct{})
		var got []Event
		q := newEventQueue(func(ev Event) {
			<-release
			got = append(got, ev)
		})
		q.send(Event{Type: EventRegistered})
		synctest.Wait() // the handler holds the first one
		for range eventQueueSize + extra {
			q.send(Event{Type: EventLeaseLost})
		}
		close(release)
		synctest.Wait()
		q.send(Event{Type: EventRestored})
		q.close()
		q.send(Event{Type: EventRegistered}) // after close: nothing

		if len(got) != eventQueueSize+2 {
			t.Fatalf("the handler saw %d events, want %d", len(got), eventQueueSize+2)
		}
		first, last := got[0], got[len(got)-1]
		if first.Type != EventRegistered || last.Type != EventRestored || first.Dropped != 0 || last.Dropped != extra {
			t.Errorf("first %+v, last %+v; want %d dropped before the last", first, last, extra)
		}
		if first.Time.IsZero() {
			t.Error("the event has no time")
		}
	})
}

// TestCloseFromTheEventHandler: a handler that closes what it is called by is waited for no longer than the grace.
func TestCloseFromTheEventHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var q *eventQueue
		returned := false
		q = newEventQueue(func(Event) {
			q.close()
			returned = true
		})
		q.send(Event{Type: EventRegistered})
		synctest.Wait()
		link.Sleep(t.Context(), 2*closeGrace)
		synctest.Wait()
		if !returned {
			t.Error("close waits for the handler that called it")
		}
	})
}

func TestEventTypesHaveNames(t *testing.T) {
	seen := make(map[string]bool)
	for et := EventRegistered; et <= EventSnapshotUsed; et++ {
		if name := et.String(); name == "" || seen[name] {
			t.Errorf("event %d is called %q", int(et), name)
		} else {
			seen[name] = true
		}
	}
	if got := EventType(0).String(); got != "EventType(0)" {
		t.Errorf("the zero event is called %q", got)
	}
}
