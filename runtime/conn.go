package etcd

import (
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/kitex-contrib/kitex-etcd/runtime/internal/discovery"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/link"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/picking"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/registration"
)

// Conn connects one process to one etcd cluster and one prefix. It has one connection to etcd, one lease for all its records, and one
// watch for each service that is called, for any number of servers and clients. Make it once, early, and close it last, after the
// servers have stopped.
//
// All methods are safe for concurrent use. On a nil Conn, and after Close, they return errors, or values whose use returns errors.
// They never panic.
type Conn struct {
	cfg    *Config
	events *eventQueue
	link   *link.Link // owns the connection, and the life of every goroutine

	registrar *registration.Registrar // owns the lease and the records
	directory *discovery.Directory    // owns the watched services
	wiring    *picking.Wiring         // carries changes into the clients' balancers

	closed   chan struct{} // closed when Close is done
	closeErr error         // readable once closed is closed
}

// Connect returns a Conn to the etcd cluster at endpoints (host:port, http://host:port or https://host:port). It does not use the
// network, so etcd may be down. It checks all settings; an error names the one that is wrong.
func Connect(endpoints []string, opts ...Option) (*Conn, error) {
	cfg, err := newConfig(endpoints, opts)
	if err != nil {
		return nil, err
	}
	events := newEventQueue(cfg.EventHandler)
	l, err := link.New(link.Config{
		Etcd: cfg.EtcdConfig, Client: cfg.Client, TLS: cfg.tlsFiles, Credentials: cfg.AuthFunc, RetryDelay: cfg.Retry.RetryDelay,
		Notify: events.ofLink,
	})
	if err != nil {
		events.close()
		return nil, err
	}
	c := &Conn{cfg: cfg, events: events, link: l, closed: make(chan struct{})}
	c.registrar = registration.New(registration.Config{
		Link:       l,
		Prefix:     cfg.Prefix,
		LeaseTTL:   cfg.LeaseTTL,
		DrainDelay: cfg.DrainDelay,
		Retry:      cfg.Retry,
		Notify:     c.events.ofRegistration,
	})
	c.directory = discovery.New(discovery.Config{
		Link:            l,
		Prefix:          cfg.Prefix,
		DefaultWeight:   cfg.DefaultWeight,
		EmptyProtection: cfg.EmptyProtection,
		SnapshotDir:     cfg.SnapshotDir,
		SnapshotMaxAge:  cfg.SnapshotMaxAge,
		Notify:          c.events.ofDiscovery,
		Context:         cfg.EtcdConfig.Context,
	})
	c.wiring = picking.New(picking.Config{
		Directory: c.directory,
		KeepAll:   !cfg.Ejection,
		Start:     l.Start,
		Notify:    c.events.ofPicking,
	})
	return c, nil
}

// Client returns the etcd client of the Conn, for your own requests. With credentials, it is nil until etcd has accepted them for the
// first time. Do not close it.
func (c *Conn) Client() *clientv3.Client {
	if c == nil {
		return nil
	}
	return c.link.Current()
}

// String returns the endpoints and the prefix of the Conn, without secrets.
func (c *Conn) String() string {
	if c == nil {
		return "etcd.Conn(nil)"
	}
	return fmt.Sprintf("etcd.Conn(%s, prefix %q)", c.link.Target(), c.cfg.Prefix)
}

// Close deletes the records that are still in etcd, ends all watches, and waits until this is done; a few seconds at most if etcd does
// not answer. Calls that wait for etcd return ErrClosed at once. Further calls of Close wait for the first and return its error.
func (c *Conn) Close() error {
	if c == nil {
		return nil
	}
	if !c.link.Refuse() {
		<-c.closed
		return c.closeErr
	}
	err := c.registrar.Close()
	c.link.Stop()
	if e := c.link.Close(); err == nil {
		err = e
	}
	c.events.close()
	c.closeErr = err
	close(c.closed)
	return err
}
