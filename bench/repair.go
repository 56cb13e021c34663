package main

import (
	"context"
	"fmt"
	"time"

	"github.com/cloudwego/kitex/pkg/registry"
	"github.com/cloudwego/kitex/pkg/utils"
	old "github.com/kitex-contrib/registry-etcd"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// observe is how often registry-etcd looks after its record.
const observe = 30 * time.Second

// repairFamily is a record that goes although its server runs.
func repairFamily() family {
	most := []target{atMost(float64(250 * time.Millisecond))}
	return family{
		name:   "repair",
		rounds: 1,
		about: "A record that goes behind the back of its server, until it is back. registry-etcd looks every 30 s: its records go at times spread " +
			"over such a period",
		rows: []row{
			{name: "repair_key", what: "the key was deleted", unit: duration, targets: most},
			{name: "repair_lease", what: "the lease was revoked", unit: duration, targets: most},
		},
		open: func(b *bench) ([]side, error) {
			var sides []side
			for _, lib := range []string{ours, before} {
				sides = append(sides, side{lib, func(ctx context.Context) (values, error) { return repairTurn(ctx, b, lib) }})
			}
			return sides, nil
		},
	}
}

func repairTurn(ctx context.Context, b *bench, lib string) (values, error) {
	n := b.pick(10, 2)
	return beside(2*n, func(i int) (values, error) {
		name := "repair_key"
		if i%2 == 1 {
			name = "repair_lease"
		}
		key, err := b.register(ctx, lib, fmt.Sprintf("bench-%s-%s", name, lib), address(i))
		if err != nil {
			return nil, err
		}
		if lib == before {
			if err := pause(ctx, time.Duration(i/2)*observe/time.Duration(n)); err != nil {
				return nil, err
			}
		}
		took, err := b.untilBack(ctx, key, i%2 == 1)
		return values{name: {float64(took)}}, err
	})
}

// register registers as a process of its own would, until the family ends, and returns the record's key.
func (b *bench) register(ctx context.Context, lib, service, addr string) (key string, err error) {
	var r registry.Registry
	if lib == ours {
		conn, err := b.connect()
		if err != nil {
			return "", err
		}
		r = conn.Registry()
	} else if r, err = old.NewEtcdRegistry(b.etcd.endpoints, quietly); err != nil {
		return "", err
	}
	err = r.Register(&registry.Info{ServiceName: service, Addr: utils.NewNetAddr("tcp", addr), Weight: 10})
	return kitexRecord(service, addr).key, err
}

// untilBack takes a record away, alone or with its lease, and returns how long it is gone.
func (b *bench) untilBack(ctx context.Context, key string, lease bool) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*observe)
	defer cancel()
	cli := b.etcd.client
	resp, err := cli.Get(ctx, key)
	if err != nil {
		return 0, err
	}
	if len(resp.Kvs) != 1 {
		return 0, fmt.Errorf("%s does not stand", key)
	}
	back := cli.Watch(clientv3.WithRequireLeader(ctx), key, clientv3.WithFilterDelete(), clientv3.WithRev(resp.Header.Revision+1))
	begin := time.Now()
	if lease {
		_, err = cli.Revoke(ctx, clientv3.LeaseID(resp.Kvs[0].Lease))
	} else {
		_, err = cli.Delete(ctx, key)
	}
	if err != nil {
		return 0, err
	}
	if event, ok := <-back; !ok || event.Err() != nil || len(event.Events) == 0 {
		return 0, fmt.Errorf("%s was not back after %v", key, time.Since(begin).Round(time.Second))
	}
	return time.Since(begin), nil
}
