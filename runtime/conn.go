package etcd

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Conn connects one process to one etcd cluster under one prefix. However many servers and clients use it, it keeps one
// etcd connection, one lease for all its records and one watch for each service that is called. Make it once, early, and
// close it last, after the servers have stopped.
//
// All its methods are safe for concurrent use. On a nil Conn, and after Close, they return errors or values whose use
// returns them; they never panic.
type Conn struct {
	cfg    *Config
	id     string // names this Conn in Kitex's process-wide caches; unique in the process
	link   *link
	events *eventQueue

	registrar *registrar // owns the lease and the records
	directory *directory // owns the watched services

	closing context.Context    // ended by Close first: waiting calls return ErrClosed
	refuse  context.CancelFunc // ends closing
	running context.Context    // ended by Close last: goroutines return
	stop    context.CancelFunc // ends running

	mu        sync.Mutex // guards the start of a goroutine against Close
	goroutine sync.WaitGroup
	closed    chan struct{} // closed when Close is done
	closeErr  error         // readable once closed is closed
}

var connCount atomic.Uint64

// Connect returns a Conn to the etcd cluster at endpoints (host:port, http://host:port or https://host:port). It checks
// everything that can be checked without the network, which it does not use: etcd may be down. An error names the
// setting that is wrong.
func Connect(endpoints []string, opts ...Option) (*Conn, error) {
	cfg, err := newConfig(endpoints, opts)
	if err != nil {
		return nil, err
	}
	l, err := newLink(cfg)
	if err != nil {
		return nil, err
	}
	c := &Conn{
		cfg:    cfg,
		id:     fmt.Sprintf("kitex-etcd-%d", connCount.Add(1)),
		link:   l,
		events: newEventQueue(cfg.EventHandler),
		closed: make(chan struct{}),
	}
	c.closing, c.refuse = context.WithCancel(context.Background())
	c.running, c.stop = context.WithCancel(context.Background())
	c.registrar = newRegistrar(c)
	c.directory = newDirectory(c)
	c.start(l.run)
	return c, nil
}

// start runs f on a goroutine that Close waits for; f returns when its context ends. It says false, and runs nothing,
// on a Conn that is being closed.
func (c *Conn) start(f func(running context.Context)) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing.Err() != nil {
		return false
	}
	c.goroutine.Go(func() { f(c.running) })
	return true
}

// Client returns the etcd client beneath the Conn, for calls of your own. It is nil as long as it does not exist: with
// credentials, until etcd has accepted them for the first time. Do not close it.
func (c *Conn) Client() *clientv3.Client {
	if c == nil {
		return nil
	}
	return c.link.current()
}

// String names the Conn without any of its secrets.
func (c *Conn) String() string {
	if c == nil {
		return "etcd.Conn(nil)"
	}
	return fmt.Sprintf("etcd.Conn(%s, prefix %q)", c.link.target(), c.cfg.Prefix)
}

// Close removes every record that still stands, ends all watches and waits for all of it, a few
// seconds at most when etcd does not answer. Calls that wait for etcd return ErrClosed at once. Further calls wait for
// the first and return its error.
func (c *Conn) Close() error {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	first := c.closing.Err() == nil
	c.refuse()
	c.mu.Unlock()
	if !first {
		<-c.closed
		return c.closeErr
	}
	err := c.registrar.close()
	c.stop()
	c.goroutine.Wait()
	if e := c.link.close(); err == nil {
		err = e
	}
	c.events.close()
	c.closeErr = err
	close(c.closed)
	return err
}
