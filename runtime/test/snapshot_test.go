package test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cloudwego/kitex/client"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/kitex-contrib/kitex-etcd/golden/thrift_unary/kitex_gen/api/hello"
	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
	"github.com/kitex-contrib/kitex-etcd/runtime/etcdtest"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/faultproxy"
)

// acceptCounter counts the connections that were ever made.
type acceptCounter struct {
	net.Listener
	accepted atomic.Int64
}

func (l *acceptCounter) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.accepted.Add(1)
	}
	return c, err
}

// deadAddr is an address where nobody listens any more.
func deadAddr(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// snapshotOf waits for the file of a service below dir to have these instances, and returns it.
func snapshotOf(t *testing.T, dir, service string, addrs ...string) string {
	t.Helper()
	slices.Sort(addrs)
	var path string
	eventually(t, "the file of "+service, func() bool {
		paths, err := filepath.Glob(filepath.Join(dir, "*", "*.json"))
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range paths {
			s, err := etcd.ReadSnapshot(p)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, i := range s.Instances {
				got = append(got, i.Address)
			}
			if path = p; s.Service == service && slices.Equal(got, addrs) {
				return true
			}
		}
		return false
	})
	return path
}

// stored runs a process's worth of discovery of the service Hello, and leaves its list in dir.
func stored(t *testing.T, dir, endpoint string, addrs ...string) {
	t.Helper()
	c, err := etcd.Connect([]string{endpoint}, etcd.WithSnapshots(dir))
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(addrs)
	await(t, c, "Hello", addrs...)
	snapshotOf(t, dir, "Hello", addrs...)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestFaultStartWithoutEtcd starts clients while etcd is away, with what an earlier one left on the disk, where one of three
// servers is dead. No call fails. Etcd's first answer then takes the place of that, whole, and closes no connection to those who stay.
func TestFaultStartWithoutEtcd(t *testing.T) {
	t.Parallel()
	for name, away := range map[string]func(*faultproxy.Proxy){
		"refused":    (*faultproxy.Proxy).Shut,
		"no answers": (*faultproxy.Proxy).BlackHole,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cluster := etcdtest.Start(t)
			raw := etcdClient(t, cluster.Endpoints())
			proxy := faultproxy.Start(t, strings.TrimPrefix(cluster.Endpoints()[0], "http://"))
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			counter := &acceptCounter{Listener: ln}
			stays := &helloServer{addr: ln.Addr().String()}
			serve(t, hello.NewServer(stays, onGonet(counter)...))
			goes, comes, dead := serveHello(t), serveHello(t), deadAddr(t)
			for _, addr := range []string{stays.addr, goes.addr, dead} {
				put(t, raw, "Hello", addr)
			}
			dir := filepath.Join(t.TempDir(), "lists")
			stored(t, dir, proxy.Addr(), stays.addr, goes.addr, dead)

			away(proxy)
			c, events := connectRegistry(t, []string{proxy.Addr()}, etcd.WithSnapshots(dir))
			cli := newHello(t, c, longPool(), client.WithConnectTimeout(2*time.Second), client.WithRPCTimeout(5*time.Second))
			begin := time.Now()
			echo(t, cli)
			t.Logf("the first call took %v", time.Since(begin)) // meant to be 500 ms at most
			for range 100 {
				echo(t, cli)
			}
			if got := c.Services()[0]; got.Instances != 3 || got.Snapshot.IsZero() || time.Since(got.Snapshot) > time.Minute || !got.Synced.IsZero() {
				t.Errorf("while etcd is away: %+v", got)
			}
			events.wait(t, etcd.EventSnapshotUsed, 1)
			if n := events.count(etcd.EventSynced); n != 0 {
				t.Errorf("%d times synced with an etcd that is away", n)
			}
			before, err := c.Instances(t.Context(), "Hello")
			if err != nil {
				t.Fatal(err)
			}

			remove(t, raw, "Hello", goes.addr)
			remove(t, raw, "Hello", dead)
			put(t, raw, "Hello", comes.addr)
			made := counter.accepted.Load()
			if name == "refused" {
				proxy.Open(t)
			} else {
				proxy.Forward()
				proxy.Cut()
			}
			after := await(t, c, "Hello", sorted(stays.addr, comes.addr)...)
			at := func(addr string) int { return slices.Index(addresses(before), addr) }
			if i := slices.Index(addresses(after), stays.addr); after[i] != before[at(stays.addr)] {
				t.Error("the server that stays is another instance")
			}
			events.wait(t, etcd.EventSynced, 1)
			if got := c.Services()[0]; got.Instances != 2 || !got.Snapshot.IsZero() || got.Synced.IsZero() {
				t.Errorf("after etcd's answer: %+v", got)
			}
			called := goes.calls.Load()
			for range 100 {
				echo(t, cli)
			}
			awaitEcho(t, cli, comes.addr)
			if goes.calls.Load() != called {
				t.Error("the server that is gone from etcd is called")
			}
			if n := counter.accepted.Load() - made; n != 0 {
				t.Errorf("%d new connections to the server that stays", n)
			}
			if n := events.count(etcd.EventSnapshotUsed); n != 1 {
				t.Errorf("%d times a snapshot was used", n)
			}
			snapshotOf(t, dir, "Hello", stays.addr, comes.addr)
		})
	}
}

// TestFaultStartWithoutEtcdWithCredentials: the etcd client itself cannot be made as long as etcd is away.
func TestFaultStartWithoutEtcdWithCredentials(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Start(t)
	put(t, etcdClient(t, cluster.Endpoints()), "Hello", "10.0.0.1:80")
	dir := t.TempDir()
	stored(t, dir, cluster.Endpoints()[0], "10.0.0.1:80")
	cluster.Stop()
	c := connect(t, cluster, etcd.WithSnapshots(dir), etcd.WithAuthOpt("reader", "reader"))
	await(t, c, "Hello", "10.0.0.1:80")
}

// TestRefusalIsAnAnswer: an etcd that refuses is not away.
func TestRefusalIsAnAnswer(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Start(t)
	raw := etcdClient(t, cluster.Endpoints())
	put(t, raw, "Hello", "10.0.0.1:80")
	dir := t.TempDir()
	stored(t, dir, cluster.Endpoints()[0], "10.0.0.1:80")
	enableAuth(t, raw)
	c, events := connectRegistry(t, cluster.Endpoints(), etcd.WithSnapshots(dir), etcd.WithAuthOpt("reader", "wrong"))
	for end := time.Now().Add(time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if list, err := c.Instances(t.Context(), "Hello"); !errors.Is(err, rpctypes.ErrAuthFailed) {
			t.Fatalf("Instances = %v, %v; want etcd's refusal", list, err)
		}
	}
	if n := events.count(etcd.EventSnapshotUsed); n != 0 {
		t.Errorf("%d times a snapshot was used", n)
	}
}

// TestSnapshotsThatCannotBeUsed: whatever is wrong with the directory or the file, calls are as they are without, whether etcd is
// there or not.
func TestSnapshotsThatCannotBeUsed(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Start(t)
	raw := etcdClient(t, cluster.Endpoints())
	put(t, raw, "Hello", "10.0.0.1:80")
	good := t.TempDir()
	stored(t, good, cluster.Endpoints()[0], "10.0.0.1:80")
	file, err := os.ReadFile(snapshotOf(t, good, "Hello", "10.0.0.1:80"))
	if err != nil {
		t.Fatal(err)
	}
	// copied is a directory with the file, spoiled.
	copied := func(content []byte, mode os.FileMode) string {
		dir := t.TempDir()
		path := snapshotOf(t, good, "Hello", "10.0.0.1:80")
		to := filepath.Join(dir, strings.TrimPrefix(path, good))
		if err := errors.Join(os.MkdirAll(filepath.Dir(to), 0o700), os.WriteFile(to, content, 0o600), os.Chmod(to, mode)); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	notADirectory := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(notADirectory, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	cases := map[string]struct {
		dir  func() string // a new one each time: writers mend some
		opts []etcd.Option
		used bool
	}{
		"as it is":           {dir: func() string { return copied(file, 0o600) }, used: true},
		"not a directory":    {dir: func() string { return notADirectory }},
		"below no directory": {dir: func() string { return filepath.Join(notADirectory, "below") }},
		"missing":            {dir: func() string { return filepath.Join(t.TempDir(), "missing") }},
		"half written":       {dir: func() string { return copied(file[:len(file)/2], 0o600) }},
		"writable by others": {dir: func() string { return copied(file, 0o666) }},
		"of another prefix": {
			dir:  func() string { return copied(file, 0o600) },
			opts: []etcd.Option{etcd.WithEtcdServicePrefix("other")},
		},
		"too old": {
			dir:  func() string { return copied(file, 0o600) },
			opts: []etcd.Option{etcd.WithSnapshotMaxAge(time.Nanosecond)},
		},
	}
	for name, tc := range cases {
		t.Run("etcd answers/"+name, func(t *testing.T) {
			c := connect(t, cluster, append(tc.opts, etcd.WithSnapshots(tc.dir()))...)
			if _, err := c.Instances(testContext(t), "Hello"); err != nil {
				t.Errorf("Instances: %v", err)
			}
		})
	}
	cluster.Stop()
	for name, tc := range cases {
		t.Run("etcd is away/"+name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			c := connect(t, cluster, append(tc.opts, etcd.WithSnapshots(tc.dir()))...)
			list, err := c.Instances(ctx, "Hello")
			if used := err == nil && len(list) == 1; used != tc.used || !used && (err == nil || !strings.Contains(err.Error(), "connection refused")) {
				t.Errorf("Instances = %v, %v; want the list of the file: %v", list, err, tc.used)
			}
		})
	}
}

// TestFaultStartWithoutEtcdThousandServices: each of them has its file, and all are there when a process starts without etcd.
func TestFaultStartWithoutEtcdThousandServices(t *testing.T) {
	t.Parallel()
	const services = 1000
	cluster := etcdtest.Start(t)
	raw := etcdClient(t, cluster.Endpoints())
	name := func(i int) string { return fmt.Sprintf("service %d", i) }
	each(16, services, func(i int) { put(t, raw, name(i), "10.0.0.1:80") })
	dir := t.TempDir()
	c := connect(t, cluster, etcd.WithSnapshots(dir))
	each(16, services, func(i int) { await(t, c, name(i), "10.0.0.1:80") })
	eventually(t, "a file for each service", func() bool {
		paths, err := filepath.Glob(filepath.Join(dir, "*", "*.json"))
		return err == nil && len(paths) == services
	})
	cluster.Stop()
	c = connect(t, cluster, etcd.WithSnapshots(dir))
	begin := time.Now()
	each(services, services, func(i int) { await(t, c, name(i), "10.0.0.1:80") })
	t.Logf("all of them were there after %v", time.Since(begin))
}

// TestReadSnapshotOfSomethingElse names the file and what is wrong.
func TestReadSnapshotOfSomethingElse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.json")
	for _, content := range []string{"", "{}", `{"version":7}`} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if s, err := etcd.ReadSnapshot(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%q: %+v, %v", content, s, err)
		}
	}
}
