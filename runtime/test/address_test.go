package test

import (
	"net"
	"strings"
	"testing"

	"github.com/cloudwego/kitex/pkg/registry"
	"github.com/cloudwego/kitex/pkg/utils"
	clientv3 "go.etcd.io/etcd/client/v3"

	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
	"github.com/kitex-contrib/kitex-etcd/runtime/etcdtest"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/record"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/registration"
)

// TestPublishedAddress registers and deregisters a server for every way to say its address, and looks at the key.
func TestPublishedAddress(t *testing.T) {
	cluster := etcdtest.Start(t)
	cli := etcdClient(t, cluster.Endpoints())
	// A machine without a network has no address to publish for a server that listens everywhere.
	_, local, _, localErr := registration.Publishing{Endpoints: cluster.Endpoints()}.Addr(&net.TCPAddr{IP: net.IPv4zero, Port: 1})
	local = strings.TrimSuffix(local, ":1")
	tcp := func(addr string) net.Addr { return utils.NewNetAddr("tcp", addr) }
	tcpAddr := func(ip string, port int) net.Addr { return &net.TCPAddr{IP: net.ParseIP(ip), Port: port} }

	for _, c := range []struct {
		name      string
		listen    net.Addr
		fixed     net.Addr
		at        string
		advertise string
		ip, port  string // the environment variables
		skip      bool   // SkipListenAddr
		want      string // the address; local means this machine's
		network   string // tcp by default
		err       string // part of the error instead
	}{
		{name: "IPv4", listen: tcpAddr("192.0.2.1", 8888), want: "192.0.2.1:8888"},
		{name: "IPv6", listen: tcpAddr("2001:db8::1", 8888), want: "[2001:db8::1]:8888"},
		{name: "IPv6 with a zone", listen: tcp("[fe80::1%eth0]:8888"), want: "[fe80::1%eth0]:8888"},
		{name: "loopback", listen: tcpAddr("127.0.0.1", 8888), want: "127.0.0.1:8888"},
		{name: "host name", listen: tcp("hello.example.com:8888"), want: "hello.example.com:8888"},
		{name: "port alone", listen: tcp(":8888"), want: "local:8888"},
		{name: "every IPv4 interface", listen: tcp("0.0.0.0:8888"), want: "local:8888"},
		{name: "every interface", listen: tcpAddr("::", 8888), want: "local:8888"},
		{name: "network of the listener", listen: utils.NewNetAddr("tcp4", "192.0.2.1:8888"), want: "192.0.2.1:8888", network: "tcp4"},
		{name: "skip the listen address", listen: tcp("hello.example.com:8888"), skip: true, want: "hello.example.com:8888"},

		{name: "advertise", listen: tcp(":8888"), advertise: "192.0.2.7:80", want: "192.0.2.7:80"},
		{name: "advertise a host", listen: tcp(":8888"), advertise: "hello.example.com", want: "hello.example.com:8888"},
		{name: "advertise IPv6", listen: tcp(":8888"), advertise: "2001:db8::7", want: "[2001:db8::7]:8888"},
		{name: "advertise IPv6 in brackets", listen: tcp(":8888"), advertise: "[2001:db8::7]:80", want: "[2001:db8::7]:80"},
		{name: "advertise without a listener", advertise: "192.0.2.7:80", want: "192.0.2.7:80"},
		{name: "advertise for a unix socket", listen: utils.NewNetAddr("unix", "/run/hello.sock"), advertise: "192.0.2.7:80", want: "192.0.2.7:80"},
		{name: "advertise every interface", listen: tcp(":8888"), advertise: "0.0.0.0:80", want: "local:80"},

		{name: "environment", listen: tcp(":8888"), ip: "192.0.2.9", port: "90", want: "192.0.2.9:90"},
		{name: "environment, host alone", listen: tcp(":8888"), ip: "192.0.2.9", want: "192.0.2.9:8888"},
		{name: "environment, port alone", listen: tcpAddr("192.0.2.1", 8888), port: "90", want: "192.0.2.1:90"},
		{name: "environment, IPv6", listen: tcp(":8888"), ip: "2001:db8::9", want: "[2001:db8::9]:8888"},

		{name: "advertise before environment", listen: tcp(":8888"), advertise: "192.0.2.7", ip: "192.0.2.9", port: "90", want: "192.0.2.7:8888"},
		{name: "at before advertise", listen: tcp(":8888"), at: "192.0.2.8:81", advertise: "192.0.2.7:80", want: "192.0.2.8:81"},
		{name: "at, host alone", listen: tcp(":8888"), at: "192.0.2.8", want: "192.0.2.8:8888"},
		{name: "fixed before at", listen: tcp(":8888"), fixed: tcp("192.0.2.6:82"), at: "192.0.2.8:81", want: "192.0.2.6:82"},
		{name: "fixed, its network", listen: tcp(":8888"), fixed: utils.NewNetAddr("tcp4", "192.0.2.6:82"), want: "192.0.2.6:82", network: "tcp4"},
		{name: "fixed, every interface", fixed: tcp(":82"), want: "local:82"},

		{name: "no address", err: "there is no address"},
		{name: "unix socket", listen: utils.NewNetAddr("unix", "/run/hello.sock"), err: "unix socket"},
		{name: "fixed unix socket", listen: tcp(":8888"), fixed: utils.NewNetAddr("unix", "/run/hello.sock"), err: "unix socket"},
		{name: "host alone for a unix socket", listen: utils.NewNetAddr("unix", "/run/hello.sock"), at: "192.0.2.8", err: "unix socket"},
		{name: "no port", listen: tcp("192.0.2.1"), err: "missing port"},
		{name: "port 0", listen: tcpAddr("192.0.2.1", 0), err: `port "0"`},
		{name: "port by name", listen: tcp("192.0.2.1:http"), err: `port "http"`},
		{name: "host with a slash", listen: tcp("a/b:8888"), err: "malformed"},
		{name: "malformed at", listen: tcp(":8888"), at: "192.0.2.8:0", err: "ServerOptionsAt"},
		{name: "malformed environment host", listen: tcp(":8888"), ip: "192.0.2.9:90", err: registration.EnvIP},
		{name: "malformed environment port", listen: tcp(":8888"), port: "http", err: registration.EnvPort},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv(registration.EnvIP, c.ip)
			t.Setenv(registration.EnvPort, c.port)
			conn := connect(t, cluster, etcd.WithAdvertiseAddr(c.advertise), etcd.WithDrainDelay(0))
			r := registryOf(conn.ServerOptions("Hello"))
			if c.at != "" {
				r = registryOf(conn.ServerOptionsAt(c.at, "Hello"))
			}
			etcd.SetFixedAddress(r, c.fixed)
			info := &registry.Info{ServiceName: "Hello", Addr: c.listen, SkipListenAddr: c.skip}
			err := r.Register(info)
			want := c.want
			if strings.HasPrefix(want, "local:") {
				if localErr != nil {
					c.err = localErr.Error()
				}
				want = local + strings.TrimPrefix(want, "local")
			}
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("Register returned %v, want an error with %q", err, c.err)
				}
				if err := r.Deregister(info); err != nil && c.at == "" {
					t.Errorf("Deregister returned %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			resp, err := cli.Get(testContext(t), etcd.DefaultPrefix+"/Hello/", clientv3.WithPrefix())
			if err != nil {
				t.Fatal(err)
			}
			if len(resp.Kvs) != 1 || string(resp.Kvs[0].Key) != record.Key(etcd.DefaultPrefix, "Hello", want) {
				t.Fatalf("etcd holds %v, want the key of %s", resp.Kvs, want)
			}
			rec, err := record.Decode(resp.Kvs[0].Value, 10)
			if c.network == "" {
				c.network = "tcp"
			}
			if err != nil || rec.Address != want || rec.Network != c.network {
				t.Errorf("the record is %s (%v), want %s %s", resp.Kvs[0].Value, err, c.network, want)
			}
			if err := r.Deregister(info); err != nil {
				t.Fatal(err)
			}
			if resp, err := cli.Get(testContext(t), etcd.DefaultPrefix, clientv3.WithPrefix(), clientv3.WithCountOnly()); err != nil || resp.Count != 0 {
				t.Errorf("%d records after Deregister (%v), want none", resp.Count, err)
			}
		})
	}
}

func TestSetFixedAddressOfAnotherRegistryPanics(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("SetFixedAddress took a registry that is not of this package")
		}
	}()
	etcd.SetFixedAddress(registry.NoopRegistry, nil)
}
