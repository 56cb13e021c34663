package test

import (
	"context"
	"flag"
	"fmt"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
	"github.com/kitex-contrib/kitex-etcd/runtime/etcdtest"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/faultproxy"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/record"
)

// fieldServices is how many services the tests of a slow line follow, and with it how long they take.
var fieldServices = flag.Int("field-services", 150, "services of the tests of a slow way to etcd")

func fieldService(i int) string { return fmt.Sprintf("service%04d", i) }

// fill writes addr into n services.
func fill(t testing.TB, cli *clientv3.Client, n int, addr string) {
	t.Helper()
	var ops []clientv3.Op
	for i := range n {
		ops = append(ops, clientv3.OpPut(record.Key(etcd.DefaultPrefix, fieldService(i), addr), testRecord(addr)))
		if len(ops) == 128 || i == n-1 {
			if _, err := cli.Txn(testContext(t)).Then(ops...).Commit(); err != nil {
				t.Fatal(err)
			}
			ops = ops[:0]
		}
	}
}

// follower follows services through something. read returns when the list has n instances, then watched when it has one more.
type follower func(ctx context.Context, service string, n int, read func()) error

// follows has f follow n services of one instance each, all at once. When all are read it adds an instance to each. It returns
// when the first instance of all, and the second of all, were seen.
func follows(t *testing.T, cli *clientv3.Client, n int, f follower) (read, watched time.Duration) {
	t.Helper()
	if _, err := cli.Delete(testContext(t), etcd.DefaultPrefix, clientv3.WithPrefix()); err != nil {
		t.Fatal(err)
	}
	fill(t, cli, n, "10.0.0.1:80")
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	var reads, watches sync.WaitGroup
	begin := time.Now()
	for i := range n {
		reads.Add(1)
		watches.Go(func() {
			once := sync.OnceFunc(reads.Done)
			defer once()
			if err := f(ctx, fieldService(i), 1, once); err != nil {
				t.Errorf("%s after %v: %v", fieldService(i), time.Since(begin), err)
				cancel()
			}
		})
	}
	reads.Wait()
	read = time.Since(begin)
	fill(t, cli, n, "10.0.0.2:80")
	watches.Wait()
	return read, time.Since(begin)
}

// plain follows as a plain etcd client does: one Get, then one Watch.
func plain(t *testing.T, addr string) follower {
	t.Helper()
	cli, err := clientv3.New(clientv3.Config{Endpoints: []string{addr}, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cli.Close() })
	return func(ctx context.Context, service string, n int, read func()) error {
		prefix := record.ServicePrefix(etcd.DefaultPrefix, service)
		resp, err := cli.Get(ctx, prefix, clientv3.WithPrefix())
		if err == nil && len(resp.Kvs) != n {
			err = fmt.Errorf("%d instances", len(resp.Kvs))
		}
		if err != nil {
			return err
		}
		read()
		for resp := range cli.Watch(ctx, prefix, clientv3.WithPrefix(), clientv3.WithRev(resp.Header.Revision+1)) {
			if err := resp.Err(); err != nil || len(resp.Events) > 0 {
				return err
			}
		}
		return context.Cause(ctx)
	}
}

// ours follows through a Conn.
func ours(t *testing.T, addr string, opts ...etcd.Option) follower {
	t.Helper()
	c := connectTo(t, []string{addr}, opts...)
	return func(ctx context.Context, service string, n int, read func()) error {
		for ctx.Err() == nil {
			for list, err := range c.Watch(ctx, service) {
				switch {
				case err != nil: // the first list is not there yet
				case len(list) > n:
					return nil
				case len(list) == n:
					read()
				}
			}
		}
		return context.Cause(ctx)
	}
}

// TestFieldThinLine has a Conn follow many services over a line that takes a while to carry them. What is slow is not dead: it
// may not be abandoned and begun again.
func TestFieldThinLine(t *testing.T) {
	cluster := etcdtest.Start(t)
	cli := etcdClient(t, cluster.Endpoints())
	n := *fieldServices
	measure := func(f func(*testing.T, string) follower) (read, watched time.Duration, made int) {
		proxy := faultproxy.Start(t, cluster.Endpoints()[0])
		proxy.Line(60_000, 0)
		read, watched = follows(t, cli, n, f(t, proxy.Addr()))
		proxy.Line(0, 0)
		return read, watched, proxy.Made()
	}
	plainRead, plainWatched, _ := measure(plain)
	events := newJournal()
	read, watched, made := measure(func(t *testing.T, addr string) follower {
		return ours(t, addr, etcd.WithEventHandler(events.add))
	})
	t.Logf("%d services over 60 kB/s: plain client read %v watched %v, ours read %v watched %v, connections %d, watches lost %d",
		n, plainRead, plainWatched, read, watched, made, events.count(etcd.EventWatchLost))
	if made > 2 {
		t.Errorf("%d connections, want at most 2", made)
	}
	if limit := 2*plainRead + 5*time.Second; read > limit {
		t.Errorf("read after %v, want at most %v", read, limit)
	}
	if limit := 2*plainWatched + 5*time.Second; watched > limit {
		t.Errorf("watched after %v, want at most %v", watched, limit)
	}
}

// TestFieldFarEtcd has a Conn follow many services of an etcd that is 100 ms away, there and back: the watches must not wait for
// each other until their time is up.
func TestFieldFarEtcd(t *testing.T) {
	cluster := etcdtest.Start(t)
	cli := etcdClient(t, cluster.Endpoints())
	n := *fieldServices / 3
	measure := func(f func(*testing.T, string) follower) (read, watched time.Duration) {
		proxy := faultproxy.Start(t, cluster.Endpoints()[0])
		proxy.Line(0, 50*time.Millisecond)
		read, watched = follows(t, cli, n, f(t, proxy.Addr()))
		proxy.Line(0, 0)
		return read, watched
	}
	plainRead, plainWatched := measure(plain)
	events := newJournal()
	read, watched := measure(func(t *testing.T, addr string) follower {
		return ours(t, addr, etcd.WithEventHandler(events.add))
	})
	t.Logf("%d services, 100 ms: plain client read %v watched %v, ours read %v watched %v, watches lost %d",
		n, plainRead, plainWatched, read, watched, events.count(etcd.EventWatchLost))
	if limit := plainWatched*3/2 + time.Second; watched > limit {
		t.Errorf("watched after %v, want at most %v", watched, limit)
	}
	if n := events.count(etcd.EventWatchLost); n > 0 {
		t.Errorf("%d watches were lost", n)
	}
}

// TestFieldLargeService has a Conn read a service whose list takes longer than any one request may go without an answer.
func TestFieldLargeService(t *testing.T) {
	cluster := etcdtest.Start(t)
	cli := etcdClient(t, cluster.Endpoints())
	const instances, rate = 3000, 100_000
	var ops []clientv3.Op
	for i := range instances {
		addr := fmt.Sprintf("10.0.%d.%d:80", i/250, i%250)
		ops = append(ops, clientv3.OpPut(record.Key(etcd.DefaultPrefix, testService, addr), testRecord(addr)))
		if len(ops) == 125 {
			if _, err := cli.Txn(testContext(t)).Then(ops...).Commit(); err != nil {
				t.Fatal(err)
			}
			ops = ops[:0]
		}
	}
	measure := func(read func(addr string) (int, error)) (time.Duration, int) {
		proxy := faultproxy.Start(t, cluster.Endpoints()[0])
		proxy.Line(rate, 0)
		begin := time.Now()
		n, err := read(proxy.Addr())
		if err != nil {
			t.Fatal(err)
		}
		if n != instances {
			t.Fatalf("%d instances, want %d", n, instances)
		}
		proxy.Line(0, 0)
		return time.Since(begin), proxy.Made()
	}
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	plainTook, _ := measure(func(addr string) (int, error) {
		plain, err := clientv3.New(clientv3.Config{Endpoints: []string{addr}, Logger: zap.NewNop()})
		if err != nil {
			return 0, err
		}
		defer plain.Close()
		resp, err := plain.Get(ctx, record.ServicePrefix(etcd.DefaultPrefix, testService), clientv3.WithPrefix())
		if err != nil {
			return 0, err
		}
		return len(resp.Kvs), nil
	})
	took, made := measure(func(addr string) (int, error) {
		c := connectTo(t, []string{addr})
		for {
			list, err := c.Instances(ctx, testService)
			if err == nil || ctx.Err() != nil {
				return len(list), err
			}
		}
	})
	t.Logf("%d instances over %d kB/s: plain client %v, ours %v, connections %d", instances, rate/1000, plainTook, took, made)
	if made != 1 {
		t.Errorf("%d connections, want 1", made)
	}
	if limit := 2*plainTook + time.Second; took > limit {
		t.Errorf("read after %v, want at most %v", took, limit)
	}
}

// TestFieldMemberWithoutLeader has one address for all members, as a load balancer has, and cuts the member that the Conn is
// connected to off from the others: the connection stands, and is the wrong one.
func TestFieldMemberWithoutLeader(t *testing.T) {
	cluster := etcdtest.Start(t, etcdtest.WithMembers(3))
	leader, err := cluster.Leader(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	members := cluster.Members()
	wrong, right := members[0], members[1]
	if wrong == leader {
		wrong, right = right, wrong
	}
	proxy := faultproxy.Start(t, wrong.Endpoint())
	const ttl = 5 * time.Second
	servers, events := connectRegistry(t, []string{proxy.Addr()}, etcd.WithLeaseTTL(ttl))
	clients := connectTo(t, []string{proxy.Addr()})
	info := serverInfo(testService, "127.0.0.1:1")
	mustRegister(t, servers.Registry(), info)
	await(t, clients, testService, "127.0.0.1:1")

	proxy.Target(right.Endpoint())
	cluster.Isolate(wrong)
	begin := time.Now()
	cli := etcdClient(t, []string{right.Endpoint()})
	for { // the others have a leader
		if _, err := cli.Put(testContext(t), record.Key(etcd.DefaultPrefix, testService, "127.0.0.1:2"), testRecord("127.0.0.1:2")); err == nil {
			break
		}
	}
	await(t, clients, testService, "127.0.0.1:1", "127.0.0.1:2")
	t.Logf("clients see changes again after %v", time.Since(begin))
	var took time.Duration
	key := record.Key(etcd.DefaultPrefix, testService, "127.0.0.1:1")
	for { // a lease that is not renewed would have ended by then
		if took = time.Since(begin); took > ttl+time.Second && getKey(t, cli, key) != nil {
			break
		}
		if took > 30*time.Second {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Logf("the record stands after %v; leases lost: %d; connections: %d", took, events.count(etcd.EventLeaseLost), proxy.Made())
	if limit := ttl + 3*time.Second; took > limit {
		t.Errorf("the server was back after %v, want at most %v", took, limit)
	}
	// One that is wrong is left; the right ones are not.
	if proxy.Made() > 4 {
		t.Errorf("%d connections of two Conns, want at most 4", proxy.Made())
	}
}
