//go:build linux

package test

import (
	"context"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cloudwego/kitex/pkg/utils"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/connectivity"

	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
	"github.com/kitex-contrib/kitex-etcd/runtime/etcdtest"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/record"
	"github.com/kitex-contrib/kitex-etcd/runtime/retry"
)

// inNamespace runs the test t again, as a process in a network of its own, and says whether this is that process.
func inNamespace(t *testing.T) bool {
	t.Helper()
	cmd := again(t)
	if cmd == nil {
		return true
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("needs ip, from the package iproute2")
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	if err != nil && len(out) == 0 {
		t.Skipf("no network namespace can be made here: %v", err)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return false
}

func ip(t *testing.T, args string) {
	t.Helper()
	if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v: %s", args, err, out)
	}
}

// TestFieldAddressOfAHostWithABridge: of a host's addresses the one is published that others reach, not that of an older bridge. A subnet chooses
// another. When the host's address changes, so does the record.
func TestFieldAddressOfAHostWithABridge(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	for _, args := range []string{
		"link set lo up",
		"link add docker0 type veth peer name docker1", "link set docker1 up", "addr add 172.17.0.1/16 dev docker0", "link set docker0 up",
		"link add eth0 type veth peer name eth1", "link set eth1 up", "addr add 192.168.1.20/24 dev eth0", "link set eth0 up", "route add default via 192.168.1.1 dev eth0",
	} {
		ip(t, args)
	}
	cluster := etcdtest.Start(t)
	cli := etcdClient(t, cluster.Endpoints())
	quick := etcd.WithRetry(retry.NewRetryConfig(retry.WithObserveDelay(200 * time.Millisecond)))
	listen := utils.NewNetAddr("tcp", "[::]:8888")
	register := func(service string, opts ...etcd.Option) {
		t.Helper()
		conn, _ := connectRegistry(t, cluster.Endpoints(), append(opts, quick)...)
		info := serverInfo(service, "[::]:8888")
		info.Addr = listen
		mustRegister(t, conn.Registry(), info)
	}
	stands := func(service, addr string) {
		t.Helper()
		eventually(t, service+" is registered at "+addr+" alone", func() bool {
			resp, err := cli.Get(testContext(t), record.Key(etcd.DefaultPrefix, service, addr))
			all, err2 := cli.Get(testContext(t), record.ServicePrefix(etcd.DefaultPrefix, service), clientv3.WithPrefix())
			return err == nil && err2 == nil && resp.Count == 1 && all.Count == 1
		})
	}
	register("Hello")
	stands("Hello", "192.168.1.20:8888")
	register("Bridged", etcd.WithAdvertiseSubnet(netip.MustParsePrefix("172.16.0.0/12")))
	stands("Bridged", "172.17.0.1:8888")

	conn, _ := connectRegistry(t, cluster.Endpoints(), etcd.WithAdvertiseSubnet(netip.MustParsePrefix("10.0.0.0/8")))
	info := serverInfo("None", "[::]:8888")
	if err := conn.Registry().Register(info); err == nil || !strings.Contains(err.Error(), "10.0.0.0/8") || !strings.Contains(err.Error(), "172.17.0.1") {
		t.Errorf("a subnet without an address: %v", err)
	}

	ip(t, "addr del 192.168.1.20/24 dev eth0")
	ip(t, "addr add 192.168.1.77/24 dev eth0")
	ip(t, "route replace default via 192.168.1.1 dev eth0")
	stands("Hello", "192.168.1.77:8888")
}

// TestFieldHostWithoutANetwork: a laptop on a train has loopback alone. A server that listens on every interface is registered there when etcd is
// there, too.
func TestFieldHostWithoutANetwork(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	ip(t, "link set lo up")
	cluster := etcdtest.Start(t)
	conn, _ := connectRegistry(t, cluster.Endpoints())
	mustRegister(t, conn.Registry(), serverInfo("Hello", "0.0.0.0:8888"))
	if getKey(t, etcdClient(t, cluster.Endpoints()), record.Key(etcd.DefaultPrefix, "Hello", "127.0.0.1:8888")) == nil {
		t.Error("it is not registered at 127.0.0.1")
	}
}

// TestFieldNetworkIsDead: that nothing arrives any more on a connection at rest is noticed within seconds, although no request is made and
// etcd is not pinged.
func TestFieldNetworkIsDead(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	ip(t, "link set lo up")
	cluster := etcdtest.Start(t)
	conn := connect(t, cluster)
	await(t, conn, "Hello")
	ip(t, "link set lo down")
	defer ip(t, "link set lo up")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second) // 13 s are what it takes
	defer cancel()
	if !conn.Client().ActiveConnection().WaitForStateChange(ctx, connectivity.Ready) {
		t.Fatal("the dead connection is not noticed")
	}
	ip(t, "link set lo up")
	for state := conn.Client().ActiveConnection().GetState(); state != connectivity.Ready; state = conn.Client().ActiveConnection().GetState() {
		if !conn.Client().ActiveConnection().WaitForStateChange(ctx, state) {
			t.Fatal("there is no new connection")
		}
	}
}
