package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"github.com/kitex-contrib/kitex-etcd/runtime/etcdtest"
)

// etcdProcess is an etcd in a process of its own, so that what is measured here is not etcd's. It answers as one in
// production does: after the disk has, and with etcd's own timing of elections.
type etcdProcess struct {
	endpoints []string
	client    *clientv3.Client // for what is done to etcd besides the measuring
	child     *child
}

func startEtcd() (*etcdProcess, error) {
	c, err := startChild("etcd", nil)
	if err != nil {
		return nil, err
	}
	e := &etcdProcess{child: c}
	if err := c.read(&e.endpoints); err != nil {
		return nil, fmt.Errorf("start etcd: %w", err)
	}
	if e.client, err = newClient(e.endpoints); err != nil {
		c.close()
		return nil, err
	}
	return e, nil
}

func (e *etcdProcess) close() {
	e.client.Close()
	e.child.close()
}

// serveEtcd is what the process does.
func serveEtcd([]string) error {
	cluster, err := etcdtest.New(etcdtest.WithConfig(func(c *embed.Config) {
		c.UnsafeNoFsync = false
		c.TickMs, c.ElectionMs = 100, 1000
		c.QuotaBackendBytes = 4 << 30
		c.AuthTokenTTL = uint(tokenTTL / time.Second) // of the family that switches authentication on
	}))
	if err != nil {
		return err
	}
	defer cluster.Close()
	if err := json.NewEncoder(os.Stdout).Encode(cluster.Endpoints()); err != nil {
		return err
	}
	commands := map[string]func() error{
		"stop":    func() error { cluster.Stop(); return nil },
		"wipe":    cluster.Wipe,
		"start":   cluster.Start,
		"traffic": func() error { return nil },
	}
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		if err := commands[lines.Text()](); err != nil {
			return err
		}
		if err := json.NewEncoder(os.Stdout).Encode(messageBytes()); err != nil {
			return err
		}
	}
	return nil
}

// messageBytes is what the etcd of this process has sent to its clients and received from them, as it counts itself.
func messageBytes() (sum float64) {
	found, err := prometheus.DefaultGatherer.Gather()
	if err != nil {
		panic(err) // etcd's own counters
	}
	for _, f := range found {
		if name := f.GetName(); name == "etcd_network_client_grpc_sent_bytes_total" || name == "etcd_network_client_grpc_received_bytes_total" {
			sum += f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	return sum
}

// command has etcd stop, start, or wipe its data, and returns when it is done.
func (e *etcdProcess) command(name string) error {
	_, err := e.ask(name)
	return err
}

// traffic is how many bytes etcd has sent and received, in messages.
func (e *etcdProcess) traffic() (float64, error) { return e.ask("traffic") }

func (e *etcdProcess) ask(name string) (bytes float64, err error) {
	if _, err := fmt.Fprintln(e.child.stdin, name); err != nil {
		return 0, err
	}
	if err := e.child.read(&bytes); err != nil {
		return 0, fmt.Errorf("%s etcd: %w", name, err)
	}
	return bytes, nil
}

// newClient returns a client with the defaults that a program gets.
func newClient(endpoints []string) (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{Endpoints: endpoints, Logger: zap.NewNop()})
}

// client returns the one that a family shares.
func (b *bench) client() (*clientv3.Client, error) {
	if b.shared != nil {
		return b.shared, nil
	}
	c, err := newClient(b.etcd.endpoints)
	if err == nil {
		b.shared = c
		b.cleanup(func() { c.Close() })
	}
	return c, err
}

type pair struct{ key, value string }

// put writes pairs in transactions of the size that etcd allows.
func (e *etcdProcess) put(ctx context.Context, pairs []pair, opts ...clientv3.OpOption) error {
	for len(pairs) > 0 {
		n := min(len(pairs), 128)
		ops := make([]clientv3.Op, n)
		for i, p := range pairs[:n] {
			ops[i] = clientv3.OpPut(p.key, p.value, opts...)
		}
		if _, err := e.client.Txn(ctx).Then(ops...).Commit(); err != nil {
			return fmt.Errorf("write records: %w", err)
		}
		pairs = pairs[n:]
	}
	return nil
}

// address returns the i-th of the addresses at which nothing listens.
func address(i int) string { return fmt.Sprintf("10.%d.%d.%d:8888", i>>16&255, i>>8&255, i&255) }
