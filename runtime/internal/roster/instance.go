package roster

import (
	"cmp"
	"maps"
	"net"

	"github.com/kitex-contrib/kitex-etcd/runtime/internal/record"
)

// Instance is one record as Kitex sees it. It is never changed once made.
type Instance struct {
	key    string // in etcd
	addr   address
	weight int
	tags   map[string]string
}

// address is an instance's net.Addr, a part of it: there are many instances.
type address struct{ network, text string }

func (a *address) Network() string { return a.network }
func (a *address) String() string  { return a.text }

// NewInstance returns the instance of a record that stands at key.
func NewInstance(key string, r record.Record) *Instance {
	return &Instance{key: key, addr: address{r.Network, r.Address}, weight: int(r.Weight), tags: r.Tags}
}

// Key returns the record's key in etcd.
func (i *Instance) Key() string { return i.key }

func (i *Instance) Address() net.Addr { return &i.addr }
func (i *Instance) Weight() int       { return i.weight }
func (i *Instance) Tag(key string) (value string, exist bool) {
	value, exist = i.tags[key]
	return value, exist
}

// Tags returns all tags; do not change the map. Kitex's own instances have this method too.
func (i *Instance) Tags() map[string]string { return i.tags }

func (i *Instance) equal(o *Instance) bool {
	return i.weight == o.weight && i.addr == o.addr && maps.Equal(i.tags, o.tags)
}

// compare orders instances by address; the key decides between records that publish the same one.
func (i *Instance) compare(o *Instance) int {
	return cmp.Or(cmp.Compare(i.addr.text, o.addr.text), cmp.Compare(i.key, o.key))
}
