package etcd

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/kitex-contrib/kitex-etcd/runtime/internal/record"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/registration"
)

// RegisteredState says what became of a record that a server registered. The zero value is no state.
type RegisteredState int

const (
	_ RegisteredState = iota
	// StateStanding: etcd has the record, and has confirmed its lease within the last TTL.
	StateStanding
	// StateLost: etcd does not have the record, or not yet: it was deleted, its lease ended, or etcd has not taken it so far. The
	// Conn writes it as soon as etcd lets it.
	StateLost
	// StateUnknown: etcd had the record, and has not confirmed its lease for a TTL. The record may have ended, so that clients which
	// reach etcd do not find the server. Either etcd is away, or this process is cut off from it.
	StateUnknown
	// StateTaken: another process registered the same address, and its record stands at the key.
	StateTaken
	// StateDrained: an operator took the record out of etcd; the server runs on. See SetMark.
	StateDrained
)

var stateNames = [...]string{
	StateStanding: "standing", StateLost: "lost", StateUnknown: "unknown", StateTaken: "taken", StateDrained: "drained",
}

// Known says whether s is one of the states above.
func (s RegisteredState) Known() bool { return s > 0 && int(s) < len(stateNames) }

// String returns the state's name in one lower-case word, for logs and labels of metrics.
func (s RegisteredState) String() string {
	if !s.Known() {
		return fmt.Sprintf("RegisteredState(%d)", int(s))
	}
	return stateNames[s]
}

// RegisteredStatus is the state of one record that a server of this Conn registered.
type RegisteredStatus struct {
	Service   string
	Key       string // in etcd
	Address   string // host:port, as published
	State     RegisteredState
	Confirmed time.Time     // when etcd was last asked to renew the lease, and did; the same for all; zero if it never did
	TTL       time.Duration // how long the record stays from then on, unless etcd confirms the lease again
}

// Registered returns the state of every record that the servers of this Conn registered and have not deregistered, sorted by key.
// It reads memory: it asks nobody and never waits, so that a readiness probe may call it at any rate; see package etcdready. It
// tells of a Register by the time that this returns. A nil Conn has no records, and neither has a closed one.
func (c *Conn) Registered() []RegisteredStatus {
	if c == nil {
		return nil
	}
	states := [...]RegisteredState{
		registration.Standing: StateStanding, registration.Lost: StateLost, registration.Unknown: StateUnknown,
		registration.Taken: StateTaken, registration.DrainedOut: StateDrained,
	}
	statuses, confirmed, ttl := c.registrar.Registered(time.Now())
	list := make([]RegisteredStatus, len(statuses))
	for i, s := range statuses {
		_, addr, _ := record.SplitKey(c.cfg.Prefix, s.Key)
		list[i] = RegisteredStatus{Service: s.Service, Key: s.Key, Address: addr, State: states[s.State], Confirmed: confirmed, TTL: ttl}
	}
	return list
}

// Change is what [Conn.Update] changes.
type Change struct {
	Weight int               // the new weight; 0 leaves it as it is
	Tags   map[string]string // the new tags, all of them; nil leaves them as they are
}

// Update changes weight and tags under which the servers of this Conn are registered as service, while they run. Clients
// never see them absent: the records are rewritten in place, in one transaction (of 128 records at most). The change lasts until
// the next Update or Register of the server, and survives repairs. A weight that an operator's mark gives comes first while
// the mark lasts; a server that a mark drained has the change when it is back.
//
// Update returns when etcd holds the change. It waits until ctx ends, 3 s at most; an error for that reason does not take the
// change back, which is made as soon as etcd answers. What etcd refuses is not changed. A later Update of the same
// service overtakes one that waits.
func (c *Conn) Update(ctx context.Context, service string, change Change) error {
	if c == nil {
		return errNilConn
	}
	if err := record.CheckService(service); err != nil {
		return err
	}
	if change.Weight < 0 || change.Weight > math.MaxInt32 {
		return fmt.Errorf("etcd: update %s: weight %d is not from 1 to %d, or 0 to leave it", service, change.Weight, math.MaxInt32)
	}
	if change.Weight == 0 && change.Tags == nil {
		return fmt.Errorf("etcd: update %s: the Change is empty", service)
	}
	return c.registrar.Update(ctx, service, registration.Change(change))
}
