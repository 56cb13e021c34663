package etcd

import (
	"fmt"
	"time"

	"github.com/kitex-contrib/kitex-etcd/runtime/internal/snapshot"
)

// Snapshot is the content of a file that WithSnapshots had written.
type Snapshot struct {
	Service   string
	Prefix    string    // of all keys
	Program   string    // whose file it is
	Cluster   string    // etcd's cluster ID, in hexadecimal
	Endpoints []string  // of etcd
	Confirmed time.Time // when etcd last confirmed the list

	// Instances are sorted by address. Their Err, Lease and Revision are not in the file, and zero.
	Instances []Record
}

// ReadSnapshot reads a file that WithSnapshots had written, for tools: whoever owns it and however old it is. The error names
// the file and says what is wrong with it.
func ReadSnapshot(path string) (Snapshot, error) {
	l, err := snapshot.Read(path)
	if err != nil {
		return Snapshot{}, fmt.Errorf("etcd: read the snapshot %s: %w", path, err)
	}
	s := Snapshot{Service: l.Service, Prefix: l.Prefix, Program: l.Program, Cluster: l.Cluster, Endpoints: l.Endpoints, Confirmed: l.Confirmed}
	for _, i := range l.Instances {
		s.Instances = append(s.Instances, Record{
			Key: i.Key, Service: l.Service, Network: i.Network, Address: i.Address, Weight: int(i.Weight), Tags: i.Tags,
		})
	}
	return s, nil
}
