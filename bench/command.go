package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
)

// commandFamily is the operator's command, for a service of thousands of servers.
func commandFamily() family {
	const plainGet = "plain get"
	return family{
		name:   "instances",
		quick:  1,
		rounds: 5,
		about: "`kitex-etcd instances` of 10,000 servers (1,000 in a quick run), each with a lease of its own that it asks etcd about, into a pipe; beside it a process " +
			"that gets the records, and nothing else",
		rows: []row{
			{name: "instances_first", what: "until the first instance is printed", unit: duration, targets: []target{atMost(0.3e9)}},
			{name: "instances_all", what: "until the command has ended", unit: duration, targets: []target{atMost(1e9)}},
		},
		open: func(b *bench) ([]side, error) {
			dir, err := os.MkdirTemp("", "kitex-etcd-bench-")
			if err != nil {
				return nil, err
			}
			b.cleanup(func() { os.RemoveAll(dir) })
			build := exec.CommandContext(b.ctx, "go", "build", "-o", filepath.Join(dir, "kitex-etcd"), "./cmd/kitex-etcd")
			build.Dir = root
			if out, err := build.CombinedOutput(); err != nil {
				return nil, fmt.Errorf("%s: %w\n%s", build, err, out)
			}
			n := b.pick(10000, 1000)
			if err := b.leased("bench-instances", n); err != nil {
				return nil, err
			}
			self, err := os.Executable()
			if err != nil {
				return nil, err
			}
			return []side{
				{ours, func(ctx context.Context) (values, error) {
					return printed(exec.CommandContext(ctx, filepath.Join(dir, "kitex-etcd"), "instances", "--endpoints", b.etcd.endpoints[0]), n+1, 2)
				}},
				{plainGet, func(ctx context.Context) (values, error) {
					get := exec.CommandContext(ctx, self)
					get.Env = append(os.Environ(), roleVar+"=get "+b.etcd.endpoints[0])
					return printed(get, n, 1)
				}},
			}, nil
		},
	}
}

// leased writes n records, each under a lease of its own.
func (b *bench) leased(service string, n int) error {
	return atOnce(manyAtOnce, n, func(i int) error {
		lease, err := b.etcd.client.Grant(b.ctx, 3600)
		if err != nil {
			return err
		}
		return b.etcd.put(b.ctx, []pair{kitexRecord(service, address(i))}, clientv3.WithLease(lease.ID))
	})
}

// printed runs a command that prints so many lines, the first of them that counts at place, which begins with 1.
func printed(cmd *exec.Cmd, lines, place int) (values, error) {
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	cmd.Stderr = os.Stderr
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	n, v := 0, make(values)
	for found := bufio.NewScanner(stdout); found.Scan(); {
		if n++; n == place {
			v["instances_first"] = []float64{float64(time.Since(begin))}
		}
	}
	if err := cmd.Wait(); err != nil {
		return nil, fmt.Errorf("%s: %w", cmd, err)
	}
	v["instances_all"] = []float64{float64(time.Since(begin))}
	if n != lines {
		return nil, fmt.Errorf("%s printed %d lines, want %d", cmd, n, lines)
	}
	return v, nil
}

// getAll is what the process of the plain get does: it prints a line for each record.
func getAll(args []string) error {
	client, err := newClient(args)
	if err != nil {
		return err
	}
	defer client.Close()
	resp, err := client.Get(context.Background(), etcd.DefaultPrefix+"/", clientv3.WithPrefix())
	if err != nil {
		return err
	}
	out := bufio.NewWriter(os.Stdout)
	for _, kv := range resp.Kvs {
		_, _ = io.WriteString(out, string(kv.Value)+"\n")
	}
	return out.Flush()
}
