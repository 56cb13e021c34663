package test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cloudwego/kitex/client"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/kitex-contrib/kitex-etcd/golden/thrift_unary/kitex_gen/api"
	"github.com/kitex-contrib/kitex-etcd/golden/thrift_unary/kitex_gen/api/hello"
	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
	"github.com/kitex-contrib/kitex-etcd/runtime/etcdtest"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/record"
)

// What was met in the field, one test for each kind.

// TestFieldServiceNameIsData: nothing in a service's name is taken for something else. A client of "Hello/x" does not call the servers of
// "Hello".
func TestFieldServiceNameIsData(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Start(t)
	put(t, etcdClient(t, cluster.Endpoints()), "Hello", serveHello(t).addr)
	conn := connect(t, cluster)
	for _, name := range []string{"Hello/x", "Hello/", "Hello\x1f1", "Hello\x1f", "/Hello"} {
		for what, opts := range map[string][]client.Option{"": nil, "with its own balancer ": {client.WithLoadBalancer(stateless{})}} {
			cli, err := hello.NewClient(name, conn.ClientOptions(append(opts, closedAfter(t))...)...)
			if err != nil {
				t.Fatal(err)
			}
			_, err = cli.Echo(context.Background(), &api.Request{Message: "hi"})
			if err == nil {
				t.Errorf("%sa client of %q was answered", what, name)
			} else if !strings.Contains(err.Error(), fmt.Sprintf("%q", name)) {
				t.Errorf("%sthe error of %q does not name it: %v", what, name, err)
			}
		}
	}
}

// TestFieldAuthEnabledLater: clients and servers have credentials all along, and etcd asks for them only later. What begins after that works
// at once, and what is lost is restored at once.
func TestFieldAuthEnabledLater(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Start(t)
	cli := etcdClient(t, cluster.Endpoints())
	put(t, cli, "Old", "a:1")
	conn, events := connectRegistry(t, cluster.Endpoints(), etcd.WithAuthOpt("root", "root"))
	mustRegister(t, conn.Registry(), serverInfo("Hello", "127.0.0.1:1"))
	await(t, conn, "Old", "a:1")
	for i := range 20 {
		put(t, cli, fmt.Sprint("New", i), "b:1")
	}
	enableAuth(t, cli)
	for i := range 20 {
		await(t, conn, fmt.Sprint("New", i), "b:1")
	}
	root := rootClient(t, cluster)
	put(t, root, "New0", "c:1")
	await(t, conn, "New0", "b:1", "c:1")
	if _, err := root.Delete(testContext(t), record.Key(etcd.DefaultPrefix, "Hello", "127.0.0.1:1")); err != nil {
		t.Fatal(err)
	}
	events.wait(t, etcd.EventRestored, 1)
}

// TestFieldTokenOfAnOldStream: a server registers when the token has expired that the connection's stream of watches began with. Its loss is
// noticed as that of the first.
func TestFieldTokenOfAnOldStream(t *testing.T) {
	t.Parallel()
	cluster, root := securedEtcd(t, "simple")
	conn, events := connectRegistry(t, cluster.Endpoints(), etcd.WithAuthOpt("server", "serverserver"))
	mustRegister(t, conn.Registry(), serverInfo("Hello", "127.0.0.1:1"))
	time.Sleep(4 * tokenTTL) // nobody tells that a token expired: only time does
	mustRegister(t, registryOf(conn.ServerOptions("Hello")), serverInfo("Hello", "127.0.0.1:2"))
	for i, addr := range []string{"127.0.0.1:2", "127.0.0.1:1"} {
		remove(t, root, "Hello", addr)
		begin := time.Now()
		events.wait(t, etcd.EventRestored, i+1)
		t.Logf("%s back after %v", addr, time.Since(begin))
	}
}

// TestFieldPasswordChanges while servers and clients run. Credentials that come from a function keep both going.
func TestFieldPasswordChanges(t *testing.T) {
	t.Parallel()
	cluster, root := securedEtcd(t, "simple")
	var password atomic.Value
	password.Store("serverserver")
	conn, events := connectRegistry(t, cluster.Endpoints(), etcd.WithAuthFunc(func(context.Context) (string, string, error) {
		return "server", password.Load().(string), nil
	}))
	mustRegister(t, conn.Registry(), serverInfo("Hello", "127.0.0.1:1"))
	key := record.Key(etcd.DefaultPrefix, "Hello", "127.0.0.1:1")
	lease := leaseOf(t, root, key)
	await(t, conn, "Hello", "127.0.0.1:1")
	password.Store("an0ther")
	if _, err := root.UserChangePassword(testContext(t), "server", "an0ther"); err != nil {
		t.Fatal(err)
	}
	waitRenewed(t, root, lease)
	put(t, root, "Hello", "127.0.0.1:2")
	await(t, conn, "Hello", "127.0.0.1:1", "127.0.0.1:2")
	remove(t, root, "Hello", "127.0.0.1:1")
	events.wait(t, etcd.EventRestored, 1)
}

// TestFieldManyLargeRecords: servers whose records are too large for one request together. They register, and all are restored after
// their lease was revoked.
func TestFieldManyLargeRecords(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Start(t)
	cli := etcdClient(t, cluster.Endpoints())
	conn, events := connectRegistry(t, cluster.Endpoints())
	tags := map[string]string{"large": strings.Repeat("x", 200_000)}
	const servers = 11
	for i := range servers {
		info := serverInfo("Hello", fmt.Sprintf("127.0.0.1:%d", i+1))
		info.Tags = tags
		mustRegister(t, registryOf(conn.ServerOptions("Hello")), info)
	}
	if _, err := cli.Revoke(testContext(t), leaseOf(t, cli, record.Key(etcd.DefaultPrefix, "Hello", "127.0.0.1:1"))); err != nil {
		t.Fatal(err)
	}
	events.wait(t, etcd.EventRestored, servers)

	var many []string
	for i := range 60 {
		many = append(many, fmt.Sprint("Service", i))
	}
	info := serverInfo("", "127.0.0.1:100")
	info.Tags = map[string]string{"large": strings.Repeat("x", 40_000)}
	r := registryOf(conn.ServerOptions(many...))
	mustRegister(t, r, info)
	resp, err := cli.Get(testContext(t), etcd.DefaultPrefix+"/Service", clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil || resp.Count != 60 {
		t.Errorf("%d of 60 services are registered, %v", resp.Count, err)
	}
	mustDeregister(t, r, info)

	// All or none: one that is too large takes the others with it.
	large := serverInfo("", "127.0.0.1:101")
	large.Tags = map[string]string{"large": strings.Repeat("x", 1_700_000)}
	if err := registryOf(conn.ServerOptions("One", "Two")).Register(large); err == nil || !strings.Contains(err.Error(), "too large") {
		t.Errorf("records of 1.7 MB: %v", err)
	}
	resp, err = cli.Get(testContext(t), etcd.DefaultPrefix+"/", clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil || resp.Count != servers {
		t.Errorf("%d records are left, want %d: %v", resp.Count, servers, err)
	}
}

// TestFieldAddressGivenUp: a newer process takes an address over and leaves. The older one, which serves on, is back at once.
func TestFieldAddressGivenUp(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Start(t)
	older, events := connectRegistry(t, cluster.Endpoints())
	newer, _ := connectRegistry(t, cluster.Endpoints())
	clients := connect(t, cluster)
	info := serverInfo("Hello", "127.0.0.1:1")
	mustRegister(t, older.Registry(), info)
	await(t, clients, "Hello", "127.0.0.1:1")
	mustRegister(t, newer.Registry(), serverInfo("Hello", "127.0.0.1:1"))
	events.wait(t, etcd.EventTakenOver, 1)
	mustDeregister(t, newer.Registry(), serverInfo("Hello", "127.0.0.1:1"))
	begin := time.Now()
	events.wait(t, etcd.EventRestored, 1)
	await(t, clients, "Hello", "127.0.0.1:1")
	took := time.Since(begin)
	t.Logf("back after %v", took) // meant to be half a second
	if took > 2*time.Second {
		t.Errorf("back after %v, as if the other process might return", took)
	}
}

// TestFieldRecordEditedByHand: a record that somebody wrote without a lease is an edit, not another process. It is undone, and does not outlive
// the server.
func TestFieldRecordEditedByHand(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Start(t)
	cli := etcdClient(t, cluster.Endpoints())
	conn, events := connectRegistry(t, cluster.Endpoints())
	info := serverInfo("Hello", "127.0.0.1:1")
	mustRegister(t, conn.Registry(), info)
	key := record.Key(etcd.DefaultPrefix, "Hello", "127.0.0.1:1")
	for i := range 3 {
		put(t, cli, "Hello", "127.0.0.1:1")
		events.wait(t, etcd.EventRestored, i+1)
	}
	if leaseOf(t, cli, key) == clientv3.NoLease {
		t.Error("the record has no lease")
	}
	if n := events.count(etcd.EventTakenOver); n != 0 {
		t.Errorf("%d times another process took over, want none", n)
	}
	put(t, cli, "Hello", "127.0.0.1:1") // the server may have seen it or not
	mustDeregister(t, conn.Registry(), info)
	if getKey(t, cli, key) != nil {
		t.Error("the record outlives its server")
	}
}

// TestFieldHandlerPanics: an event handler's panic ends neither the process nor the events after it.
func TestFieldHandlerPanics(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Start(t)
	events := newJournal()
	conn := connect(t, cluster, etcd.WithEventHandler(func(ev etcd.Event) {
		events.add(ev)
		panic("a bug")
	}), etcd.WithDrainDelay(0))
	info := serverInfo("Hello", "127.0.0.1:1")
	mustRegister(t, conn.Registry(), info)
	mustDeregister(t, conn.Registry(), info)
	events.wait(t, etcd.EventDeregistered, 1)
}

// TestFieldOwnContext: the context in the etcd configuration is the caller's, and its end ends the use of etcd.
func TestFieldOwnContext(t *testing.T) {
	t.Parallel()
	for name, auth := range map[string]etcd.Option{"with credentials": etcd.WithAuthOpt("root", "root"), "without": func(*etcd.Config) {}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cluster := etcdtest.Start(t)
			ctx, cancel := context.WithCancel(context.Background())
			conn := connect(t, cluster, auth, func(c *etcd.Config) { c.EtcdConfig.Context = ctx })
			if _, err := conn.Instances(testContext(t), "Hello"); err != nil {
				t.Fatal(err)
			}
			cancel()
			n := 0
			eventually(t, "etcd is not asked any more", func() bool {
				n++
				ctx, cancel := context.WithTimeout(context.Background(), time.Second)
				defer cancel()
				_, err := conn.Instances(ctx, fmt.Sprint("Other", n))
				return err != nil
			})
		})
	}
}

// TestFieldMembersReplaced: all members of etcd are replaced by others. With WithEndpointSync what is registered holds, and the names in
// errors are the true ones.
func TestFieldMembersReplaced(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Start(t)
	conn := connect(t, cluster, etcd.WithEndpointSync(100*time.Millisecond))
	if _, err := conn.Instances(testContext(t), "Hello"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the endpoints are those that etcd announces", func() bool {
		return strings.Contains(conn.String(), cluster.Members()[0].Endpoint())
	})
	if _, err := etcd.Connect(cluster.Endpoints(), etcd.WithEndpointSync(-time.Second)); err == nil {
		t.Error("a negative interval was accepted")
	}
}

// TestFieldBadSettings: what is wrong with a setting is an error of the constructor, or of Run, that names it.
func TestFieldBadSettings(t *testing.T) {
	t.Parallel()
	_, err := etcd.Connect([]string{"127.0.0.1:1"}, etcd.WithAuthFunc(nil))
	if err == nil || !strings.Contains(err.Error(), "WithAuthFunc") {
		t.Errorf("WithAuthFunc(nil): %v", err)
	}
	_, err = etcd.Connect([]string{"127.0.0.1:1"}, etcd.WithAuthOpt("a", "b"), etcd.WithAuthFunc(func(context.Context) (string, string, error) { return "", "", errors.New("") }))
	if err == nil || !strings.Contains(err.Error(), "WithAuthFunc") {
		t.Errorf("WithAuthFunc beside WithAuthOpt: %v", err)
	}
}
