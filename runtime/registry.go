package etcd

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/cloudwego/kitex/pkg/klog"
	"github.com/cloudwego/kitex/pkg/registry"
	"github.com/cloudwego/kitex/pkg/rpcinfo"
	"github.com/cloudwego/kitex/server"

	"github.com/kitex-contrib/kitex-etcd/runtime/internal/record"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/registration"
)

// serverRegistry is a Conn as Kitex sees it. A program may make any number of them, and give each to any number of servers. The
// registry.Info says which server is meant.
type serverRegistry struct {
	conn     *Conn
	services []string // the names to register; none means Info.ServiceName
	at       string   // ServerOptionsAt; empty means none
	err      error    // what was wrong with how it was made; every call returns it
	fixed    atomic.Pointer[net.Addr]
	renamed  sync.Once // Kitex's name differs: said once
}

// Registry returns a registry for server.WithRegistry. It registers servers under Info.ServiceName, the name given to
// server.WithServerBasicInfo. It may be used for any number of servers. Most programs should use [Conn.ServerOptions], which sets the
// name.
func (c *Conn) Registry() registry.Registry { return c.newRegistry("") }

// ServerOptions returns the options that register a Kitex server as each of these services, all of them or none. Put them before your
// own options. The names override Info.ServiceName. If something is wrong with the names or with the Conn, Run of the server returns
// the error.
//
// The server publishes the first address that is set, in this order: [SetFixedAddress], [Conn.ServerOptionsAt], [WithAdvertiseAddr], the
// environment variables KITEX_IP_TO_REGISTRY and KITEX_PORT_TO_REGISTRY, the address on which it listens. WithAdvertiseAddr and the
// environment variables apply to all servers of a Conn or a process. If two servers would publish the same host and port, Run of the
// second returns an error.
func (c *Conn) ServerOptions(services ...string) []server.Option {
	return serverOptions(c.newRegistry("", services...), services)
}

// ServerOptionsAt is [Conn.ServerOptions] with the address to publish: host:port, or a host alone with the listener's port. It is for a
// server that listens on another address than clients have to call.
func (c *Conn) ServerOptionsAt(addr string, services ...string) []server.Option {
	r := c.newRegistry(addr, services...)
	if _, _, err := record.ParseAddr(addr); err != nil && r.err == nil {
		r.err = fmt.Errorf("etcd: ServerOptionsAt(%q): %w", addr, err)
	}
	return serverOptions(r, services)
}

func serverOptions(r *serverRegistry, services []string) []server.Option {
	if len(services) == 0 {
		if r.err == nil {
			r.err = errors.New("etcd: ServerOptions was given no service name; name the services as in their IDL")
		}
		return []server.Option{server.WithRegistry(r)}
	}
	return []server.Option{
		// Without a name of its own a server is nameless in traces and logs.
		server.WithServerBasicInfo(&rpcinfo.EndpointBasicInfo{ServiceName: services[0]}),
		server.WithRegistry(r),
	}
}

func (c *Conn) newRegistry(at string, services ...string) *serverRegistry {
	r := &serverRegistry{conn: c, at: at, services: slices.Clone(services)}
	if c == nil {
		r.err = errNilConn
		return r
	}
	if len(services) > registration.MaxTxnOps {
		r.err = fmt.Errorf("etcd: a server of %d services cannot be registered; etcd writes at most %d at once", len(services), registration.MaxTxnOps)
	}
	for i, s := range services {
		if err := record.CheckService(s); err != nil {
			r.err = err
		} else if slices.Contains(services[:i], s) {
			r.err = fmt.Errorf("etcd: service %q is named twice", s)
		}
	}
	return r
}

// SetFixedAddress makes r, a registry of this package, publish address for each server that registers with it from now on; nil ends this.
// It panics if r is not a registry of this package. It is for programs written for registry-etcd; new programs use
// [Conn.ServerOptionsAt].
func SetFixedAddress(r registry.Registry, address net.Addr) {
	sr, ok := r.(*serverRegistry)
	if !ok {
		panic(fmt.Sprintf("etcd: SetFixedAddress was given a %T; give it what NewEtcdRegistry or Conn.Registry returned", r))
	}
	if address == nil {
		sr.fixed.Store(nil)
		return
	}
	sr.fixed.Store(&address)
}

// Register writes the server's records to etcd and keeps them there until Deregister or Close. It returns within 3 s, with an error if
// etcd did not take them. With WithBackgroundRegister it returns nil if etcd has not answered within 500 ms, and goes on in the
// background.
func (r *serverRegistry) Register(info *registry.Info) error {
	if err := r.usable(info); err != nil {
		return err
	}
	records, follows, err := r.records(info)
	if err != nil {
		return err
	}
	var current func() ([]registration.Record, error)
	if follows {
		current = func() ([]registration.Record, error) {
			records, _, err := r.records(info)
			return records, err
		}
	}
	if len(r.services) > 0 && info.ServiceName != "" && !slices.Contains(r.services, info.ServiceName) {
		r.renamed.Do(func() {
			klog.Warnf("etcd: the server is registered as %q, the name in its generated constructor or ServerOptions, and not as %q, the name given to WithServerBasicInfo: "+
				"clients that look for %[2]q do not find it. To keep that name, generate with -name %[3]s=%[2]s", r.services, info.ServiceName, r.services[0])
		})
	}
	return r.conn.registrar.Register(info, records, current, r.conn.cfg.BackgroundRegister)
}

// Deregister deletes the server's records, unless they are now those of another process, and waits for the drain delay, so that clients
// have stopped using the server when its listener closes. It returns nil if there is nothing to delete. If etcd cannot be reached, it
// returns an error within 3 s, and the records end with the lease.
func (r *serverRegistry) Deregister(info *registry.Info) error {
	if err := r.usable(info); err != nil {
		return err
	}
	// Only a caller that hands in another Info than it registered needs the records; its errors are then Register's.
	records, _, _ := r.records(info)
	return r.conn.registrar.Deregister(info, records)
}

func (r *serverRegistry) usable(info *registry.Info) error {
	switch {
	case r.err != nil:
		return r.err
	case r.conn.link.Closing().Err() != nil:
		return ErrClosed
	case info == nil:
		return errors.New("etcd: the registry.Info is nil")
	}
	return nil
}

// records computes what etcd is to hold for a server. follows says that the address was chosen of the host's, and may be another
// one later.
func (r *serverRegistry) records(info *registry.Info) (records []registration.Record, follows bool, err error) {
	services := r.services
	if len(services) == 0 {
		if err := record.CheckService(info.ServiceName); err != nil {
			return nil, false, err
		}
		services = []string{info.ServiceName}
	}
	var fixed net.Addr
	if p := r.fixed.Load(); p != nil {
		fixed = *p
	}
	publishing := registration.Publishing{
		Fixed:     fixed,
		At:        r.at,
		Advertise: r.conn.cfg.AdvertiseAddr,
		Subnet:    r.conn.cfg.AdvertiseSubnet,
		Endpoints: strings.Split(r.conn.link.Target(), ","),
	}
	network, addr, follows, err := publishing.Addr(info.Addr)
	if err != nil {
		return nil, false, fmt.Errorf("etcd: %w: register %q", err, services)
	}
	weight := info.Weight
	if weight <= 0 {
		weight = r.conn.cfg.DefaultWeight
	}
	value, err := record.Encode(&record.Record{Network: network, Address: addr, Weight: float64(weight), Tags: info.Tags})
	if err != nil {
		return nil, false, err
	}
	records = make([]registration.Record, len(services))
	for i, s := range services {
		records[i] = registration.Record{Service: s, Key: record.Key(r.conn.cfg.Prefix, s, addr), Value: value}
	}
	return records, follows, nil
}
