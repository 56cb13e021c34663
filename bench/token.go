package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/cloudwego/kitex/pkg/registry"
	"github.com/cloudwego/kitex/pkg/utils"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

const tokenTTL = 5 * time.Second

// tokenFamily is an etcd with authentication, whose tokens expire soon.
func tokenFamily() family {
	const (
		turn     = 10 * time.Second
		every    = tokenTTL + time.Second // a token that nothing else used is no more
		patience = 10 * time.Second       // Kitex looks twice
	)
	return family{
		name:   "token",
		rounds: 3,
		quick:  1,
		about: fmt.Sprintf("An etcd whose tokens expire when they are not used for %s, with %d calls per second, and an instance that comes or goes "+
			"every %s, for 60 s (20 s in a quick run). All sides are at work all the time; a turn is what came since the side's last",
			duration.format(float64(tokenTTL)), callsPerSecond, duration.format(float64(every))),
		rows: []row{
			{name: "token_failed", what: "failed calls in a turn, the most", unit: count, quantile: 1, targets: []target{atMost(0)}},
			{name: "token_missed", what: fmt.Sprintf("changes in a turn that the next call did not know of after %s, the most", duration.format(float64(patience))), unit: count,
				quantile: 1, targets: []target{atMost(0)}},
			{name: "token_change", what: "until the next call knew of a change", unit: duration},
		},
		open: func(b *bench) ([]side, error) {
			if err := b.secure(); err != nil {
				return nil, err
			}
			server, err := b.serve()
			if err != nil {
				return nil, err
			}
			var sides []side
			for _, lib := range []string{ours, before} {
				u, err := b.startUnderTokens(lib, server, every, patience)
				if err != nil {
					return nil, err
				}
				sides = append(sides, side{lib, func(ctx context.Context) (values, error) {
					if err := pause(ctx, turn); err != nil {
						return nil, err
					}
					return u.turn()
				}})
			}
			return sides, nil
		},
	}
}

// secure switches the authentication of the family's etcd on.
func (b *bench) secure() error {
	c := b.etcd.client
	if _, err := c.UserAdd(b.ctx, "root", "root"); err != nil {
		return err
	}
	if _, err := c.UserGrantRole(b.ctx, "root", "root"); err != nil {
		return err
	}
	if _, err := c.AuthEnable(b.ctx); err != nil {
		return err
	}
	root, err := clientv3.New(clientv3.Config{Endpoints: b.etcd.endpoints, Logger: zap.NewNop(), Username: "root", Password: "root"})
	if err != nil {
		return err
	}
	b.etcd.client = root
	return c.Close()
}

// underTokens is a service of one library that is called and changes.
type underTokens struct {
	traffic *traffic

	mu     sync.Mutex
	took   []float64 // of the changes that arrived
	missed float64
	failed int // calls, until the last turn
	err    error
}

func (b *bench) startUnderTokens(lib, server string, every, patience time.Duration) (*underTokens, error) {
	service := "bench-token-" + lib
	asRoot := func(c *clientv3.Config) { c.Username, c.Password = "root", "root" }
	r, err := b.registry(lib, asRoot)
	if err != nil {
		return nil, err
	}
	info := &registry.Info{ServiceName: service, Addr: utils.NewNetAddr("tcp", address(0)), Weight: 10}
	if err := r.Register(info); err != nil {
		return nil, err
	}
	seen := newView()
	u := new(underTokens)
	if u.traffic, err = b.startTraffic(b.ctx, lib, service, callerOptions{etcd: asRoot, server: server, balancer: seen}); err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(b.ctx)
	b.cleanup(stop)
	go func() {
		fresh := kitexRecord(service, address(freshInstances))
		for there := true; pause(ctx, every) == nil; there = !there {
			begin := time.Now()
			var err error
			if there {
				_, err = b.etcd.client.Put(ctx, fresh.key, fresh.value)
			} else {
				_, err = b.etcd.client.Delete(ctx, fresh.key)
			}
			took := within(ctx, begin, patience, func() bool { return seen.has(address(freshInstances)) == there })
			u.mu.Lock()
			if took < float64(patience) {
				u.took = append(u.took, took)
			} else {
				u.missed++
			}
			if err != nil && ctx.Err() == nil {
				u.err = err
			}
			u.mu.Unlock()
		}
	}()
	return u, nil
}

// turn returns what came since the last.
func (u *underTokens) turn() (values, error) {
	failed := len(u.traffic.failedCalls(time.Time{}))
	u.mu.Lock()
	defer u.mu.Unlock()
	v := values{"token_failed": {float64(failed - u.failed)}, "token_missed": {u.missed}, "token_change": u.took}
	u.failed, u.missed, u.took = failed, 0, nil
	return v, u.err
}
