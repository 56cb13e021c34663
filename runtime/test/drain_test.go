package test

import (
	"context"
	"maps"
	"slices"
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

// pickLimit is how long after a change the pickers may go by what was before. On an idle machine it is about a millisecond; tests share
// theirs.
const pickLimit = 500 * time.Millisecond

// more waits until n more calls have begun and ended.
func (l *load) more(t *testing.T, n int) {
	t.Helper()
	since := time.Now()
	eventually(t, "calls go on", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		begun := 0
		for _, c := range l.calls {
			if c.begun.After(since) {
				begun++
			}
		}
		return begun >= n
	})
}

// lateness says how many attempts at addr began after since, and how long after it the last of them did.
func (l *load) lateness(addr string, since time.Time) (attempts int, last time.Duration) {
	for _, a := range l.at(addr, since) {
		attempts, last = attempts+1, max(last, a.begun.Sub(since))
	}
	return attempts, last
}

// changed returns when this process is told of the next change of a key.
func changed(t *testing.T, cli *clientv3.Client, key string) <-chan time.Time {
	t.Helper()
	told := make(chan time.Time, 1)
	watch := cli.Watch(testContext(t), key, clientv3.WithCreatedNotify())
	<-watch
	go func() {
		if _, ok := <-watch; ok {
			told <- time.Now()
		}
		close(told)
	}()
	return told
}

// TestDrainUnderTraffic drains one of three servers again and again under 200 calls a second, from clients of every balancer: no call
// fails, and none goes to it once its record is gone. It stays drained when it is restarted, and is called when its mark ends.
func TestDrainUnderTraffic(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Start(t)
	cli := etcdClient(t, cluster.Endpoints())
	children := startChildren(t, cluster, 10*time.Second, 3)
	operator := connect(t, cluster)
	l := new(load)
	var clients []hello.Client
	var conns []*etcd.Conn
	for _, name := range slices.Sorted(maps.Keys(routingBalancers)) {
		conns = append(conns, connect(t, cluster))
		clients = append(clients, newHello(t, conns[len(conns)-1], append(append(l.options(), longPool(), client.WithConnectTimeout(2*time.Second),
			client.WithRPCTimeout(5*time.Second)), routingBalancers[name]...)...))
	}
	var turn atomic.Int64
	began := time.Now()
	l.start(t, func(ctx context.Context, key string) error {
		_, err := clients[turn.Add(1)%int64(len(clients))].Echo(ctx, &api.Request{Message: key})
		return err
	})
	drained := children[0]
	key := record.Key(etcd.DefaultPrefix, "Hello", drained.addr)
	mark := func(m etcd.Mark, while time.Duration) {
		t.Helper()
		if _, _, err := operator.SetMark(testContext(t), "Hello", drained.addr, m, while); err != nil {
			t.Fatal(err)
		}
	}
	pushes := func() (count uint64, sum time.Duration) {
		for _, c := range conns {
			count, sum = count+c.PushTimes().Count, sum+c.PushTimes().Sum
		}
		return count, sum
	}
	neverCalled := func(since time.Time) {
		t.Helper()
		l.more(t, 200)
		count, last := l.lateness(drained.addr, since)
		t.Logf("%d attempts at the drained server began after its record went, the last %v after", count, last)
		if last > pickLimit {
			t.Errorf("the drained server was called %v after its record went", last)
		}
	}
	for range 5 {
		l.called(t, addrsOf(children)...)
		gone := changed(t, cli, key)
		count, sum := pushes()
		asked := time.Now()
		mark(etcd.Mark{Drain: true}, 0)
		since, ok := <-gone
		if !ok {
			t.Fatal("the record of the drained server stays")
		}
		neverCalled(since)
		count2, sum2 := pushes()
		t.Logf("its record went %v after the mark; out of the pickers of %d clients %v later, on average", since.Sub(asked), count2-count, (sum2-sum)/time.Duration(max(1, count2-count)))
		if _, err := operator.ClearMark(testContext(t), "Hello", drained.addr, 0); err != nil {
			t.Fatal(err)
		}
	}
	l.called(t, addrsOf(children)...)

	// Restarted, it is drained still.
	mark(etcd.Mark{Drain: true}, 0)
	awaitRecord(t, cli, key, 0)
	gone := time.Now()
	l.more(t, 20) // those that had begun are over
	drained.stop(t)
	if _, err := startChild(t, cluster, 10*time.Second, childAddr+"="+drained.addr); err != nil {
		t.Fatal(err)
	}
	if getKey(t, cli, key) != nil {
		t.Error("a drained server registered when it was restarted")
	}
	neverCalled(gone)

	// The end of the mark is the end of it all.
	back := changed(t, cli, key)
	mark(etcd.Mark{Drain: true}, 2*time.Second)
	if _, ok := <-back; !ok {
		t.Fatal("the mark's time is over, and the record is not back")
	}
	l.called(t, addrsOf(children)...)
	l.stop()
	failed := l.failedCalls(began)
	t.Logf("%d calls, %d failed", len(l.calls), len(failed))
	if len(failed) > 0 {
		t.Errorf("%d of %d calls failed: %v", len(failed), len(l.calls), failed[0])
	}
}
