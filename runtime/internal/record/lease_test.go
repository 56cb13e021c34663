package record

import (
	"testing"
	"time"
)

func TestLeaseIDSaysWhen(t *testing.T) {
	now := time.Date(2026, 11, 26, 13, 0, 0, 0, time.UTC)
	for _, other := range []uint16{0, 1, 0xffff} {
		id := LeaseID(now, other)
		if granted, ok := LeaseGranted(id, now.Add(time.Minute)); id <= 0 || !ok || !granted.Equal(now) {
			t.Errorf("ID %x: granted %v, %v", id, granted, ok)
		}
	}
	if LeaseID(now, 1) == LeaseID(now, 2) || LeaseID(now, 1) == LeaseID(now.Add(time.Second), 1) {
		t.Error("two leases have one ID")
	}
	for _, foreign := range []int64{0, 1, -1, 0x694d9ac70f2f5a0c, 0x7fffffffffffffff, LeaseID(now.Add(2*time.Hour), 1)} {
		if granted, ok := LeaseGranted(foreign, now); ok {
			t.Errorf("ID %x is taken for one granted at %v", foreign, granted)
		}
	}
}
