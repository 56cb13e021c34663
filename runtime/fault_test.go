package etcd

import (
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/kitex-contrib/kitex-etcd/runtime/etcdtest"
)

func TestFaultLeaseRevokedBehindItsBack(t *testing.T) {
	cluster := etcdtest.Start(t)
	cli := etcdClient(t, cluster.Endpoints())
	conn, events := connectRegistry(t, cluster.Endpoints())
	info := serverInfo("Hello", "127.0.0.1:8888")
	mustRegister(t, conn.Registry(), info)
	key := recordKey(DefaultPrefix, "Hello", "127.0.0.1:8888")
	for i := range 3 {
		lease := clientv3.LeaseID(getKey(t, cli, key).Lease)
		begin := time.Now()
		if _, err := cli.Revoke(testContext(t), lease); err != nil {
			t.Fatal(err)
		}
		events.wait(t, EventRestored, i+1)
		t.Logf("back after %v", time.Since(begin))
		if kv := getKey(t, cli, key); kv == nil || clientv3.LeaseID(kv.Lease) == lease {
			t.Errorf("the record is %v, want one under a new lease", kv)
		}
	}
	if n := events.count(EventLeaseLost); n != 3 {
		t.Errorf("%d events %q, want 3", n, EventLeaseLost)
	}
	mustDeregister(t, conn.Registry(), info)
	awaitNoLease(t, cli)
}

func TestFaultKeyDeletedBehindItsBack(t *testing.T) {
	cluster := etcdtest.Start(t)
	cli := etcdClient(t, cluster.Endpoints())
	conn, events := connectRegistry(t, cluster.Endpoints())
	r := conn.Registry()
	// One record of a service is watched otherwise than several.
	mustRegister(t, r, serverInfo("Hello", "127.0.0.1:1"), serverInfo("Echo", "127.0.0.1:2"), serverInfo("Echo", "127.0.0.1:3"))
	want := 0
	for _, key := range []string{"Hello/127.0.0.1:1", "Echo/127.0.0.1:2", "Echo/127.0.0.1:3", "Hello/127.0.0.1:1"} {
		begin := time.Now()
		if _, err := cli.Delete(testContext(t), DefaultPrefix+"/"+key); err != nil {
			t.Fatal(err)
		}
		want++
		events.wait(t, EventRestored, want)
		t.Logf("back after %v", time.Since(begin))
		if getKey(t, cli, DefaultPrefix+"/"+key) == nil {
			t.Errorf("no record at %s", key)
		}
	}
	if lost, lease := events.count(EventRecordLost), events.count(EventLeaseLost); lost != want || lease != 0 {
		t.Errorf("%d records and %d leases lost, want %d and 0", lost, lease, want)
	}
}
