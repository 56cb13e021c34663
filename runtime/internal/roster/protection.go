package roster

import (
	"slices"
	"time"
)

// The protection of an empty list: instances that went without an explicit delete are served when no others are left.

// The leases of the lost are asked about when no more than askBelow instances are left: few enough that nobody needs to
// ask in a large fleet's daily coming and going, and early enough that, when the last ones go, it is known what the
// fleet died of. They are asked about at once or never: a deregistered instance's lease ends after the drain delay.
const askBelow = 8

// Questions returns the leases that etcd should be asked about now.
func (r *Roster) Questions() []int64 {
	fresh := r.fresh
	r.fresh = nil
	if r.live > askBelow {
		return nil
	}
	var leases []int64
	for _, l := range fresh {
		if !slices.Contains(leases, l.lease) && len(leases) < 2*askBelow {
			leases = append(leases, l.lease)
		}
	}
	return leases
}

// Answer takes over what etcd said: a living lease means that its records were deleted explicitly.
func (r *Roster) Answer(lease int64, lives bool) {
	for key, l := range r.lost {
		if l.lease != lease || l.served {
			continue
		}
		if lives {
			delete(r.lost, key)
		} else {
			l.expired = true
		}
	}
}

// Protect decides, once there are no instances left, whether to serve the lost. When all that etcd was asked about had
// been deleted explicitly, so were those that it was not asked about.
func (r *Roster) Protect() {
	if r.live > 0 {
		return
	}
	for _, l := range r.lost {
		if l.expired {
			r.serveLost()
			return
		}
	}
	clear(r.lost)
}

func (r *Roster) serveLost() {
	for key, l := range r.lost {
		r.touch(key)
		l.served, l.expired = true, true
	}
}

// Forget ends the memory of those lost for long enough.
func (r *Roster) Forget(now time.Time) {
	r.forgetAt = time.Time{}
	for key, l := range r.lost {
		if !now.Before(l.until) {
			r.touch(key)
			delete(r.lost, key)
		} else if r.forgetAt.IsZero() || l.until.Before(r.forgetAt) {
			r.forgetAt = l.until
		}
	}
}
