package test

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cloudwego/kitex/pkg/registry"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"

	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
	"github.com/kitex-contrib/kitex-etcd/runtime/etcdtest"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/record"
)

func TestRegisterAndDeregister(t *testing.T) {
	cluster := etcdtest.Start(t)
	cli := etcdClient(t, cluster.Endpoints())
	conn, events := connectRegistry(t, cluster.Endpoints())
	r := conn.Registry()
	info := serverInfo("Hello", "127.0.0.1:8888")
	info.Tags = map[string]string{"zone": "a"}
	mustRegister(t, r, info)

	const key = "kitex/registry-etcd/Hello/127.0.0.1:8888"
	kv := getKey(t, cli, key)
	if kv == nil {
		t.Fatalf("no record at %s", key)
	}
	if got, want := string(kv.Value), `{"network":"tcp","address":"127.0.0.1:8888","weight":10,"tags":{"zone":"a"}}`; got != want {
		t.Errorf("the record is %s, want %s", got, want)
	}
	if n := len(leases(t, cli)); n != 1 || kv.Lease == 0 {
		t.Errorf("%d leases, record under %d; want one lease, and the record under it", n, kv.Lease)
	}
	// A second server shares the lease.
	other := serverInfo("Echo", "127.0.0.1:8889")
	mustRegister(t, r, other)
	if n := len(leases(t, cli)); n != 1 {
		t.Errorf("%d leases for two servers, want 1", n)
	}
	mustDeregister(t, r, info)
	if getKey(t, cli, key) != nil {
		t.Error("the record stands after Deregister")
	}
	if n := len(leases(t, cli)); n != 1 {
		t.Errorf("%d leases while a server is registered, want 1", n)
	}
	mustDeregister(t, r, other)
	// Clients that ask now, or a little later, have to see that the lease lives: the servers left on purpose.
	if n := len(leases(t, cli)); n != 1 {
		t.Errorf("%d leases right after the last Deregister, want 1", n)
	}
	awaitNoLease(t, cli)
	events.wait(t, etcd.EventRegistered, 2)
	events.wait(t, etcd.EventDeregistered, 2)
}

func TestServerOptionsRegisterUnderEveryName(t *testing.T) {
	cluster := etcdtest.Start(t)
	cli := etcdClient(t, cluster.Endpoints())
	conn, _ := connectRegistry(t, cluster.Endpoints())
	r := registryOf(conn.ServerOptions("Hello", "Echo"))
	info := serverInfo("whatever", "127.0.0.1:8888")
	mustRegister(t, r, info)
	for _, service := range []string{"Hello", "Echo"} {
		if getKey(t, cli, record.Key(etcd.DefaultPrefix, service, "127.0.0.1:8888")) == nil {
			t.Errorf("no record of %s", service)
		}
	}
	mustDeregister(t, r, info)
	resp, err := cli.Get(testContext(t), etcd.DefaultPrefix, clientv3.WithPrefix())
	if err != nil || resp.Count != 0 {
		t.Errorf("%d records after Deregister (%v), want none", resp.Count, err)
	}
}

func TestSecondServerOnOneAddressIsRefused(t *testing.T) {
	cluster := etcdtest.Start(t)
	cli := etcdClient(t, cluster.Endpoints())
	conn, _ := connectRegistry(t, cluster.Endpoints(), etcd.WithAdvertiseAddr("10.0.0.1:80"))
	r := conn.Registry()
	first, second := serverInfo("Hello", "127.0.0.1:1001"), serverInfo("Hello", "127.0.0.1:1002")
	mustRegister(t, r, first)
	if err := r.Register(second); err == nil || !strings.Contains(err.Error(), "another server") {
		t.Errorf("Register of a second server returned %v, want an error that names the other", err)
	}
	// Kitex deregisters a server that failed to register.
	mustDeregister(t, r, second)
	if getKey(t, cli, record.Key(etcd.DefaultPrefix, "Hello", "10.0.0.1:80")) == nil {
		t.Error("the second server's Deregister removed the first one's record")
	}
	// Nor may one that never came to register, and one that says it listens where the first does.
	mustDeregister(t, r, serverInfo("Hello", "127.0.0.1:1003"))
	twin := serverInfo("Hello", "127.0.0.1:1001")
	if err := r.Register(twin); err == nil {
		t.Error("Register of a second server on one listen address succeeded")
	}
	mustDeregister(t, r, twin)
	if getKey(t, cli, record.Key(etcd.DefaultPrefix, "Hello", "10.0.0.1:80")) == nil {
		t.Error("the Deregister of a server that is not registered removed the first one's record")
	}
	// The same server in another Info may deregister.
	mustDeregister(t, r, serverInfo("Hello", "127.0.0.1:1001"))
	if getKey(t, cli, record.Key(etcd.DefaultPrefix, "Hello", "10.0.0.1:80")) != nil {
		t.Error("the record stands after Deregister")
	}
	mustRegister(t, r, second)
}

func TestRegisterWhileEtcdIsDown(t *testing.T) {
	t.Parallel()
	down, err := net.Listen("tcp", "127.0.0.1:0") // accepts and never answers
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = down.Close() })
	endpoint := down.Addr().String()
	info := serverInfo("Hello", "127.0.0.1:8888")

	t.Run("bounded", func(t *testing.T) {
		conn, _ := connectRegistry(t, []string{endpoint})
		r := conn.Registry()
		begin := time.Now()
		err := r.Register(info)
		if err == nil || !strings.Contains(err.Error(), endpoint) {
			t.Errorf("Register returned %v, want an error that names %s", err, endpoint)
		}
		if d := time.Since(begin); d > 6*time.Second {
			t.Errorf("Register took %v", d)
		}
		mustDeregister(t, r, info)
	})
	t.Run("ended by Close", func(t *testing.T) {
		asked := make(chan struct{})
		tell := sync.OnceFunc(func() { close(asked) })
		conn, _ := connectRegistry(t, []string{endpoint}, func(c *etcd.Config) {
			c.EtcdConfig.DialOptions = append(c.EtcdConfig.DialOptions, grpc.WithChainUnaryInterceptor(
				func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, opts ...grpc.CallOption) error {
					tell()
					return invoker(ctx, method, req, reply, cc, opts...)
				}))
		})
		done := make(chan error)
		go func() { done <- conn.Registry().Register(info) }()
		<-asked
		_ = conn.Close()
		if err := <-done; !errors.Is(err, etcd.ErrClosed) {
			t.Errorf("Register returned %v, want ErrClosed", err)
		}
	})
	t.Run("in the background", func(t *testing.T) {
		conn, _ := connectRegistry(t, []string{endpoint}, etcd.WithBackgroundRegister())
		r := conn.Registry()
		mustRegister(t, r, info)
		mustDeregister(t, r, info)
	})
}

func TestBackgroundRegisterRegistersWhenEtcdIsBack(t *testing.T) {
	cluster := etcdtest.Start(t)
	cluster.Stop()
	conn, events := connectRegistry(t, cluster.Endpoints(), etcd.WithBackgroundRegister())
	info := serverInfo("Hello", "127.0.0.1:8888")
	mustRegister(t, conn.Registry(), info)
	events.wait(t, etcd.EventRecordLost, 1) // or nobody would know that it does not stand
	if err := cluster.Start(); err != nil {
		t.Fatal(err)
	}
	events.wait(t, etcd.EventRegistered, 1)
	if getKey(t, etcdClient(t, cluster.Endpoints()), record.Key(etcd.DefaultPrefix, "Hello", "127.0.0.1:8888")) == nil {
		t.Error("no record")
	}
}

func TestCloseRemovesWhatStands(t *testing.T) {
	cluster := etcdtest.Start(t)
	cli := etcdClient(t, cluster.Endpoints())
	conn, _ := connectRegistry(t, cluster.Endpoints())
	r := conn.Registry()
	info := serverInfo("Hello", "127.0.0.1:8888")
	mustRegister(t, r, info)
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	if getKey(t, cli, record.Key(etcd.DefaultPrefix, "Hello", "127.0.0.1:8888")) != nil {
		t.Error("the record stands after Close")
	}
	awaitNoLease(t, cli)
	for what, err := range map[string]error{"Register": r.Register(info), "Deregister": r.Deregister(info), "Registry": conn.Registry().Register(info)} {
		if !errors.Is(err, etcd.ErrClosed) {
			t.Errorf("%s on a closed Conn returned %v, want ErrClosed", what, err)
		}
	}
}

func TestRegistryOfNilConn(t *testing.T) {
	var conn *etcd.Conn
	for _, r := range []registry.Registry{conn.Registry(), registryOf(conn.ServerOptions("Hello"))} {
		if err := r.Register(serverInfo("Hello", "127.0.0.1:1")); !saysNilConn(err) {
			t.Errorf("Register returned %v, want one that says that the Conn is nil", err)
		}
		if err := r.Deregister(serverInfo("Hello", "127.0.0.1:1")); !saysNilConn(err) {
			t.Errorf("Deregister returned %v, want one that says that the Conn is nil", err)
		}
	}
	if len(conn.ServerOptions("Hello")) == 0 || len(conn.ServerOptionsAt("10.0.0.1:1", "Hello")) == 0 {
		t.Error("a nil Conn gives no options: nothing would say that it is nil")
	}
}
