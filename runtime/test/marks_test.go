package test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
	"github.com/kitex-contrib/kitex-etcd/runtime/etcdtest"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/faultproxy"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/record"
	"github.com/kitex-contrib/kitex-etcd/runtime/retry"
)

const (
	markedAddr = "127.0.0.1:8888"
	markedKey  = "kitex/registry-etcd/Hello/" + markedAddr
	markKey    = "kitex/registry-etcd-control/Hello/" + markedAddr
)

func putMark(t testing.TB, cli *clientv3.Client, key, value string, opts ...clientv3.OpOption) {
	t.Helper()
	if _, err := cli.Put(testContext(t), key, value, opts...); err != nil {
		t.Fatal(err)
	}
}

func endMark(t testing.TB, cli *clientv3.Client, key string) {
	t.Helper()
	if _, err := cli.Delete(testContext(t), key); err != nil {
		t.Fatal(err)
	}
}

// awaitRecord waits until etcd holds a record of this weight at key, 0 for none, and returns it.
func awaitRecord(t testing.TB, cli *clientv3.Client, key string, weight int) *mvccpb.KeyValue {
	t.Helper()
	for begin := time.Now(); ; time.Sleep(2 * time.Millisecond) { // etcd is asked: there is no event of it to wait for
		resp, err := cli.Get(context.Background(), key)
		got, value := 0, ""
		if err == nil && len(resp.Kvs) == 1 {
			value = string(resp.Kvs[0].Value)
			r, err := record.Decode(resp.Kvs[0].Value, 99)
			if err != nil {
				t.Fatal(err)
			}
			got = int(r.Weight)
		}
		if err == nil && got == weight {
			if weight == 0 {
				return nil
			}
			return resp.Kvs[0]
		}
		if time.Since(begin) > patience {
			t.Fatalf("%s is %q, %v after %v; want weight %d", key, value, err, patience, weight)
		}
	}
}

func TestMarkDrainsAndEnds(t *testing.T) {
	cluster := etcdtest.Start(t)
	cli := etcdClient(t, cluster.Endpoints())
	conn, events := connectRegistry(t, cluster.Endpoints())
	info := serverInfo("Hello", markedAddr)
	mustRegister(t, conn.Registry(), info, serverInfo("Hello", "127.0.0.1:2"))

	putMark(t, cli, markKey, `{"drain":true,"reason":"slow disk"}`)
	awaitRecord(t, cli, markedKey, 0)
	events.wait(t, etcd.EventDrained, 1)
	if ev := events.last(etcd.EventDrained); ev.Service != "Hello" || ev.Key != markedKey || fmt.Sprint(ev.Err) != "slow disk" {
		t.Errorf("the event is %+v", ev)
	}
	if getKey(t, cli, record.Key(etcd.DefaultPrefix, "Hello", "127.0.0.1:2")) == nil {
		t.Error("the server beside it is drained as well")
	}
	endMark(t, cli, markKey)
	awaitRecord(t, cli, markedKey, 10)
	events.wait(t, etcd.EventUndrained, 1)

	// The end of a mark's lease is the end of the mark.
	lease := grant(t, cli, 60)
	putMark(t, cli, markKey, `{"drain":true}`, clientv3.WithLease(lease))
	awaitRecord(t, cli, markedKey, 0)
	if _, err := cli.Revoke(testContext(t), lease); err != nil {
		t.Fatal(err)
	}
	awaitRecord(t, cli, markedKey, 10)

	// A drained server deregisters, and does not come back.
	putMark(t, cli, markKey, `{"drain":true}`)
	events.wait(t, etcd.EventDrained, 3)
	mustDeregister(t, conn.Registry(), info)
	events.wait(t, etcd.EventDeregistered, 1)
	endMark(t, cli, markKey)
	mustRegister(t, conn.Registry(), serverInfo("Hello", "127.0.0.1:3")) // later than the news of that
	if getKey(t, cli, markedKey) != nil {
		t.Error("a deregistered server came back with the end of its mark")
	}
	for _, typ := range []etcd.EventType{etcd.EventRecordLost, etcd.EventRestored, etcd.EventTakenOver, etcd.EventInvalidMark} {
		if n := events.count(typ); n > 0 {
			t.Errorf("%d events %q", n, typ)
		}
	}
}

func TestMarkWeighs(t *testing.T) {
	cluster := etcdtest.Start(t)
	cli := etcdClient(t, cluster.Endpoints())
	conn, events := connectRegistry(t, cluster.Endpoints())
	info := serverInfo("Hello", markedAddr)
	info.Tags = map[string]string{"zone": "a"}
	mustRegister(t, conn.Registry(), info)
	before := getKey(t, cli, markedKey)

	putMark(t, cli, markKey, `{"weight":1}`)
	kv := awaitRecord(t, cli, markedKey, 1)
	if kv.Lease != before.Lease || kv.CreateRevision != before.CreateRevision || !strings.Contains(string(kv.Value), `"tags":{"zone":"a"}`) {
		t.Errorf("the record was %+v, and is %+v", before, kv)
	}
	putMark(t, cli, markKey, `{"weight":7}`) // two in a row
	awaitRecord(t, cli, markedKey, 7)
	putMark(t, cli, markKey, `{"drain":true,"weight":3}`)
	awaitRecord(t, cli, markedKey, 0)
	putMark(t, cli, markKey, `{"weight":3}`)
	awaitRecord(t, cli, markedKey, 3)

	// The weight survives a repair, and a Register with another weight.
	if _, err := cli.Revoke(testContext(t), clientv3.LeaseID(kv.Lease)); err != nil {
		t.Fatal(err)
	}
	events.wait(t, etcd.EventRestored, 1)
	awaitRecord(t, cli, markedKey, 3)
	info.Weight = 20
	mustRegister(t, conn.Registry(), info)
	awaitRecord(t, cli, markedKey, 3)
	endMark(t, cli, markKey)
	if kv := awaitRecord(t, cli, markedKey, 20); string(kv.Value) != strings.Replace(string(before.Value), "10", "20", 1) {
		t.Errorf("the record was %s, and is %s", before.Value, kv.Value)
	}
}

// TestMarkOutlivesARestart: a server that starts with a mark is never in etcd as it would be without it.
func TestMarkOutlivesARestart(t *testing.T) {
	cluster := etcdtest.Start(t)
	cli := etcdClient(t, cluster.Endpoints())
	putMark(t, cli, markKey, `{"drain":true}`)
	putMark(t, cli, record.MarkKey(etcd.DefaultPrefix, "Hello", "127.0.0.1:2"), `{"weight":2}`)
	seen := cli.Watch(testContext(t), record.ServicePrefix(etcd.DefaultPrefix, "Hello"), clientv3.WithPrefix(), clientv3.WithCreatedNotify())
	<-seen
	conn, events := connectRegistry(t, cluster.Endpoints())
	mustRegister(t, conn.Registry(), serverInfo("Hello", markedAddr), serverInfo("Hello", "127.0.0.1:2"))
	events.wait(t, etcd.EventDrained, 1)
	events.wait(t, etcd.EventRegistered, 1)
	endMark(t, cli, markKey)
	events.wait(t, etcd.EventUndrained, 1)
	var got []string
	for len(got) < 2 {
		for _, ev := range (<-seen).Events {
			got = append(got, string(ev.Kv.Value))
		}
	}
	if !strings.Contains(got[0], `"weight":2`) || !strings.Contains(got[1], markedAddr) {
		t.Errorf("etcd held %q", got)
	}
}

// TestMarksOfManyServers: of hundreds of servers that start in the same moment none is in etcd that is drained.
func TestMarksOfManyServers(t *testing.T) {
	const n = 400
	cluster := etcdtest.Start(t)
	cli := etcdClient(t, cluster.Endpoints())
	addr := func(i int) string { return fmt.Sprintf("127.0.0.1:%d", 1000+i) }
	for i := range n {
		putMark(t, cli, record.MarkKey(etcd.DefaultPrefix, "Hello", addr(i)), `{"drain":true}`)
	}
	raw := watchRaw(t, cli, "Hello")
	conn, events := connectRegistry(t, cluster.Endpoints())
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			if err := conn.Registry().Register(serverInfo("Hello", addr(i))); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	events.wait(t, etcd.EventDrained, n)
	mustRegister(t, conn.Registry(), serverInfo("Hello", "127.0.0.1:1"))
	last := getKey(t, cli, record.Key(etcd.DefaultPrefix, "Hello", "127.0.0.1:1"))
	raw.until(t, last.ModRevision)
	if seen := len(raw.events); seen != 1 {
		t.Errorf("etcd saw %d changes, the first of %s; want that of the last server alone", seen, raw.events[0].Kv.Key)
	}
}

func TestMarkWhileTheLeaseIsLost(t *testing.T) {
	cluster := etcdtest.Start(t)
	cli := etcdClient(t, cluster.Endpoints())
	conn, events := connectRegistry(t, cluster.Endpoints())
	mustRegister(t, conn.Registry(), serverInfo("Hello", markedAddr))
	lease := leaseOf(t, cli, markedKey)
	putMark(t, cli, markKey, `{"drain":true}`)
	events.wait(t, etcd.EventDrained, 1)
	if _, err := cli.Revoke(testContext(t), lease); err != nil {
		t.Fatal(err)
	}
	events.wait(t, etcd.EventLeaseLost, 1)
	endMark(t, cli, markKey)
	awaitRecord(t, cli, markedKey, 10)
	events.wait(t, etcd.EventUndrained, 1)
	if n := events.count(etcd.EventRecordLost); n > 0 {
		t.Errorf("a drained record was lost %d times", n)
	}
}

// TestFaultMarkWhileEtcdIsAway: what is marked meanwhile is followed when etcd can be reached, and what was marked before holds.
func TestFaultMarkWhileEtcdIsAway(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Start(t)
	cli := etcdClient(t, cluster.Endpoints())
	proxy := faultproxy.Start(t, cluster.Endpoints()[0])
	conn, events := connectRegistry(t, []string{proxy.Addr()})
	mustRegister(t, conn.Registry(), serverInfo("Hello", markedAddr), serverInfo("Hello", "127.0.0.1:2"))
	other := record.MarkKey(etcd.DefaultPrefix, "Hello", "127.0.0.1:2")
	putMark(t, cli, other, `{"drain":true}`)
	events.wait(t, etcd.EventDrained, 1)

	proxy.Refuse()
	putMark(t, cli, markKey, `{"drain":true}`)
	resp, err := cli.Get(testContext(t), "x")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cli.Compact(testContext(t), resp.Header.Revision); err != nil { // the watch cannot take up where it was
		t.Fatal(err)
	}
	awaitRecord(t, cli, markedKey, 0) // the lease ends
	proxy.Forward()
	events.wait(t, etcd.EventDrained, 2)
	if kv := getKey(t, cli, markedKey); kv != nil {
		t.Errorf("etcd holds %s", kv.Value)
	}
	endMark(t, cli, markKey)
	awaitRecord(t, cli, markedKey, 10)
	if kv := getKey(t, cli, record.Key(etcd.DefaultPrefix, "Hello", "127.0.0.1:2")); kv != nil {
		t.Errorf("etcd holds %s", kv.Value)
	}
}

// TestFaultMarkInARebuiltEtcd: an etcd that was wiped has no marks, and new ones are followed.
func TestFaultMarkInARebuiltEtcd(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Start(t)
	cli := etcdClient(t, cluster.Endpoints())
	conn, events := connectRegistry(t, cluster.Endpoints())
	mustRegister(t, conn.Registry(), serverInfo("Hello", markedAddr), serverInfo("Hello", "127.0.0.1:2"))
	putMark(t, cli, markKey, `{"drain":true}`)
	events.wait(t, etcd.EventDrained, 1)
	cluster.Stop()
	if err := cluster.Wipe(); err != nil {
		t.Fatal(err)
	}
	restart(t, cluster)
	cli = etcdClient(t, cluster.Endpoints())
	events.wait(t, etcd.EventUndrained, 1)
	putMark(t, cli, markKey, `{"weight":4}`)
	awaitRecord(t, cli, markedKey, 4)
}

func TestMalformedMarkIsIgnored(t *testing.T) {
	cluster := etcdtest.Start(t)
	cli := etcdClient(t, cluster.Endpoints())
	conn, events := connectRegistry(t, cluster.Endpoints())
	putMark(t, cli, markKey, `{"drain":`)
	mustRegister(t, conn.Registry(), serverInfo("Hello", markedAddr))
	awaitRecord(t, cli, markedKey, 10)
	events.wait(t, etcd.EventInvalidMark, 1)
	if ev := events.last(etcd.EventInvalidMark); ev.Key != markKey || ev.Service != "Hello" || ev.Err == nil {
		t.Errorf("the event is %+v", ev)
	}
	putMark(t, cli, markKey, `{"drain":true}`)
	awaitRecord(t, cli, markedKey, 0)
	putMark(t, cli, markKey, `{"weight":0}`) // as good as none
	awaitRecord(t, cli, markedKey, 10)
	events.wait(t, etcd.EventInvalidMark, 2)
}

// TestMarkOfOthers: marks of services and addresses that are not the Conn's, and keys that are no marks, change nothing.
func TestMarkOfOthers(t *testing.T) {
	cluster := etcdtest.Start(t)
	cli := etcdClient(t, cluster.Endpoints())
	conn, events := connectRegistry(t, cluster.Endpoints())
	mustRegister(t, conn.Registry(), serverInfo("Hello", markedAddr), serverInfo("Hello", "127.0.0.1:2"))
	for _, key := range []string{
		"kitex/registry-etcd-control/Echo/" + markedAddr, "kitex/registry-etcd-control/Hello/127.0.0.1:9",
		"kitex/registry-etcd-control/Hello/x/" + markedAddr, "kitex/registry-etcd-control/Hello/", markKey + "0",
	} {
		putMark(t, cli, key, `{"drain":true}`)
	}
	putMark(t, cli, markKey, `{"weight":5}`) // later than the others
	awaitRecord(t, cli, markedKey, 5)
	if kv := getKey(t, cli, record.Key(etcd.DefaultPrefix, "Hello", "127.0.0.1:2")); kv == nil {
		t.Error("a server that has no mark is drained")
	}
	if n := events.count(etcd.EventDrained) + events.count(etcd.EventInvalidMark); n > 0 {
		t.Errorf("%d events of marks", n)
	}
}

// TestMarksThatTheRoleMayNotRead: all works as without marks; when somebody grants it, marks are followed.
func TestMarksThatTheRoleMayNotRead(t *testing.T) {
	cluster, root := securedEtcd(t, "simple")
	brief := etcd.WithRetry(retry.NewRetryConfig(retry.WithRetryDelay(100*time.Millisecond), retry.WithObserveDelay(200*time.Millisecond)))
	conn, events := connectRegistry(t, cluster.Endpoints(), etcd.WithAuthOpt("server", "serverserver"), brief)
	putMark(t, root, markKey, `{"drain":true}`)
	r := conn.Registry()
	info := serverInfo("Hello", markedAddr)
	mustRegister(t, r, info, serverInfo("Hello", "127.0.0.1:2"))
	awaitRecord(t, root, markedKey, 10)
	lease := leaseOf(t, root, markedKey)
	if _, err := root.Revoke(testContext(t), lease); err != nil {
		t.Fatal(err)
	}
	events.wait(t, etcd.EventRestored, 2)
	if n := events.count(etcd.EventRepairFailed) + events.count(etcd.EventDrained); n > 0 {
		t.Errorf("%d repairs failed", n)
	}
	from := record.ServiceMarkPrefix(etcd.DefaultPrefix, "Hello")
	if _, err := root.RoleGrantPermission(testContext(t), "server", from, clientv3.GetPrefixRangeEnd(from), clientv3.PermissionType(clientv3.PermRead)); err != nil {
		t.Fatal(err)
	}
	awaitRecord(t, root, markedKey, 0)
	endMark(t, root, markKey)
	awaitRecord(t, root, markedKey, 10)
	mustDeregister(t, r, info)
}

// TestMarkOfATakenAddress: a mark removes nobody else's record.
func TestMarkOfATakenAddress(t *testing.T) {
	cluster := etcdtest.Start(t)
	cli := etcdClient(t, cluster.Endpoints())
	conn, events := connectRegistry(t, cluster.Endpoints())
	mustRegister(t, conn.Registry(), serverInfo("Hello", markedAddr))
	foreign := grant(t, cli, 60)
	put(t, cli, "Hello", markedAddr, clientv3.WithLease(foreign))
	events.wait(t, etcd.EventTakenOver, 1)
	putMark(t, cli, markKey, `{"drain":true}`)
	events.wait(t, etcd.EventDrained, 1)
	endMark(t, cli, markKey)
	putMark(t, cli, markKey, `{"weight":2}`)
	mustRegister(t, conn.Registry(), serverInfo("Hello", "127.0.0.1:2")) // later than the news of that
	if lease := leaseOf(t, cli, markedKey); lease != foreign {
		t.Errorf("the record of another process stands under lease %x, not %x", lease, foreign)
	}
}
