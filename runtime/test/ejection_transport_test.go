package test

import (
	"context"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/cloudwego/kitex/client"
	"github.com/cloudwego/kitex/transport"

	"github.com/kitex-contrib/kitex-etcd/golden/protobuf_streaming/kitex_gen/pb/chat"
	chatservice "github.com/kitex-contrib/kitex-etcd/golden/protobuf_streaming/kitex_gen/pb/chat/chat"
	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
	"github.com/kitex-contrib/kitex-etcd/runtime/etcdtest"
)

// checkHung has addr hang, waits until it is ejected, lets trials come and go, has it go on, and counts.
func checkHung(t *testing.T, l *load, events *journal, addr string, hang, wake func()) {
	t.Helper()
	before := events.count(etcd.EventEjected)
	began := time.Now()
	hang()
	events.wait(t, etcd.EventEjected, 1+before)
	time.Sleep(4*time.Second - time.Since(began)) // trials come and go
	wake()
	woke := time.Now()
	eventually(t, "it is called again", func() bool { return l.answeredBy(addr, woke) })
	t.Logf("called %v after it went on", time.Since(woke))
	l.stop()
	all, late := l.failedAt(addr, began), l.failedAt(addr, began.Add(time.Second))
	t.Logf("%d failed calls, %d of them begun after 1 s", len(all), len(late))
	if len(all) > 30 || len(late) > 4 {
		t.Errorf("%d failed calls, %d of them late: want 30 and 4 at most", len(all), len(late))
	}
}

// TestEjectionHung has one of four servers take connections and calls, and answer nothing, whatever the transport.
func TestEjectionHung(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string][]client.Option{
		"long pool":   {longPool()},
		"short":       {client.WithShortConnection()},
		"multiplexed": {client.WithMuxConnection(2)},
		"TTHeader":    {longPool(), client.WithTransportProtocol(transport.TTHeader)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			servers, conn, events := moodyServers(t, 4)
			l := startLoad(t, conn, opts...)
			l.called(t, addrsOfMoody(servers)...)
			checkHung(t, l, events, servers[0].addr, servers[0].way.Pause, servers[0].way.Forward)
		})
	}
}

// TestEjectionGRPC kills one of four servers of a client whose calls go over gRPC, and stops another.
func TestEjectionGRPC(t *testing.T) {
	t.Setenv(childService, "Chat")
	cluster := etcdtest.Start(t)
	const ttl = 30 * time.Second // longer than the test: etcd does not come into it
	children := startChildren(t, cluster, ttl, 4)
	events := newJournal()
	conn := connect(t, cluster, etcd.WithEventHandler(events.add))
	l := new(load)
	cli, err := chatservice.NewChatClientWithEtcd(conn, append(l.options(), closedAfter(t), client.WithTransportProtocol(transport.GRPC))...)
	if err != nil {
		t.Fatal(err)
	}
	l.start(t, func(ctx context.Context, key string) error {
		defer runtime.KeepAlive(cli)
		_, err := cli.Say(ctx, &chat.Request{Message: key})
		return err
	})
	l.called(t, addrsOf(children)...)
	dead, hung := children[0], children[1]

	began := time.Now()
	dead.signal(t, syscall.SIGKILL)
	_ = dead.cmd.Wait()
	events.wait(t, etcd.EventEjected, 1)
	ejected := time.Now()
	l.called(t, addrsOf(children[1:])...)
	failed := 0
	for _, a := range l.at(dead.addr, began) {
		if a.err != nil {
			failed++
		}
	}
	calls := len(l.failedAt(dead.addr, began))
	t.Logf("killed: ejected after %v, %d failed attempts, %d failed calls", ejected.Sub(began), failed, calls)
	if failed > 3+calls || calls > 2 { // those under way when it was killed
		t.Errorf("%d failed attempts and %d failed calls of a server that was killed", failed, calls)
	}
	if _, err := startChild(t, cluster, ttl, childAddr+"="+dead.addr); err != nil {
		t.Fatal(err)
	}
	l.called(t, dead.addr)

	checkHung(t, l, events, hung.addr, func() { hung.signal(t, sigStop) }, func() { hung.signal(t, sigContinue) })
}
