package etcd

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/kitex-contrib/kitex-etcd/runtime/internal/record"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/registration"
)

// RegisteredState is the state of a record that a server registered. The zero value is not a state.
type RegisteredState int

const (
	_ RegisteredState = iota
	// StateStanding: etcd has the record, and has confirmed its lease within the last TTL.
	StateStanding
	// StateLost: etcd does not have the record: it was deleted, its lease ended, or etcd has not taken it yet. The Conn writes it as
	// soon as etcd takes it.
	StateLost
	// StateUnknown: etcd had the record, but has not confirmed its lease for a TTL. The record may have ended, so that clients do not
	// find the server. Either etcd is down, or this process is cut off from it.
	StateUnknown
	// StateTaken: another process registered the same address, and the record in etcd is its record.
	StateTaken
	// StateDrained: an operator took the record out of etcd; the server runs on. See Conn.SetMark.
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
	Confirmed time.Time     // when the last renewal of the lease that succeeded was sent; the same for all; zero if there was none
	TTL       time.Duration // how long the record stays after Confirmed, unless the lease is renewed again
}

// Registered returns the state of each record that the servers of this Conn registered and have not deregistered, sorted by key. It reads
// memory: it does not ask etcd and does not wait, so a readiness probe may call it at any rate; see package etcdready. When Register
// has returned, its records are in the list. A nil Conn and a closed Conn have no records.
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

// Change is what [Conn.Update] changes. The zero value is an error of Update.
type Change struct {
	Weight int               // the new weight; 0 means no change
	Tags   map[string]string // all tags, the old ones are gone; nil means no change
}

// Update changes weight and tags of the servers that this Conn registered as service, while they run. Clients never see the records
// absent: they are replaced in one transaction (for at most 128 records). The change lasts until the next Update or Register of the
// server; a repair keeps it. While an operator's mark gives a weight, that weight has priority. A server that a mark has drained gets
// the change when it is registered again.
//
// Update returns when etcd has the change. It waits until ctx ends, 3 s at most. If it returns an error because the time was up, the
// change is still made as soon as etcd answers. If etcd refuses it, nothing changes. A later Update of the same service replaces one
// that waits; the earlier one returns an error.
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
