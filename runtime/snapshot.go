package etcd

import (
	"fmt"
	"time"

	"github.com/kitex-contrib/kitex-etcd/runtime/internal/snapshot"
)

// Snapshot is the content of a file that was written because of [WithSnapshots].
type Snapshot struct {
	Service   string
	Prefix    string    // of all keys
	Program   string    // that wrote it
	Cluster   string    // etcd's cluster ID, in hexadecimal
	Endpoints []string  // of etcd
	Confirmed time.Time // when etcd last confirmed the list

	// Instances are sorted by address. Their Err, Lease, Revision, Created and Since are zero, because the file does not have them.
	Instances []Record
}

// ReadSnapshot reads a file that was written because of [WithSnapshots]. It is for tools: it also reads files that are old or belong to
// another user. The error has the file's name and what is wrong with it.
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
