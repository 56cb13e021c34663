package test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cloudwego/kitex/pkg/discovery"
	clientv3 "go.etcd.io/etcd/client/v3"

	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
	"github.com/kitex-contrib/kitex-etcd/runtime/etcdtest"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/record"
)

const testService = "Hello"

// connect returns a Conn to cluster that the test closes.
func connect(t testing.TB, cluster *etcdtest.Cluster, opts ...etcd.Option) *etcd.Conn {
	t.Helper()
	return connectTo(t, cluster.Endpoints(), opts...)
}

func connectTo(t testing.TB, endpoints []string, opts ...etcd.Option) *etcd.Conn {
	t.Helper()
	c, err := etcd.Connect(endpoints, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return c
}

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// testRecord is the value of an instance at addr.
func testRecord(addr string) string {
	return fmt.Sprintf(`{"network":"tcp","address":%q,"weight":10,"tags":null}`, addr)
}

func put(t testing.TB, cli *clientv3.Client, service, addr string, opts ...clientv3.OpOption) {
	t.Helper()
	if _, err := cli.Put(testContext(t), record.Key(etcd.DefaultPrefix, service, addr), testRecord(addr), opts...); err != nil {
		t.Fatalf("put %s: %v", addr, err)
	}
}

func remove(t testing.TB, cli *clientv3.Client, service, addr string) {
	t.Helper()
	if _, err := cli.Delete(testContext(t), record.Key(etcd.DefaultPrefix, service, addr)); err != nil {
		t.Fatalf("delete %s: %v", addr, err)
	}
}

func grant(t testing.TB, cli *clientv3.Client, seconds int64) clientv3.LeaseID {
	t.Helper()
	lease, err := cli.Grant(testContext(t), seconds)
	if err != nil {
		t.Fatal(err)
	}
	return lease.ID
}

func addresses(list []discovery.Instance) []string {
	addrs := make([]string, len(list))
	for i, inst := range list {
		addrs[i] = inst.Address().String()
	}
	return addrs
}

// await follows service until it has just these addresses, in this order.
func await(t testing.TB, c *etcd.Conn, service string, addrs ...string) []discovery.Instance {
	t.Helper()
	ctx := testContext(t)
	want := strings.Join(addrs, " ")
	var got string
	for list, err := range c.Watch(ctx, service) {
		if err != nil {
			t.Fatalf("%s has [%s], not yet [%s]: %v", service, got, want, err)
		}
		if got = strings.Join(addresses(list), " "); got == want {
			return list
		}
	}
	return nil
}

func TestInstancesFollowEtcd(t *testing.T) {
	cluster := etcdtest.Start(t)
	cli := etcdClient(t, cluster.Endpoints())
	put(t, cli, testService, "10.0.0.2:80")
	put(t, cli, testService+"2", "10.9.9.9:80")
	c := connect(t, cluster)

	first := await(t, c, testService, "10.0.0.2:80")
	put(t, cli, testService, "10.0.0.1:80")
	put(t, cli, testService, "10.0.0.3:80")
	all := await(t, c, testService, "10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80")
	if all[1] != first[0] {
		t.Error("an unchanged instance became another value")
	}
	if _, err := cli.Put(testContext(t), record.Key(etcd.DefaultPrefix, testService, "bad"), "not JSON"); err != nil {
		t.Fatal(err)
	}
	remove(t, cli, testService, "10.0.0.2:80")
	await(t, c, testService, "10.0.0.1:80", "10.0.0.3:80")
	remove(t, cli, testService, "10.0.0.1:80")
	remove(t, cli, testService, "10.0.0.3:80")
	await(t, c, testService)
}

func TestResolveReadsTags(t *testing.T) {
	cluster := etcdtest.Start(t)
	cli := etcdClient(t, cluster.Endpoints())
	_, err := cli.Put(testContext(t), record.Key(etcd.DefaultPrefix, testService, "10.0.0.1:80"),
		`{"address":"10.0.0.1:80","weight":7,"tags":{"idc":"x"},"new":1}`)
	if err != nil {
		t.Fatal(err)
	}
	res, err := connect(t, cluster).Resolver().Resolve(context.Background(), testService)
	if err != nil || len(res.Instances) != 1 || !res.Cacheable || res.CacheKey != testService {
		t.Fatalf("Resolve = %+v, %v", res, err)
	}
	inst := res.Instances[0]
	if v, ok := inst.Tag("idc"); v != "x" || !ok || inst.Weight() != 7 || inst.Address().Network() != "tcp" {
		t.Errorf("instance = %+v", inst)
	}
}

func TestResolveOfAnUnknownServiceFailsInTime(t *testing.T) {
	c, err := etcd.Connect([]string{"127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	canceled, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := c.Resolver().Resolve(canceled, testService); !errors.Is(err, context.Canceled) {
		t.Errorf("Resolve of a caller that left: %v", err)
	}
	begin := time.Now()
	_, err = c.Resolver().Resolve(context.Background(), testService)
	if err == nil {
		t.Fatal("Resolve succeeded without etcd")
	}
	if took := time.Since(begin); took < 2*time.Second || took > 10*time.Second {
		t.Errorf("Resolve took %v of its 3 s", took)
	}
	for _, part := range []string{testService, etcd.DefaultPrefix, "127.0.0.1:1", "connection refused"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("the error does not say %q: %v", part, err)
		}
	}
	if _, err := c.Instances(canceled, testService); err == nil {
		t.Error("Instances succeeded without etcd")
	}
	c.Close()
	if _, err := c.Resolver().Resolve(context.Background(), "Other"); !errors.Is(err, etcd.ErrClosed) {
		t.Errorf("Resolve after Close: %v", err)
	}
	if _, err := (*etcd.Conn)(nil).Resolver().Resolve(context.Background(), testService); !saysNilConn(err) {
		t.Errorf("Resolve of a nil Conn: %v", err)
	}
}

// syncedConn returns a Conn that knows n instances of testService.
func syncedConn(tb testing.TB, n int) (*etcd.Conn, *clientv3.Client) {
	cluster := etcdtest.Start(tb)
	cli := etcdClient(tb, cluster.Endpoints())
	var ops []clientv3.Op
	for i := range n {
		addr := fmt.Sprintf("10.%d.%d.%d:80", i>>16, i>>8&255, i&255)
		ops = append(ops, clientv3.OpPut(record.Key(etcd.DefaultPrefix, testService, addr), testRecord(addr)))
		if len(ops) == 128 || i == n-1 {
			if _, err := cli.Txn(testContext(tb)).Then(ops...).Commit(); err != nil {
				tb.Fatal(err)
			}
			ops = ops[:0]
		}
	}
	c := connect(tb, cluster)
	list, err := c.Instances(testContext(tb), testService)
	if err != nil || len(list) != n {
		tb.Fatalf("%d instances, %v", len(list), err)
	}
	return c, cli
}

func BenchmarkResolve(b *testing.B) {
	for _, n := range []int{1, 100, 1000, 10_000} {
		b.Run(fmt.Sprintf("n=%d", n), func(b *testing.B) {
			c, _ := syncedConn(b, n)
			r := c.Resolver()
			ctx := context.Background()
			b.ReportAllocs()
			for b.Loop() {
				res, err := r.Resolve(ctx, testService)
				if err != nil || len(res.Instances) != n {
					b.Fatal(len(res.Instances), err)
				}
			}
		})
	}
}

// BenchmarkRefresh is what Kitex does every 5 s for a service that has not changed.
func BenchmarkRefresh(b *testing.B) {
	for _, n := range []int{1, 10_000} {
		b.Run(fmt.Sprintf("n=%d", n), func(b *testing.B) {
			c, _ := syncedConn(b, n)
			r := c.Resolver()
			ctx := context.Background()
			prev, _ := r.Resolve(ctx, testService)
			b.ReportAllocs()
			for b.Loop() {
				next, _ := r.Resolve(ctx, testService)
				if _, changed := r.Diff(testService, prev, next); changed {
					b.Fatal("changed")
				}
				prev = next
			}
		})
	}
}

// TestServices shows what a Conn follows, whether etcd answered or not, and makes nothing of it a use.
func TestServices(t *testing.T) {
	cluster := etcdtest.Start(t)
	put(t, etcdClient(t, cluster.Endpoints()), testService, "10.0.0.2:80")
	c := connect(t, cluster)
	if got := c.Services(); len(got) != 0 {
		t.Errorf("before the first use: %+v", got)
	}
	before := time.Now()
	await(t, c, testService, "10.0.0.2:80")
	await(t, c, "Another")
	got := c.Services()
	if len(got) != 2 || got[0].Service != "Another" || got[0].Instances != 0 || got[1].Service != testService || got[1].Instances != 1 {
		t.Fatalf("%+v", got)
	}
	for _, s := range got {
		if s.Synced.Before(before) || s.Synced.After(time.Now()) || s.Idle {
			t.Errorf("%+v", s)
		}
	}
	if got := (*etcd.Conn)(nil).Services(); got != nil {
		t.Errorf("a nil Conn: %+v", got)
	}

	cluster.Stop()
	down := connect(t, cluster)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := down.Instances(ctx, testService)
	if got := down.Services(); err == nil || len(got) != 1 || got[0].Instances != 0 || !got[0].Synced.IsZero() {
		t.Errorf("etcd down: %+v, %v", got, err)
	}
}
