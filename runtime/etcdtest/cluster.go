// Package etcdtest runs a real etcd inside the calling process: one member or
// several, on loopback ports of their own and with data of their own, that can
// be stopped, killed and started again on the same addresses, with or without
// their data. It is to etcd what net/http/httptest is to an HTTP server.
//
//	func TestRegister(t *testing.T) {
//		cluster := etcdtest.Start(t)
//		conn, err := etcd.Connect(cluster.Endpoints())
//		…
//	}
//
// Programs (examples, benchmarks) call [New] and [Cluster.Close] instead.
//
// The members are tuned for tests: short elections, nothing logged, nothing
// synced to disk, the HTTP gateway off. [WithConfig] has the last word on all of
// it.
//
// After Close nothing is left of a single member. Several keep a few connections among themselves for up to five
// seconds; a check for leaked goroutines has to wait for that.
package etcdtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
)

// startTimeout bounds how long a member may take to serve. It is only reached
// when a cluster has no quorum.
const startTimeout = 30 * time.Second

// A Cluster is one or more etcd members. Its methods, and those of its members,
// are for one goroutine at a time; [Cluster.Endpoints] and [Member.Endpoint] never
// change and may be called by any.
type Cluster struct {
	members []*Member
	dir     string
	ownDir  bool
}

// An Option changes what [Start] and [New] run.
type Option func(*options)

type options struct {
	members   int
	dir       string
	configure func(*embed.Config)
}

// WithMembers makes the cluster n members instead of one.
func WithMembers(n int) Option {
	return func(o *options) { o.members = n }
}

// WithDir keeps the data in dir, which Close leaves in place, instead of in a
// temporary directory that Close removes.
func WithDir(dir string) Option {
	return func(o *options) { o.dir = dir }
}

// WithConfig lets configure change a member's configuration before each of its
// starts: for tokens, quotas, logs, or TLS. A member whose ClientTLSInfo it fills
// in serves its clients over TLS. Name, Dir, and the URLs are the cluster's own:
// change them at your peril.
func WithConfig(configure func(*embed.Config)) Option {
	return func(o *options) { o.configure = configure }
}

// TB is the part of [testing.TB] that Start needs; it keeps package testing out
// of programs.
type TB interface {
	Helper()
	Cleanup(func())
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	TempDir() string
}

// Start runs a cluster for as long as the test t, with its data in t.TempDir.
// It fails the test if the cluster does not come up.
func Start(t TB, opts ...Option) *Cluster {
	t.Helper()
	c, err := New(append([]Option{WithDir(t.TempDir())}, opts...)...)
	if err != nil {
		t.Fatalf("etcdtest: %v", err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("etcdtest: %v", err)
		}
	})
	return c
}

// New runs a cluster until Close and returns when every member serves.
func New(opts ...Option) (*Cluster, error) {
	o := options{members: 1, configure: func(*embed.Config) {}}
	for _, opt := range opts {
		opt(&o)
	}
	if o.members < 1 {
		return nil, fmt.Errorf("a cluster of %d members: need at least one", o.members)
	}
	// Where ports cannot be reserved, somebody may take one before etcd does.
	for attempt := 1; ; attempt++ {
		c, err := newCluster(o)
		if err == nil || !errors.Is(err, syscall.EADDRINUSE) || attempt == 3 {
			return c, err
		}
	}
}

func newCluster(o options) (c *Cluster, err error) {
	c = &Cluster{dir: o.dir}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Close())
			c = nil
		}
	}()
	if c.dir == "" {
		if c.dir, err = os.MkdirTemp("", "etcdtest-"); err != nil {
			return c, err
		}
		c.ownDir = true
	}
	for i := range o.members {
		m, err := newMember(fmt.Sprintf("member%d", i), c.dir, o.configure)
		if err != nil {
			return c, err
		}
		c.members = append(c.members, m)
	}
	var peers []string
	for _, m := range c.members {
		peers = append(peers, m.name+"=http://"+m.peer.addr)
	}
	for _, m := range c.members {
		m.initialCluster = strings.Join(peers, ",")
	}
	return c, c.Start()
}

// Endpoints returns the client addresses of all members, host:port each. They
// stay the same whatever is stopped and started.
func (c *Cluster) Endpoints() []string {
	endpoints := make([]string, len(c.members))
	for i, m := range c.members {
		endpoints[i] = m.Endpoint()
	}
	return endpoints
}

// Members returns the members, running or not.
func (c *Cluster) Members() []*Member { return c.members }

// Isolate cuts a running member off from the others, in both directions: its clients still reach it, and it has no leader.
// Other members that were isolated before are so no longer; nil isolates none.
func (c *Cluster) Isolate(isolated *Member) {
	for _, m := range c.members {
		for _, other := range c.members {
			switch {
			case m == other || !m.Running() || !other.Running():
			case m == isolated || other == isolated:
				m.etcd.Server.CutPeer(other.etcd.Server.MemberID())
			default:
				m.etcd.Server.MendPeer(other.etcd.Server.MemberID())
			}
		}
	}
}

// Leader waits until the running members agree on a running leader, and returns
// it; it returns ctx's error if they do not in time.
func (c *Cluster) Leader(ctx context.Context) (*Member, error) {
	for {
		if m := c.leader(); m != nil {
			return m, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("no leader among %s: %w", strings.Join(c.Endpoints(), ", "), ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func (c *Cluster) leader() *Member {
	var leader *Member
	var lead uint64
	for _, m := range c.members {
		if !m.Running() {
			continue
		}
		id := m.etcd.Server.Lead()
		if lead != 0 && id != lead {
			return nil
		}
		lead = id
		if uint64(m.etcd.Server.MemberID()) == id {
			leader = m
		}
	}
	return leader
}

// Start starts the members that are not running, with the data they have, and
// returns when they serve.
func (c *Cluster) Start() error {
	var started []*Member
	for _, m := range c.members {
		if m.Running() {
			continue
		}
		if err := m.launch(); err != nil {
			return err
		}
		started = append(started, m)
	}
	for _, m := range started {
		if err := m.await(); err != nil {
			return err
		}
	}
	return nil
}

// Stop stops every member.
func (c *Cluster) Stop() {
	var wg sync.WaitGroup
	for _, m := range c.members {
		wg.Go(m.Kill) // nobody will be left to hand the leadership to
	}
	wg.Wait()
}

// Wipe deletes the data of a stopped cluster. What starts afterwards is a new,
// empty cluster on the same addresses and, as etcd derives them from names and
// addresses, with the same cluster and member IDs.
func (c *Cluster) Wipe() error {
	for _, m := range c.members {
		if m.Running() {
			return fmt.Errorf("wipe of a running cluster: stop %s (%s) first", m.name, m.Endpoint())
		}
	}
	for _, m := range c.members {
		if err := os.RemoveAll(m.dir); err != nil {
			return err
		}
	}
	return nil
}

// Close stops every member, gives its ports back and removes its data, unless
// WithDir said where to keep it. A closed cluster cannot be started again; closing
// it again does nothing.
func (c *Cluster) Close() error {
	c.Stop()
	for _, m := range c.members {
		m.client.release()
		m.peer.release()
	}
	if c.ownDir {
		return os.RemoveAll(c.dir)
	}
	return nil
}
