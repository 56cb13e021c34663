package test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
	"github.com/kitex-contrib/kitex-etcd/runtime/etcdtest"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/record"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/registration"
)

// TestHostileKeys: whatever stands under a service's prefix, what is not an instance is ignored with one report, however
// much of it there is, and the instances serve on.
func TestHostileKeys(t *testing.T) {
	foreign := 10_000
	if os.Getenv("KITEX_ETCD_LONG") != "" {
		foreign = 100_000
	}
	cluster := etcdtest.Start(t)
	cli := etcdClient(t, cluster.Endpoints())
	put(t, cli, "Hello", "127.0.0.1:1")
	for i := 0; i < foreign; i += registration.MaxTxnOps {
		var ops []clientv3.Op
		for n := range min(registration.MaxTxnOps, foreign-i) {
			ops = append(ops, clientv3.OpPut(fmt.Sprintf("%s/Hello/foreign-%d", etcd.DefaultPrefix, i+n), "what is this?"))
		}
		if _, err := cli.Txn(testContext(t)).Then(ops...).Commit(); err != nil {
			t.Fatal(err)
		}
	}

	journal := newJournal()
	conn := connect(t, cluster, etcd.WithEventHandler(journal.add))
	await(t, conn, "Hello", "127.0.0.1:1")
	journal.wait(t, etcd.EventInvalidRecord, 1)
	if n := journal.count(etcd.EventInvalidRecord); n != 1 {
		t.Errorf("%d reports of the foreign keys, want 1", n)
	}

	put(t, cli, "Hello", "127.0.0.1:9")
	await(t, conn, "Hello", "127.0.0.1:1", "127.0.0.1:9") // the watch stands: what follows comes one by one
	remove(t, cli, "Hello", "127.0.0.1:9")

	hostile := map[string]string{
		"a/127.0.0.1:2":            testRecord("127.0.0.1:2"), // a service "Hello/a" cannot be
		"/127.0.0.1:2":             testRecord("127.0.0.1:2"),
		"":                         "",
		"\x00\x01\xff\xfe":         testRecord("0.0.0.0:2"),
		"127.0.0.1:2":              testRecord(""),
		"[::]:2":                   testRecord("[::]:2"),
		strings.Repeat("k", 1<<16): strings.Repeat("[", 1<<20),
	}
	for key, value := range hostile {
		if _, err := cli.Put(testContext(t), record.ServicePrefix(etcd.DefaultPrefix, "Hello")+key, value); err != nil {
			t.Fatal(err)
		}
	}
	journal.wait(t, etcd.EventInvalidRecord, 1+len(hostile))
	put(t, cli, "Hello", "127.0.0.1:3")
	await(t, conn, "Hello", "127.0.0.1:1", "127.0.0.1:3")
	if n := journal.count(etcd.EventInvalidRecord); n != 1+len(hostile) {
		t.Errorf("%d reports, want %d: one each", n, 1+len(hostile))
	}
}
