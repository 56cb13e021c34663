package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cloudwego/kitex/pkg/registry"
	"github.com/cloudwego/kitex/pkg/utils"
	old "github.com/kitex-contrib/registry-etcd"
	clientv3 "go.etcd.io/etcd/client/v3"

	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
)

// A registrar registers the i-th instance of a process.
type registrar func(i int) error

var registrarSides = []string{ours, before, nothing}

// newRegistrar returns one that has registered already. That of the floor is the transaction that nobody can do without,
// on a lease that is kept.
func (b *bench) newRegistrar(lib string) (registrar, error) {
	info := func(i int) *registry.Info {
		return &registry.Info{ServiceName: "bench-" + lib, Addr: utils.NewNetAddr("tcp", address(i)), Weight: 10}
	}
	var r registry.Registry
	switch lib {
	case ours:
		conn, err := b.connect(etcd.WithDrainDelay(0))
		if err != nil {
			return nil, err
		}
		r = conn.Registry()
	case before:
		var err error
		if r, err = old.NewEtcdRegistry(b.etcd.endpoints, quietly); err != nil {
			return nil, err
		}
	default:
		client, err := b.client()
		if err != nil {
			return nil, err
		}
		lease, err := keptLease(b.ctx, client)
		if err != nil {
			return nil, err
		}
		return func(i int) error {
			p := kitexRecord("bench-"+lib, address(i))
			_, err := client.Txn(b.ctx).Then(clientv3.OpPut(p.key, p.value, clientv3.WithLease(lease))).Commit()
			return err
		}, nil
	}
	return func(i int) error { return r.Register(info(i)) }, r.Register(info(0))
}

// keptLease returns a lease that lives as long as client.
func keptLease(ctx context.Context, client *clientv3.Client) (clientv3.LeaseID, error) {
	lease, err := client.Grant(ctx, 10)
	if err != nil {
		return 0, err
	}
	answers, err := client.KeepAlive(ctx, lease.ID)
	if err != nil {
		return 0, err
	}
	go func() {
		for range answers {
		}
	}()
	return lease.ID, nil
}

// registerFamily is one registration after another.
func registerFamily() family {
	return family{
		name:  "register",
		about: "One registration in a process that has registered already; the floor is one transaction on a lease that is kept",
		rows: []row{
			{name: "register", what: "time of Register", unit: duration, targets: []target{timesOf(nothing, 1.2)}},
		},
		open: func(b *bench) ([]side, error) {
			var sides []side
			for _, lib := range registrarSides {
				register, err := b.newRegistrar(lib)
				if err != nil {
					return nil, err
				}
				next := 1
				sides = append(sides, side{lib, func(context.Context) (values, error) {
					var times []float64
					for range b.pick(50, 20) {
						begin := time.Now()
						if err := register(next); err != nil {
							return nil, err
						}
						times = append(times, float64(time.Since(begin)))
						next++
					}
					return values{"register": times}, nil
				}})
			}
			return sides, nil
		},
	}
}

const manyAtOnce = 64

// manyFamily is a process that registers thousands of instances, each turn in a new process.
func manyFamily() family {
	return family{
		name:  "many",
		quick: 2,
		about: fmt.Sprintf("A process that registers 10,000 instances (1,000 in a quick run), %d at a time; the floor is as many transactions on "+
			"one lease", manyAtOnce),
		rows: []row{
			{name: "many", what: "time for each", unit: duration, targets: []target{timesOf(nothing, 1/0.7)}},
			{name: "many_leases", what: "leases in etcd", unit: count, targets: []target{atMost(1)}},
		},
		open: func(b *bench) ([]side, error) {
			var sides []side
			for i, lib := range registrarSides {
				sides = append(sides, side{lib, func(ctx context.Context) (values, error) {
					return manyTurn(ctx, b, strconv.Itoa(i), strconv.Itoa(b.pick(10000, 1000)))
				}})
			}
			return sides, nil
		},
	}
}

func manyTurn(ctx context.Context, b *bench, lib, n string) (values, error) {
	c, err := startChild("many", []string{lib, n, b.etcd.endpoints[0]})
	if err != nil {
		return nil, err
	}
	defer func() {
		c.close()
		_ = revokeAll(ctx, b.etcd.client) // the next turn's etcd is as empty
	}()
	var took time.Duration
	if err := c.read(&took); err != nil {
		return nil, err
	}
	leases, err := b.etcd.client.Leases(ctx)
	if err != nil {
		return nil, err
	}
	return values{"many": {float64(took)}, "many_leases": {float64(len(leases.Leases))}}, nil
}

// registerMany is what the process does. It prints the time for each.
func registerMany(args []string) error {
	lib, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	b := &bench{ctx: context.Background(), etcd: &etcdProcess{endpoints: args[2:]}}
	register, err := b.newRegistrar(registrarSides[lib])
	if err != nil {
		return err
	}
	begin := time.Now()
	if err := atOnce(manyAtOnce, n, register); err != nil {
		return err
	}
	err = json.NewEncoder(os.Stdout).Encode(time.Since(begin) / time.Duration(n))
	awaitParent()
	return err
}

// atOnce calls f with 1 to n, some at a time.
func atOnce(workers, n int, f func(i int) error) error {
	var next atomic.Int64
	var all sync.WaitGroup
	errs := make(chan error, workers)
	for range workers {
		all.Go(func() {
			for i := int(next.Add(1)); i <= n; i = int(next.Add(1)) {
				if err := f(i); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	all.Wait()
	close(errs)
	return <-errs
}

func revokeAll(ctx context.Context, client *clientv3.Client) error {
	resp, err := client.Leases(ctx)
	if err != nil {
		return err
	}
	return atOnce(manyAtOnce, len(resp.Leases), func(i int) error {
		_, err := client.Revoke(ctx, resp.Leases[i-1].ID)
		return err
	})
}
