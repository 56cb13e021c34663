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

// repairFamily is a record that goes although its server runs, or must not go because its server does.
func repairFamily() family {
	most := []target{atMost(float64(250 * time.Millisecond))}
	return family{
		name:   "repair",
		rounds: 1,
		about: "A record that goes behind the back of its server, until it is back. registry-etcd looks every 30 s: its records go at times spread " +
			"over such a period. The late Deregister is that of a process whose address another has registered since",
		rows: []row{
			{name: "repair_key", what: "the key was deleted", unit: duration, targets: most},
			{name: "repair_lease", what: "the lease was revoked", unit: duration, targets: most},
			{name: "repair_late", what: "the record is missing after a late Deregister, the longest of all", unit: duration, quantile: 1,
				targets: []target{atMost(0)}},
		},
		open: func(b *bench) ([]side, error) {
			return eachSide(func(ctx context.Context, lib string) (values, error) { return repairTurn(ctx, b, lib) }), nil
		},
	}
}

func repairTurn(ctx context.Context, b *bench, lib string) (values, error) {
	names := []string{"repair_key", "repair_lease", "repair_late"}
	n := b.pick(10, 2)
	return beside(n*len(names), func(i int) (values, error) {
		name := names[i%len(names)]
		service := fmt.Sprintf("bench-%s-%s", name, lib)
		first, info, err := b.registered(lib, service, address(i))
		if err != nil {
			return nil, err
		}
		key := kitexRecord(service, address(i)).key
		if name == "repair_late" {
			if _, _, err := b.registered(lib, service, address(i)); err != nil {
				return nil, err
			}
		}
		if lib == before {
			if err := pause(ctx, time.Duration(i/len(names))*observe/time.Duration(n)); err != nil {
				return nil, err
			}
		}
		var took time.Duration
		if name == "repair_late" {
			took, err = b.missing(ctx, key, func() error { return first.Deregister(info) })
		} else {
			took, err = b.untilBack(ctx, key, name == "repair_lease")
		}
		return values{name: {float64(took)}}, err
	})
}

// registered registers as a process of its own would, until the family ends.
func (b *bench) registered(lib, service, addr string) (registry.Registry, *registry.Info, error) {
	info := &registry.Info{ServiceName: service, Addr: utils.NewNetAddr("tcp", addr), Weight: 10}
	r, err := b.registry(lib, nil)
	if err != nil {
		return nil, nil, err
	}
	return r, info, r.Register(info)
}

// registry returns one of lib as a process of its own has it, with an etcd client that change, which may be nil, has changed.
func (b *bench) registry(lib string, change func(*clientv3.Config)) (registry.Registry, error) {
	mine, theirs := configured(change)
	if lib == before {
		return old.NewEtcdRegistry(b.etcd.endpoints, theirs)
	}
	conn, err := b.connect(mine)
	if err != nil {
		return nil, err
	}
	return conn.Registry(), nil
}

// missing returns how long a record is gone because of what do does; 0 means that it never was.
func (b *bench) missing(ctx context.Context, key string, do func() error) (time.Duration, error) {
	created := func() (revision int64) {
		resp, err := b.etcd.client.Get(ctx, key)
		if err == nil && len(resp.Kvs) == 1 {
			revision = resp.Kvs[0].CreateRevision
		}
		return revision
	}
	first := created()
	if first == 0 {
		return 0, fmt.Errorf("%s does not stand", key)
	}
	begin := time.Now()
	if err := do(); err != nil {
		return 0, err
	}
	if created() == first {
		return 0, nil
	}
	err := await(ctx, "the return of "+key, 2*observe, func() bool { return b.stands(ctx, key) })
	return time.Since(begin), err
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
