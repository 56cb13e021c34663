package test

import (
	"strings"
	"testing"
	"time"

	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
	"github.com/kitex-contrib/kitex-etcd/runtime/etcdtest"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/record"
	"github.com/kitex-contrib/kitex-etcd/runtime/retry"
)

// TestFieldMarksAndUpdatesOfAHostThatMoves: what Update changed goes along to another address of the host, and the mark of an address is
// followed there.
func TestFieldMarksAndUpdatesOfAHostThatMoves(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	for _, args := range []string{
		"link set lo up", "link add eth0 type veth peer name eth1", "link set eth1 up",
		"addr add 192.168.1.20/24 dev eth0", "link set eth0 up", "route add default via 192.168.1.1 dev eth0",
	} {
		ip(t, args)
	}
	cluster := etcdtest.Start(t)
	cli := etcdClient(t, cluster.Endpoints())
	conn, events := connectRegistry(t, cluster.Endpoints(), etcd.WithRetry(retry.NewRetryConfig(retry.WithObserveDelay(200*time.Millisecond))))
	key := func(host string) string { return record.Key(etcd.DefaultPrefix, "Hello", host+":8888") }
	mark := func(host string) string { return record.MarkKey(etcd.DefaultPrefix, "Hello", host+":8888") }
	mustRegister(t, conn.Registry(), serverInfo("Hello", "[::]:8888"))
	for _, change := range []etcd.Change{{Weight: 3}, {Tags: map[string]string{"zone": "b"}}} {
		if err := conn.Update(testContext(t), "Hello", change); err != nil {
			t.Fatal(err)
		}
	}
	putMark(t, cli, mark("192.168.1.20"), `{"drain":true}`)
	events.wait(t, etcd.EventDrained, 1)
	putMark(t, cli, mark("192.168.1.88"), `{"weight":9}`)
	move := func(from, to string) {
		t.Helper()
		ip(t, "addr del "+from+"/24 dev eth0")
		ip(t, "addr add "+to+"/24 dev eth0")
		ip(t, "route replace default via 192.168.1.1 dev eth0")
	}
	move("192.168.1.20", "192.168.1.77")
	if kv := awaitRecord(t, cli, key("192.168.1.77"), 3); !strings.Contains(string(kv.Value), `"tags":{"zone":"b"}`) {
		t.Errorf("etcd holds %s", kv.Value)
	}
	move("192.168.1.77", "192.168.1.88")
	awaitRecord(t, cli, key("192.168.1.88"), 9)
	endMark(t, cli, mark("192.168.1.88"))
	awaitRecord(t, cli, key("192.168.1.88"), 3)
	for _, host := range []string{"192.168.1.20", "192.168.1.77"} {
		awaitRecord(t, cli, key(host), 0)
	}
}
