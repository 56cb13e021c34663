package etcd

import (
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/cloudwego/kitex/pkg/klog"

	"github.com/kitex-contrib/kitex-etcd/runtime/internal/discovery"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/link"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/picking"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/registration"
)

// EventType says what happened. The zero value is no event.
type EventType int

// The events of registrations (EventRegistered to EventDeregistered), of discovery (EventSynced to EventInvalidRecord,
// EventSnapshotUsed), of calls (EventEjected, EventReadmitted), of operators' marks (EventDrained to EventInvalidMark), and of the
// Conn as a whole (EventRefused, EventEtcdLost, EventEtcdFound).
//
// When the handler hears of a record, Conn.Registered shows what the event says, or something newer.
const (
	_ EventType = iota
	// EventRegistered: the record of Service is in etcd, at Key.
	EventRegistered
	// EventLeaseLost: the lease of this Conn's records is gone; Err says how this was noticed. A repair begins at once.
	EventLeaseLost
	// EventRecordLost: the record at Key is gone although its server runs; a repair begins at once. Or, with
	// WithBackgroundRegister, etcd has not taken the record in time; EventRegistered follows when it has.
	EventRecordLost
	// EventTakenOver: another process registered the same address. The record at Key is that of the other process, and this Conn
	// leaves it alone until it is gone.
	EventTakenOver
	// EventRestored: the record at Key is in etcd again after it was lost.
	EventRestored
	// EventRepairFailed: a repair has used all its attempts; Err is the error of the last one. The next repair begins after the
	// observe delay.
	EventRepairFailed
	// EventDeregistered: the record at Key was deleted. If Err is set, it could not be deleted, and ends with its lease.
	EventDeregistered
	// EventSynced: all instances of Service were read: the first time, or again after the watch was interrupted; then Err says why
	// it was.
	EventSynced
	// EventWatchLost: the watch of Service was interrupted, for the reason in Err. Clients use the last instances until
	// EventSynced.
	EventWatchLost
	// EventInvalidRecord: the key at Key is not an instance, for the reason in Err, and is ignored. Other keys that were found at
	// the same time may be ignored too. Sent once for each revision of a key.
	EventInvalidRecord
	// EventEjected: the instance of Service at Address does not answer, and clients of this Conn stop calling it. Err says how the
	// last attempt ended. The record in etcd did not change. See WithEjection.
	EventEjected
	// EventReadmitted: the instance of Service at Address, which was ejected, gets calls again: it answered, or registered again,
	// or left etcd. Err says why it was ejected.
	EventReadmitted
	// EventRefused: etcd answers, but refuses to renew the lease of this Conn's records because of user, password or role; Err is
	// its error. The records end with the lease. Sent once, when it begins.
	EventRefused
	// EventSnapshotUsed: etcd has not answered about Service yet, and clients use the instances that an earlier process stored,
	// until EventSynced. Err says why etcd did not answer, if this is known. See WithSnapshots.
	EventSnapshotUsed
	// EventDrained: an operator's mark took the record at Key out of etcd. The server runs on, but no client calls it. Err is the
	// reason in the mark, or nil. If a server with such a mark starts, this event comes instead of EventRegistered.
	EventDrained
	// EventUndrained: the mark is gone, and the record is in etcd again, at Key.
	EventUndrained
	// EventInvalidMark: the mark at Key is malformed, for the reason in Err, and is ignored.
	EventInvalidMark
	// EventEtcdLost: etcd cannot be reached, or the member that is reached has no leader, for the reason in Err. Clients use the
	// last known instances. Records end with their lease unless EventEtcdFound comes first. If etcd restarts within 3 s, this event
	// is not sent.
	EventEtcdLost
	// EventEtcdFound: etcd answers again after EventEtcdLost.
	EventEtcdFound
)

var eventNames = [...]string{
	EventRegistered: "registered", EventLeaseLost: "lease lost", EventRecordLost: "record lost", EventTakenOver: "taken over",
	EventRestored: "restored", EventRepairFailed: "repair failed", EventDeregistered: "deregistered",
	EventSynced: "synced", EventWatchLost: "watch lost", EventInvalidRecord: "invalid record",
	EventEjected: "ejected", EventReadmitted: "readmitted",
	EventRefused:      "refused",
	EventSnapshotUsed: "snapshot used",
	EventDrained:      "drained", EventUndrained: "undrained", EventInvalidMark: "invalid mark",
	EventEtcdLost: "etcd lost", EventEtcdFound: "etcd found",
}

// Known says whether t is one of the events above.
func (t EventType) Known() bool { return t > 0 && int(t) < len(eventNames) }

// String returns the event's name in lower-case words, for logs and labels of metrics.
func (t EventType) String() string {
	if !t.Known() {
		return fmt.Sprintf("EventType(%d)", int(t))
	}
	return eventNames[t]
}

// Event tells the handler given to WithEventHandler what happened. Events come in order, on a goroutine of their own, so a slow handler
// delays nothing. At most 1024 events wait for it; more are dropped, and counted. If the handler panics, this is logged, and it gets
// the next event. An Event contains no secret.
type Event struct {
	Type    EventType
	Time    time.Time // when it happened
	Service string    // empty if the event is about all services of the Conn
	Key     string    // the key in etcd, if the event is about one
	Address string    // host:port of the instance, if the event is about one that clients call
	Err     error     // the cause, if there is one
	Dropped int       // how many events before this one were dropped because the handler did not keep up
}

// eventQueueSize bounds the events that wait for a slow handler. A handler that is further behind than this has missed
// the point of the earlier ones.
const eventQueueSize = 1024

// closeGrace is how long Close waits for a handler that is still at work.
const closeGrace = time.Second

// eventQueue hands events to the handler in order, on a goroutine of its own, so that a slow handler cannot hold up a
// repair or a watch. A nil eventQueue drops everything.
type eventQueue struct {
	handler func(Event)
	done    chan struct{} // closed when the handler has seen the last event

	mu      sync.Mutex
	queue   chan Event // closed by close, then nil
	dropped int
}

func newEventQueue(handler func(Event)) *eventQueue {
	if handler == nil {
		return nil
	}
	queue := make(chan Event, eventQueueSize)
	q := &eventQueue{handler: handler, queue: queue, done: make(chan struct{})}
	go func() {
		defer close(q.done)
		for ev := range queue {
			q.call(ev)
		}
	}()
	return q
}

// call hands one event to the handler. A panic of the handler ends neither the process nor the events after it.
func (q *eventQueue) call(ev Event) {
	defer func() {
		if p := recover(); p != nil {
			klog.Errorf("etcd: the event handler panicked at %q: %v\n%s", ev.Type, p, debug.Stack())
		}
	}()
	q.handler(ev)
}

// send queues ev and never blocks. After close it does nothing.
func (q *eventQueue) send(ev Event) {
	if q == nil {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	ev.Time, ev.Dropped = time.Now(), q.dropped
	select {
	case q.queue <- ev:
		q.dropped = 0
	default:
		q.dropped++
	}
}

// ofRegistration and ofDiscovery send what the rooms beneath tell, in the terms of this package.
func (q *eventQueue) ofRegistration(ev registration.Event) {
	types := [...]EventType{
		registration.Registered: EventRegistered, registration.LeaseLost: EventLeaseLost, registration.RecordLost: EventRecordLost,
		registration.TakenOver: EventTakenOver, registration.Restored: EventRestored, registration.RepairFailed: EventRepairFailed,
		registration.Deregistered: EventDeregistered, registration.Refused: EventRefused, registration.Drained: EventDrained,
		registration.Undrained: EventUndrained, registration.InvalidMark: EventInvalidMark,
	}
	q.send(Event{Type: types[ev.Type], Service: ev.Service, Key: ev.Key, Err: ev.Err})
}

func (q *eventQueue) ofDiscovery(ev discovery.Event) {
	types := [...]EventType{
		discovery.Synced: EventSynced, discovery.WatchLost: EventWatchLost, discovery.InvalidRecord: EventInvalidRecord,
		discovery.SnapshotUsed: EventSnapshotUsed,
	}
	q.send(Event{Type: types[ev.Type], Service: ev.Service, Key: ev.Key, Err: ev.Err})
}

func (q *eventQueue) ofPicking(ev picking.Event) {
	typ := EventReadmitted
	if ev.Ejected {
		typ = EventEjected
	}
	q.send(Event{Type: typ, Service: ev.Service, Address: ev.Address, Err: ev.Err})
}

func (q *eventQueue) ofLink(ev link.Event) {
	types := [...]EventType{link.EtcdLost: EventEtcdLost, link.EtcdFound: EventEtcdFound}
	q.send(Event{Type: types[ev.Type], Err: ev.Err})
}

// close lets the handler see what is queued, for closeGrace at most: a handler that called Close itself would otherwise
// wait for itself.
func (q *eventQueue) close() {
	if q == nil {
		return
	}
	q.mu.Lock()
	close(q.queue)
	q.queue = nil // a send to it takes the default branch
	q.mu.Unlock()
	select {
	case <-q.done:
	case <-time.After(closeGrace):
	}
}
