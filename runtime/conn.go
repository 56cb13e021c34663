package etcd

import (
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/kitex-contrib/kitex-etcd/runtime/internal/discovery"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/link"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/picking"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/registration"
)

// Conn connects one process to one etcd cluster under one prefix. However many servers and clients use it, it keeps one
// etcd connection, one lease for all its records and one watch for each service that is called. Make it once, early, and
// close it last, after the servers have stopped.
//
// All its methods are safe for concurrent use. On a nil Conn, and after Close, they return errors or values whose use
// returns them; they never panic.
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

// Connect returns a Conn to the etcd cluster at endpoints (host:port, http://host:port or https://host:port). It checks
// everything that can be checked without the network, which it does not use: etcd may be down. An error names the
// setting that is wrong.
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

// Client returns the etcd client beneath the Conn, for calls of your own. It is nil as long as it does not exist: with
// credentials, until etcd has accepted them for the first time. Do not close it.
func (c *Conn) Client() *clientv3.Client {
	if c == nil {
		return nil
	}
	return c.link.Current()
}

// String names the Conn without any of its secrets.
func (c *Conn) String() string {
	if c == nil {
		return "etcd.Conn(nil)"
	}
	return fmt.Sprintf("etcd.Conn(%s, prefix %q)", c.link.Target(), c.cfg.Prefix)
}

// Close removes every record that still stands, ends all watches and waits for all of it, a few
// seconds at most when etcd does not answer. Calls that wait for etcd return ErrClosed at once. Further calls wait for
// the first and return its error.
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
