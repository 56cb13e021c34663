package test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"

	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
	"github.com/kitex-contrib/kitex-etcd/runtime/etcdtest"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/record"
)

// BenchmarkRegister is one registration in a process that has one already, beside the floor: the transaction that any
// registration needs, on a lease that is kept. The two take turns, so that both meet the same machine.
func BenchmarkRegister(b *testing.B) {
	conn, txn := benchConn(b)
	r := conn.Registry()
	var registers, txns []time.Duration
	b.ResetTimer()
	for i := range b.N {
		info := serverInfo("Hello", benchAddr(i))
		begin := time.Now()
		if err := r.Register(info); err != nil {
			b.Fatal(err)
		}
		registers = append(registers, time.Since(begin))
		begin = time.Now()
		txn(i)
		txns = append(txns, time.Since(begin))
	}
	b.StopTimer()
	slices.Sort(registers)
	slices.Sort(txns)
	register, floor := registers[b.N/2], txns[b.N/2]
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(register), "ns/register")
	b.ReportMetric(float64(floor), "ns/txn")
	b.ReportMetric(float64(register)/float64(floor), "register/txn")
}

// BenchmarkRegisterMany is the rate of 64 servers at a time, beside as many transactions at a time.
func BenchmarkRegisterMany(b *testing.B) {
	b.Run("by=Register", func(b *testing.B) {
		conn, _ := benchConn(b)
		r := conn.Registry()
		b.ResetTimer()
		each(64, b.N, func(i int) {
			if err := r.Register(serverInfo("Hello", benchAddr(i))); err != nil {
				b.Error(err)
			}
		})
		b.StopTimer()
	})
	b.Run("by=Txn", func(b *testing.B) {
		_, txn := benchConn(b)
		b.ResetTimer()
		each(64, b.N, txn)
		b.StopTimer()
	})
}

// benchConn returns a Conn with a registration and the bare transaction of another, both on an etcd that writes to the
// disk before it answers, as in production.
func benchConn(b *testing.B) (conn *etcd.Conn, txn func(i int)) {
	conn = connect(b, etcdtest.Start(b, etcdtest.WithConfig(func(cfg *embed.Config) { cfg.UnsafeNoFsync = false })), etcd.WithDrainDelay(0))
	mustRegister(b, conn.Registry(), serverInfo("Hello", "127.0.0.1:1"))
	cli := conn.Client()
	lease, err := cli.Grant(context.Background(), 10)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := cli.KeepAlive(b.Context(), lease.ID); err != nil {
		b.Fatal(err)
	}
	return conn, func(i int) {
		addr := benchAddr(i)
		put := clientv3.OpPut(record.Key(etcd.DefaultPrefix, "Bare", addr), testRecord(addr), clientv3.WithLease(lease.ID))
		if _, err := cli.Txn(context.Background()).Then(put).Commit(); err != nil {
			b.Error(err)
		}
	}
}

func benchAddr(i int) string { return fmt.Sprintf("10.%d.%d.%d:8888", i>>16&255, i>>8&255, i&255) }
