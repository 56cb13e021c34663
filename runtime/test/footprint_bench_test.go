package test

import (
	"context"
	"fmt"
	"runtime"
	"testing"
)

// BenchmarkFootprint is what one process holds for a Conn that discovers 20 services of 10 instances and registers one:
// goroutines and heap above those before it.
func BenchmarkFootprint(b *testing.B) {
	c0, cli := syncedConn(b, 1)
	for i := range 20 {
		for j := range 10 {
			put(b, cli, fmt.Sprint("Service", i), fmt.Sprintf("10.0.%d.%d:80", i, j))
		}
	}
	endpoints := c0.Client().Endpoints()
	var goroutines, heap float64
	for b.Loop() {
		before, beforeHeap := runtime.NumGoroutine(), liveHeap()
		c := connectTo(b, endpoints)
		mustRegister(b, c.Registry(), serverInfo("Registered", "10.1.1.1:80"))
		for i := range 20 {
			if list, err := c.Instances(context.Background(), fmt.Sprint("Service", i)); err != nil || len(list) != 10 {
				b.Fatal(len(list), err)
			}
		}
		// The embedded etcd has goroutines of its own for each connection, stream and watch: they are in the figure.
		goroutines += float64(runtime.NumGoroutine() - before)
		heap += float64(int64(liveHeap()) - int64(beforeHeap))
		if err := c.Close(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(goroutines/float64(b.N), "goroutines")
	b.ReportMetric(heap/float64(b.N)/1e6, "MB")
}

func liveHeap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
