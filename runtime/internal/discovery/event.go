package discovery

// EventType says what happened to the watch of a service.
type EventType int

// The events. Package etcd documents each under the same name.
const (
	Synced EventType = iota
	WatchLost
	InvalidRecord
	SnapshotUsed
)

// Event tells of one service.
type Event struct {
	Type         EventType
	Service, Key string // Key is empty where no key is meant
	Err          error  // the cause, where there is one
}
