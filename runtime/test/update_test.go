package test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"

	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
	"github.com/kitex-contrib/kitex-etcd/runtime/etcdtest"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/faultproxy"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/record"
)

// rawWatch is what etcd itself tells of a service's records.
type rawWatch struct {
	events []*clientv3.Event
	ch     clientv3.WatchChan
}

func watchRaw(t *testing.T, cli *clientv3.Client, service string) *rawWatch {
	t.Helper()
	ch := cli.Watch(testContext(t), record.ServicePrefix(etcd.DefaultPrefix, service), clientv3.WithPrefix(), clientv3.WithCreatedNotify())
	<-ch
	return &rawWatch{ch: ch}
}

// until collects events up to a revision.
func (w *rawWatch) until(t *testing.T, rev int64) {
	t.Helper()
	for len(w.events) == 0 || w.events[len(w.events)-1].Kv.ModRevision < rev {
		resp, ok := <-w.ch
		if !ok || resp.Err() != nil {
			t.Fatalf("the watch ended: %v", resp.Err())
		}
		w.events = append(w.events, resp.Events...)
	}
}

// TestUpdateProperty: whatever Updates, marks of weight and Registers come in a row, no record is ever absent, the records of one Update change
// in one revision, and in the end etcd holds the last of all.
func TestUpdateProperty(t *testing.T) {
	cluster := etcdtest.Start(t)
	cli := etcdClient(t, cluster.Endpoints())
	conn, _ := connectRegistry(t, cluster.Endpoints())
	addrs := []string{"127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"}
	raw := watchRaw(t, cli, "Hello")
	for _, addr := range addrs {
		mustRegister(t, conn.Registry(), serverInfo("Hello", addr))
	}
	seed := uint64(time.Now().UnixNano())
	rng := rand.New(rand.NewPCG(seed, 0))
	weight, marks := 10, make(map[string]int)
	for range 200 {
		switch addr := addrs[rng.IntN(len(addrs))]; rng.IntN(4) {
		case 0:
			marks[addr] = 100 + rng.IntN(100)
			putMark(t, cli, record.MarkKey(etcd.DefaultPrefix, "Hello", addr), fmt.Sprintf(`{"weight":%d}`, marks[addr]))
		case 1:
			delete(marks, addr)
			endMark(t, cli, record.MarkKey(etcd.DefaultPrefix, "Hello", addr))
		default:
			weight = 1 + rng.IntN(99)
			if err := conn.Update(testContext(t), "Hello", etcd.Change{Weight: weight, Tags: map[string]string{"n": fmt.Sprint(weight)}}); err != nil {
				t.Fatal(err)
			}
			for _, addr := range addrs { // Update returns when etcd holds it
				kv := getKey(t, cli, record.Key(etcd.DefaultPrefix, "Hello", addr))
				if kv == nil || !strings.Contains(string(kv.Value), fmt.Sprintf(`{"n":"%d"}`, weight)) {
					t.Fatalf("seed %d: after Update to %d etcd holds %v", seed, weight, kv)
				}
			}
		}
	}
	var last int64
	for _, addr := range addrs {
		want := weight
		if w := marks[addr]; w != 0 {
			want = w
		}
		kv := awaitRecord(t, cli, record.Key(etcd.DefaultPrefix, "Hello", addr), want)
		last = max(last, kv.ModRevision)
		if kv.Version < 2 || kv.CreateRevision > raw.firstPut(t, string(kv.Key), last) {
			t.Errorf("seed %d: %s was created anew", seed, kv.Key)
		}
	}
	for _, ev := range raw.events {
		if ev.Type == mvccpb.DELETE {
			t.Errorf("seed %d: %s was absent at revision %d", seed, ev.Kv.Key, ev.Kv.ModRevision)
		}
	}
}

// firstPut is the revision of the first write of key, among the events up to rev.
func (w *rawWatch) firstPut(t *testing.T, key string, rev int64) int64 {
	t.Helper()
	w.until(t, rev)
	for _, ev := range w.events {
		if string(ev.Kv.Key) == key {
			return ev.Kv.ModRevision
		}
	}
	t.Fatalf("nothing was seen of %s", key)
	return 0
}

func TestUpdateIsOneTransaction(t *testing.T) {
	cluster := etcdtest.Start(t)
	cli := etcdClient(t, cluster.Endpoints())
	conn, events := connectRegistry(t, cluster.Endpoints())
	mustRegister(t, conn.Registry(), serverInfo("Hello", "127.0.0.1:1"), serverInfo("Hello", "127.0.0.1:2"), serverInfo("Echo", "127.0.0.1:1"))
	change := etcd.Change{Weight: 3, Tags: map[string]string{"zone": "b"}}
	if err := conn.Update(testContext(t), "Hello", change); err != nil {
		t.Fatal(err)
	}
	change.Tags["zone"] = "c" // the caller's again
	one, two := getKey(t, cli, record.Key(etcd.DefaultPrefix, "Hello", "127.0.0.1:1")), getKey(t, cli, record.Key(etcd.DefaultPrefix, "Hello", "127.0.0.1:2"))
	if one.ModRevision != two.ModRevision || one.CreateRevision == one.ModRevision {
		t.Errorf("the records changed at revisions %d and %d", one.ModRevision, two.ModRevision)
	}
	if echo := getKey(t, cli, record.Key(etcd.DefaultPrefix, "Echo", "127.0.0.1:1")); echo.Version != 1 {
		t.Error("the record of another service changed")
	}
	// It survives a repair, and each half of it stays when the other changes.
	if _, err := cli.Revoke(testContext(t), clientv3.LeaseID(one.Lease)); err != nil {
		t.Fatal(err)
	}
	events.wait(t, etcd.EventRestored, 3)
	kv := awaitRecord(t, cli, string(one.Key), 3)
	if string(kv.Value) != string(one.Value) || !strings.Contains(string(kv.Value), `"tags":{"zone":"b"}`) {
		t.Errorf("etcd held %s, and after a repair %s", one.Value, kv.Value)
	}
	if err := conn.Update(testContext(t), "Hello", etcd.Change{Weight: 4}); err != nil {
		t.Fatal(err)
	}
	if kv := awaitRecord(t, cli, string(one.Key), 4); !strings.Contains(string(kv.Value), `"tags":{"zone":"b"}`) {
		t.Errorf("a change of the weight alone left %s", kv.Value)
	}
	if err := conn.Update(testContext(t), "Hello", etcd.Change{Tags: map[string]string{}}); err != nil {
		t.Fatal(err)
	}
	if kv := getKey(t, cli, string(one.Key)); !strings.Contains(string(kv.Value), `"weight":4,"tags":{}`) {
		t.Errorf("a change of the tags alone left %s", kv.Value)
	}
}

func TestUpdateOfADrainedServer(t *testing.T) {
	cluster := etcdtest.Start(t)
	cli := etcdClient(t, cluster.Endpoints())
	conn, events := connectRegistry(t, cluster.Endpoints())
	mustRegister(t, conn.Registry(), serverInfo("Hello", markedAddr))
	putMark(t, cli, markKey, `{"drain":true}`)
	events.wait(t, etcd.EventDrained, 1)
	if err := conn.Update(testContext(t), "Hello", etcd.Change{Weight: 3}); err != nil {
		t.Fatal(err)
	}
	if kv := getKey(t, cli, markedKey); kv != nil {
		t.Errorf("Update brought a drained server back: %s", kv.Value)
	}
	endMark(t, cli, markKey)
	awaitRecord(t, cli, markedKey, 3)
}

func TestUpdateRefuses(t *testing.T) {
	cluster := etcdtest.Start(t, etcdtest.WithConfig(func(c *embed.Config) { c.MaxRequestBytes = 100 << 10 }))
	cli := etcdClient(t, cluster.Endpoints())
	conn, _ := connectRegistry(t, cluster.Endpoints())
	var none *etcd.Conn
	if err := none.Update(t.Context(), "Hello", etcd.Change{Weight: 1}); !saysNilConn(err) {
		t.Errorf("a nil Conn says %v", err)
	}
	refuse := func() {
		t.Helper()
		for what, call := range map[string]struct {
			service string
			change  etcd.Change
			want    string
		}{
			"no name":         {"", etcd.Change{Weight: 1}, "empty"},
			"another service": {"Echo", etcd.Change{Weight: 1}, `no server of "Echo"`},
			"nothing":         {"Hello", etcd.Change{}, "Change is empty"},
			"negative weight": {"Hello", etcd.Change{Weight: -1}, "weight -1"},
		} {
			if err := conn.Update(t.Context(), call.service, call.change); err == nil || !strings.Contains(err.Error(), call.want) {
				t.Errorf("%s: got %v, want an error with %q", what, err, call.want)
			}
		}
	}
	refuse()
	mustRegister(t, conn.Registry(), serverInfo("Hello", markedAddr))
	refuse()
	// What etcd does not take is not wanted any more: it would be in the way of a repair.
	huge := map[string]string{"big": strings.Repeat("x", 200<<10)}
	if err := conn.Update(testContext(t), "Hello", etcd.Change{Weight: 2, Tags: huge}); err == nil || !strings.Contains(err.Error(), "too large") {
		t.Errorf("an update that is too large: got %v", err)
	}
	if err := conn.Update(testContext(t), "Hello", etcd.Change{Weight: 5}); err != nil {
		t.Error(err)
	}
	if kv := awaitRecord(t, cli, markedKey, 5); len(kv.Value) > 200 {
		t.Errorf("etcd holds a record of %d bytes", len(kv.Value))
	}
	_ = conn.Close()
	if err := conn.Update(t.Context(), "Hello", etcd.Change{Weight: 1}); !errors.Is(err, etcd.ErrClosed) {
		t.Errorf("a closed Conn says %v", err)
	}
}

// TestFaultUpdateWhileEtcdIsAway: Update waits no longer than its context, and is made when etcd is back.
func TestFaultUpdateWhileEtcdIsAway(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Start(t)
	cli := etcdClient(t, cluster.Endpoints())
	proxy := faultproxy.Start(t, cluster.Endpoints()[0])
	conn, _ := connectRegistry(t, []string{proxy.Addr()}, etcd.WithLeaseTTL(time.Minute))
	mustRegister(t, conn.Registry(), serverInfo("Hello", markedAddr))
	proxy.Refuse()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := conn.Update(ctx, "Hello", etcd.Change{Weight: 6}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want a deadline", err)
	}
	later := make(chan error, 1)
	go func() { later <- conn.Update(t.Context(), "Hello", etcd.Change{Tags: map[string]string{"a": "b"}}) }()
	proxy.Forward()
	if kv := awaitRecord(t, cli, markedKey, 6); kv == nil {
		t.Error("no record")
	}
	<-later // in time or not, it is made
	for begin := time.Now(); !strings.Contains(string(getKey(t, cli, markedKey).Value), `"weight":6,"tags":{"a":"b"}`); time.Sleep(5 * time.Millisecond) {
		if time.Since(begin) > patience {
			t.Fatalf("etcd holds %s", getKey(t, cli, markedKey).Value)
		}
	}
}
