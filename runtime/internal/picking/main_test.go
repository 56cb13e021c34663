package picking

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/kitex-contrib/kitex-etcd/runtime/etcdtest"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/discovery"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/link"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/record"
)

const (
	testPrefix  = "p"
	testService = "Hello"

	// patience is how long the tests wait for what must happen; a failure takes that long, a success does not.
	patience = 20 * time.Second
)

// testEtcd is an etcd, and the directory whose watches follow it.
type testEtcd struct {
	tb  testing.TB
	cli *clientv3.Client
	dir *discovery.Directory
}

// syncedWiring returns a Wiring whose directory knows n instances of testService, 10.0.0.0:80 and the following.
func syncedWiring(tb testing.TB, n int) (*Wiring, *testEtcd) {
	tb.Helper()
	cluster := etcdtest.Start(tb)
	l, err := link.New(link.Config{Etcd: &clientv3.Config{Endpoints: cluster.Endpoints(), DialTimeout: patience}})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		l.Refuse()
		l.Stop()
		if err := l.Close(); err != nil {
			tb.Error(err)
		}
	})
	e := &testEtcd{tb: tb, cli: l.Current()}
	for i := 0; i < n; {
		var ops []clientv3.Op
		for ; i < n && len(ops) < 128; i++ {
			ops = append(ops, putOp(fmt.Sprintf("10.%d.%d.%d:80", i>>16, i>>8&255, i&255)))
		}
		if _, err := e.cli.Txn(e.context()).Then(ops...).Commit(); err != nil {
			tb.Fatal(err)
		}
	}
	e.dir = discovery.New(discovery.Config{
		Link: l, Prefix: testPrefix, DefaultWeight: record.DefaultWeight, EmptyProtection: time.Minute, Notify: func(discovery.Event) {},
	})
	s, err := e.dir.Service(testService)
	if err != nil {
		tb.Fatal(err)
	}
	if list, err := s.Get(e.context()); err != nil || len(list) != n {
		tb.Fatalf("%d instances, %v", len(list), err)
	}
	w := New(Config{Directory: e.dir, Start: l.Start, Notify: func(Event) {}})
	tb.Cleanup(func() { runtime.KeepAlive(w) })
	return w, e
}

func (e *testEtcd) context() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	e.tb.Cleanup(cancel)
	return ctx
}

func putOp(addr string) clientv3.Op {
	return clientv3.OpPut(record.Key(testPrefix, testService, addr), fmt.Sprintf(`{"network":"tcp","address":%q,"weight":10}`, addr))
}

func (e *testEtcd) put(addr string) {
	e.tb.Helper()
	if _, err := e.cli.Do(e.context(), putOp(addr)); err != nil {
		e.tb.Fatal(err)
	}
}

func (e *testEtcd) remove(addr string) {
	e.tb.Helper()
	if _, err := e.cli.Delete(e.context(), record.Key(testPrefix, testService, addr)); err != nil {
		e.tb.Fatal(err)
	}
}

// await follows the service until it has just these addresses, in this order.
func (e *testEtcd) await(addrs ...string) {
	e.tb.Helper()
	s, err := e.dir.Service(testService)
	if err != nil {
		e.tb.Fatal(err)
	}
	want := strings.Join(addrs, " ")
	for list, err := range s.Watch(e.context()) {
		if err != nil {
			e.tb.Fatalf("not yet [%s]: %v", want, err)
		}
		var got []string
		for _, inst := range list {
			got = append(got, inst.Address().String())
		}
		if strings.Join(got, " ") == want {
			return
		}
	}
}

func eventually(tb testing.TB, what string, cond func() bool) {
	tb.Helper()
	for deadline := time.Now().Add(patience); !cond(); time.Sleep(time.Millisecond) { // what is waited for has no event
		if time.Now().After(deadline) {
			tb.Fatalf("not within %v: %s", patience, what)
		}
	}
}
