package record

import "time"

// A lease's ID has 63 bits. leaseTag, in the highest 15, tells those that kitex-etcd chose from those that etcd chose, whose highest 16 are
// the ID of a member. Below it are 32 bits of seconds since 1970, and 16 that keep the leases of one second apart.
const leaseTag = 0x4b45

// LeaseID is the ID of a lease that is granted at a moment. etcd does not keep when it granted a lease: this is how tools know.
func LeaseID(granted time.Time, other uint16) int64 {
	return leaseTag<<48 | int64(uint32(granted.Unix()))<<16 | int64(other)
}

// LeaseGranted is when a lease was granted, as its ID says. ok is false for the leases of other programs.
func LeaseGranted(id int64, now time.Time) (granted time.Time, ok bool) {
	granted = time.Unix(id>>16&0xffffffff, 0)
	// An hour is for clocks that disagree.
	return granted, id>>48 == leaseTag && granted.Before(now.Add(time.Hour))
}
