package test

import (
	"testing"
	"time"

	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
	"github.com/kitex-contrib/kitex-etcd/runtime/etcdtest"
)

// BenchmarkDrain is the time from the writing of a mark until a client has the list without the server, and from the end of the mark until
// it has it again. server-ms is the part until the server's Conn says that it is drained.
func BenchmarkDrain(b *testing.B) {
	cluster := etcdtest.Start(b)
	cli := etcdClient(b, cluster.Endpoints())
	drained := make(chan time.Time, 1)
	servers, _ := connectRegistry(b, cluster.Endpoints(), etcd.WithEventHandler(func(ev etcd.Event) {
		if ev.Type == etcd.EventDrained {
			drained <- ev.Time
		}
	}))
	mustRegister(b, servers.Registry(), serverInfo("Hello", markedAddr), serverInfo("Hello", "127.0.0.1:2"))
	clients := connect(b, cluster)
	lists := make(chan int)
	ctx := b.Context()
	go func() {
		defer close(lists)
		for list := range clients.Watch(ctx, "Hello") {
			select {
			case lists <- len(list):
			case <-ctx.Done():
				return
			}
		}
	}()
	await := func(n int) {
		for got := range lists {
			if got == n {
				return
			}
		}
	}
	await(2)
	var server, client time.Duration
	for b.Loop() {
		begin := time.Now()
		putMark(b, cli, markKey, `{"drain":true}`)
		await(1)
		out, followed := time.Now(), <-drained
		server += followed.Sub(begin)
		client += out.Sub(begin)
		endMark(b, cli, markKey)
		await(2)
	}
	b.ReportMetric(float64(server.Microseconds())/1000/float64(b.N), "server-ms/op")
	b.ReportMetric(float64(client.Microseconds())/1000/float64(b.N), "client-ms/op")
}
