package link

// EventType says what happened to the way to etcd.
type EventType int

// The events. Package etcd documents each under the same name.
const (
	EtcdLost EventType = iota
	EtcdFound
)

// Event tells of the Conn as a whole.
type Event struct {
	Type EventType
	Err  error // the cause, where there is one
}

func (c *Config) notify(typ EventType, err error) {
	if c.Notify != nil {
		c.Notify(Event{Type: typ, Err: err})
	}
}
