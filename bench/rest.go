package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
)

// restLength is longer than a Conn takes until it asks etcd whether all is as it was.
const restLength = 95 * time.Second

// restFamily is what a client costs etcd while nothing changes.
func restFamily() family {
	return family{
		name:   "rest",
		rounds: 1,
		about: fmt.Sprintf("3,000 clients of a service of %d (300 in a quick run), each with a connection and a watch of its own, beside an etcd of their own, for %s "+
			"(10 s in a quick run, in which each asks nothing) while nothing changes; less what that etcd uses without clients. A plain etcd client reads once, "+
			"watches, and asks nothing afterwards; whether it is still connected it does not know", fanoutInstances, duration.format(float64(restLength))),
		rows: []row{
			{name: "rest_cpu", what: "etcd's processor time for each second and client", unit: duration, targets: []target{atMost(2000)}},
			{name: "rest_bytes", what: "messages that etcd sends and receives for each client", unit: sizeRate},
			{name: "rest_memory", what: "etcd's resident memory for each client", unit: size},
		},
		open: func(b *bench) ([]side, error) {
			var sides []side
			for _, s := range []struct{ name, role string }{{ours, "crowd"}, {plain, "watchers"}} {
				sides = append(sides, side{s.name, func(ctx context.Context) (values, error) { return restTurn(ctx, b, s.role) }})
			}
			return sides, nil
		},
	}
}

func restTurn(ctx context.Context, b *bench, role string) (values, error) {
	n, length := b.pick(3000, 300), time.Duration(b.pick(int(restLength/time.Second), 10))*time.Second
	e, err := startEtcd() // whose memory no other crowd has grown
	if err != nil {
		return nil, err
	}
	defer e.close()
	if err := peers[0].seed(&bench{ctx: ctx, etcd: e}, fanoutService, fanoutInstances); err != nil {
		return nil, err
	}
	g := gauge{etcd: e}
	if err := pause(ctx, time.Second); err != nil {
		return nil, err
	}
	alone, err := g.over(ctx, length/3)
	if err != nil {
		return nil, err
	}
	empty, err := g.look()
	if err != nil {
		return nil, err
	}
	crowd, err := startChild(role, []string{strconv.Itoa(n), e.endpoints[0]})
	if err != nil {
		return nil, err
	}
	defer crowd.close()
	var began time.Duration
	if err := crowd.read(&began); err != nil {
		return nil, err
	}
	if err := pause(ctx, 3*time.Second); err != nil { // what the beginning left to do is done
		return nil, err
	}
	rest, err := g.over(ctx, length)
	if err != nil {
		return nil, err
	}
	after, err := g.look()
	if err != nil {
		return nil, err
	}
	each := func(of func(sight) float64) []float64 {
		return []float64{(of(rest)/rest.at.Seconds() - of(alone)/alone.at.Seconds()) / float64(n)}
	}
	return values{
		"rest_cpu":    each(func(s sight) float64 { return float64(s.etcd.cpu) }),
		"rest_bytes":  each(func(s sight) float64 { return s.bytes }),
		"rest_memory": {(after.etcd.memory - empty.etcd.memory) / float64(n)},
	}, nil
}

// watchPlainly is what a process of plain etcd clients does, each with a connection and a watch.
func watchPlainly(args []string) error {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	ctx, prefix := context.Background(), etcd.DefaultPrefix+"/"+fanoutService+"/"
	begin := time.Now()
	if err := atOnce(manyAtOnce, n, func(int) error {
		cli, err := newClient(args[1:])
		if err != nil {
			return err
		}
		resp, err := cli.Get(ctx, prefix, clientv3.WithPrefix())
		if err != nil {
			return err
		}
		changes := cli.Watch(ctx, prefix, clientv3.WithPrefix(), clientv3.WithRev(resp.Header.Revision+1), clientv3.WithCreatedNotify())
		created := <-changes
		return created.Err()
	}); err != nil {
		return err
	}
	err = json.NewEncoder(os.Stdout).Encode(time.Since(begin))
	awaitParent()
	return err
}
