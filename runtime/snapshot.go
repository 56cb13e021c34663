package etcd

import (
	"cmp"
	"maps"
	"net"
	"slices"
	"time"

	"github.com/cloudwego/kitex/pkg/discovery"
	"github.com/cloudwego/kitex/pkg/utils"
)

// instance is one record as Kitex sees it. It is never changed once made.
type instance struct {
	key    string // in etcd
	addr   net.Addr
	weight int
	tags   map[string]string
}

func newInstance(key string, r record) *instance {
	return &instance{key: key, addr: utils.NewNetAddr(r.Network, r.Address), weight: int(r.Weight), tags: r.Tags}
}

func (i *instance) Address() net.Addr { return i.addr }
func (i *instance) Weight() int       { return i.weight }
func (i *instance) Tag(key string) (value string, exist bool) {
	value, exist = i.tags[key]
	return value, exist
}

// Tags returns all tags; do not change the map. Kitex's own instances have this method too.
func (i *instance) Tags() map[string]string { return i.tags }

func (i *instance) equal(o *instance) bool {
	return i.weight == o.weight && i.addr.String() == o.addr.String() && i.addr.Network() == o.addr.Network() && maps.Equal(i.tags, o.tags)
}

// compare orders instances by address; the key decides between records that publish the same one.
func (i *instance) compare(o *instance) int {
	return cmp.Or(cmp.Compare(i.addr.String(), o.addr.String()), cmp.Compare(i.key, o.key))
}

// phase says what a snapshot is worth.
type phase uint8

const (
	unsynced phase = iota // etcd has not answered yet
	current               // what etcd holds, or held when it was last heard
	idle                  // nobody asked for minutes: the watch is gone, the next use brings it back
	waking                // the watch is being brought back
)

// snapshot is what is known of a service at one moment. It is never changed: a newer one takes its place, and then
// replaced is closed.
type snapshot struct {
	instances []discovery.Instance // sorted by address; the array is never used again
	phase     phase
	wakeBy    time.Time // in phase waking: until then it is worth waiting for the next snapshot
	err       error     // in phase unsynced: why
	replaced  chan struct{}
}

// change is one instance that a list gains (old is nil), loses (new is nil) or replaces.
type change struct{ old, new *instance }

// merge returns list with the changes made, in a new array. It costs a copy of the list and, for each change, a search:
// unlike a sort, a change in a list of 10,000 costs microseconds.
func merge(list []discovery.Instance, changes []change) []discovery.Instance {
	type edit struct {
		at   *instance
		keep bool
	}
	edits := make([]edit, 0, 2*len(changes))
	size := len(list)
	for _, c := range changes {
		if c.old != nil {
			edits = append(edits, edit{at: c.old})
			size--
		}
		if c.new != nil {
			edits = append(edits, edit{at: c.new, keep: true})
			size++
		}
	}
	// A removal sorts before an addition in its place.
	slices.SortFunc(edits, func(a, b edit) int {
		if d := a.at.compare(b.at); d != 0 {
			return d
		}
		if a.keep == b.keep {
			return 0
		} else if b.keep {
			return -1
		}
		return 1
	})
	merged := make([]discovery.Instance, 0, size)
	for _, e := range edits {
		n, found := slices.BinarySearchFunc(list, e.at, func(i discovery.Instance, at *instance) int {
			return i.(*instance).compare(at)
		})
		merged = append(merged, list[:n]...)
		list = list[n:]
		if e.keep {
			merged = append(merged, e.at)
		} else if found {
			list = list[1:]
		}
	}
	return append(merged, list...)
}

// sameList says whether two lists are one, in no time: a changed list has an array of its own.
func sameList(a, b []discovery.Instance) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// diff compares two sorted lists in one walk. Lists that are the same cost nothing.
func diff(prev, next []discovery.Instance) (added, updated, removed []discovery.Instance) {
	if sameList(prev, next) {
		return nil, nil, nil
	}
	for len(prev) > 0 && len(next) > 0 {
		p, n := prev[0].(*instance), next[0].(*instance)
		if p == n {
			prev, next = prev[1:], next[1:]
			continue
		}
		switch d := p.compare(n); {
		case d < 0:
			removed, prev = append(removed, p), prev[1:]
		case d > 0:
			added, next = append(added, n), next[1:]
		default:
			if !p.equal(n) {
				updated = append(updated, n)
			}
			prev, next = prev[1:], next[1:]
		}
	}
	return append(added, next...), updated, append(removed, prev...)
}
