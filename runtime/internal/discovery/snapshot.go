package discovery

import (
	"time"

	"github.com/cloudwego/kitex/pkg/discovery"
)

// phase says what a snapshot is worth.
type phase uint8

const (
	unsynced phase = iota // etcd has not answered yet
	stored                // etcd has not answered yet, and a file of an earlier process has the list
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
	confirmed time.Time // in phase stored: when etcd confirmed the list
	replaced  chan struct{}
}
