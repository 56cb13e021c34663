package registration

// EventType says what happened to a record, or to all of them.
type EventType int

// The events. Package etcd documents each under the same name.
const (
	Registered EventType = iota
	LeaseLost
	RecordLost
	TakenOver
	Restored
	RepairFailed
	Deregistered
	Refused
	Drained
	Undrained
	InvalidMark
)

// Event tells of one record, or of all when Key is empty.
type Event struct {
	Type         EventType
	Service, Key string
	Err          error // the cause, where there is one
}
