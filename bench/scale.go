package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/cloudwego/kitex/client"
	"github.com/cloudwego/kitex/pkg/discovery"
	"github.com/cloudwego/kitex/pkg/loadbalance"
	"github.com/cloudwego/kitex/pkg/remote/trans/netpoll"

	"github.com/kitex-contrib/kitex-etcd/example/plain/kitex_gen/api/hello"
	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
)

const (
	scaleInstances = 10000
	scaleRate      = 1000 // changes per second
	scaleBatch     = 10   // changes in one transaction
	scaleService   = "bench-scale"
)

// scaleFamily is a large service in which much changes, for processes with more and more clients of it.
func scaleFamily(clients ...string) family {
	return family{
		name:   "scale",
		rounds: 3,
		quick:  1,
		about: fmt.Sprintf("A process whose Kitex clients share a Conn and call a service of %d of which %d "+
			"change every second, %d to a transaction, for 30 s (3 s in a quick run). One of the clients has a balancer of its own, which measures; "+
			"the others share one, as clients without a choice of their own do", scaleInstances, scaleRate, scaleBatch),
		rows: []row{
			{name: "scale_stale_p50", what: "from the beginning of a change until it can be picked: half of them", unit: duration, from: "scale_stale"},
			{name: "scale_stale_p99", what: "99 of 100 of them", unit: duration, from: "scale_stale", quantile: 0.99},
			{name: "scale_builds", what: "pickers that one balancer builds", unit: perSec},
			{name: "scale_cpu", what: "processor time for each second", unit: duration},
			{name: "scale_memory", what: "the most memory that the process ever had, without the program itself", unit: size},
		},
		open: func(b *bench) ([]side, error) {
			pairs := make([]pair, scaleInstances)
			for i := range pairs {
				pairs[i] = scaleRecord(i, time.Now())
			}
			if err := b.etcd.put(b.ctx, pairs); err != nil {
				return nil, err
			}
			length := time.Duration(b.pick(30, 3)) * time.Second
			var sides []side
			for _, n := range clients {
				sides = append(sides, side{ours + " × " + n, func(ctx context.Context) (values, error) { return scaleTurn(ctx, b, n, length) }})
			}
			return sides, nil
		},
	}
}

const changedTag = "changed"

// scaleRecord is the record of an instance that says when it changed.
func scaleRecord(i int, at time.Time) pair {
	addr := address(i)
	return pair{etcd.DefaultPrefix + "/" + scaleService + "/" + addr,
		fmt.Sprintf(`{"network":"tcp","address":%q,"weight":10,"tags":{%q:"%d"}}`, addr, changedTag, at.UnixNano())}
}

func scaleTurn(ctx context.Context, b *bench, clients string, length time.Duration) (values, error) {
	c, err := startChild("scale", []string{clients, b.etcd.endpoints[0]})
	if err != nil {
		return nil, err
	}
	defer c.close()
	var ready bool
	if err := c.read(&ready); err != nil {
		return nil, err
	}
	if err := changeMuch(ctx, b, length); err != nil {
		return nil, err
	}
	if err := c.stdin.Close(); err != nil {
		return nil, err
	}
	v := make(values)
	return v, c.read(&v)
}

// changeMuch changes instances at the rate, one after the other, or fails when etcd does not keep up.
func changeMuch(ctx context.Context, b *bench, length time.Duration) error {
	every := time.Second * scaleBatch / scaleRate
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	var writing sync.WaitGroup
	errs := make(chan error, 1)
	for n := range int(length / every) {
		<-ticker.C
		writing.Go(func() {
			now := time.Now()
			batch := make([]pair, scaleBatch)
			for i := range batch {
				batch[i] = scaleRecord((n*scaleBatch+i)%scaleInstances, now)
			}
			if err := b.etcd.put(ctx, batch); err != nil {
				select {
				case errs <- err:
				default:
				}
			}
		})
	}
	writing.Wait()
	select {
	case err := <-errs:
		return err
	default:
		return nil
	}
}

// callMuch is what the process does. It says that it is ready, and what it measured when its stdin has ended.
func callMuch(args []string) error {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	b := &bench{ctx: context.Background(), etcd: &etcdProcess{endpoints: args[1:]}}
	server, err := b.serve()
	if err != nil {
		return err
	}
	conn, err := b.connect()
	if err != nil {
		return err
	}
	m := &meter{Loadbalancer: loadbalance.NewWeightedBalancer()}
	for i := range n {
		opts := []client.Option{client.WithDialer(detour{netpoll.NewDialer(), server})}
		if i == 0 {
			opts = append(opts, client.WithLoadBalancer(m))
		}
		cli, err := hello.NewClient(scaleService, conn.ClientOptions(opts...)...)
		if err != nil {
			return err
		}
		c := &caller{Client: cli}
		if _, err := c.call(b.ctx); err != nil {
			return err
		}
		b.keepCalling(c)
	}
	began := m.reset()
	cpuBefore, _ := used()
	out := json.NewEncoder(os.Stdout)
	if err := out.Encode(true); err != nil {
		return err
	}
	awaitParent()
	seconds := time.Since(began).Seconds()
	ages, builds := m.read()
	if len(ages) == 0 {
		return errors.New("no change arrived")
	}
	cpu, memory := used()
	return out.Encode(values{
		"scale_stale":  ages,
		"scale_builds": {float64(builds) / seconds},
		"scale_cpu":    {float64(cpu-cpuBefore) / seconds},
		"scale_memory": {memory},
	})
}

// A meter is Kitex's standard balancer, which notes how old the changes are when the picker with them is built.
type meter struct {
	loadbalance.Loadbalancer

	mu     sync.Mutex
	ages   []float64
	builds int
}

func (m *meter) Rebalance(ch discovery.Change) {
	m.Loadbalancer.(loadbalance.Rebalancer).Rebalance(ch)
	m.GetPicker(ch.Result) // the standard balancer builds the picker here
	now := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.builds++
	for _, i := range ch.Updated {
		tag, _ := i.Tag(changedTag)
		if at, err := strconv.ParseInt(tag, 10, 64); err == nil {
			m.ages = append(m.ages, float64(now.UnixNano()-at))
		}
	}
}

func (m *meter) Delete(ch discovery.Change) { m.Loadbalancer.(loadbalance.Rebalancer).Delete(ch) }

func (m *meter) reset() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ages, m.builds = nil, 0
	return time.Now()
}

func (m *meter) read() (ages []float64, builds int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.ages, m.builds
}

// used says how much processor time this process has had, and the most memory that was resident, in bytes, without the program.
func used() (cpu time.Duration, memory float64) {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err) // there is always a self
	}
	_, program, err := residentBytes("/proc/self")
	if err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), float64(u.Maxrss)*1024 - program
}
