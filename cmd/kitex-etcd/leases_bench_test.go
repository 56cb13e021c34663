package main

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/kitex-contrib/kitex-etcd/runtime/etcdtest"
)

// BenchmarkInstances lists 10,000 instances, each under a lease of its own, beside an etcd in the same process.
func BenchmarkInstances(b *testing.B) {
	const n, writers = 10_000, 100
	cluster := etcdtest.Start(b)
	cli, err := clientv3.New(clientv3.Config{Endpoints: cluster.Endpoints(), DialTimeout: 10 * time.Second})
	if err != nil {
		b.Fatal(err)
	}
	defer cli.Close()
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			for i := w; i < n; i += writers {
				addr := fmt.Sprintf("10.0.%d.%d:80", i/250, i%250+1)
				lease, err := cli.Grant(b.Context(), 3600)
				if err == nil {
					_, err = cli.Put(b.Context(), "kitex/registry-etcd/Hello/"+addr, `{"address":"`+addr+`"}`, clientv3.WithLease(lease.ID))
				}
				if err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	for b.Loop() {
		var stdout, stderr bytes.Buffer
		if code := run([]string{"instances", "--endpoints", cluster.Endpoints()[0]}, &stdout, &stderr); code != exitDone || strings.Count(stdout.String(), "\n") != n+1 || strings.Contains(stdout.String(), "?") {
			b.Fatalf("exit code %d, %d lines, stderr %q", code, strings.Count(stdout.String(), "\n"), stderr.String())
		}
	}
}
