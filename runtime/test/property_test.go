package test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
	"github.com/kitex-contrib/kitex-etcd/runtime/etcdtest"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/discovery"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/faultproxy"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/record"
)

// TestFaultProperty does to etcd, and to the way there, whatever comes to its mind. However that goes, when it is over
// the instances are those that etcd holds. KITEX_ETCD_SEED repeats a run.
func TestFaultProperty(t *testing.T) {
	runs, steps := 4, 150
	if os.Getenv("KITEX_ETCD_LONG") != "" {
		runs, steps = 20, 500
	}
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("KITEX_ETCD_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
		runs = 1
	}
	for i := range uint64(runs) {
		t.Run(fmt.Sprint("seed=", seed+i), func(t *testing.T) {
			t.Parallel()
			newMischief(t, seed+i).run(steps)
		})
	}
}

type mischief struct {
	t       *testing.T
	rng     *rand.Rand
	cluster *etcdtest.Cluster
	proxy   *faultproxy.Proxy
	cli     *clientv3.Client
	leases  []clientv3.LeaseID
	done    []string // what was done, for the report of a failure
}

func newMischief(t *testing.T, seed uint64) *mischief {
	m := &mischief{t: t, rng: rand.New(rand.NewPCG(seed, 0)), cluster: etcdtest.Start(t)}
	m.proxy = faultproxy.Start(t, m.cluster.Endpoints()[0])
	m.cli = etcdClient(t, m.cluster.Endpoints())
	return m
}

func (m *mischief) run(steps int) {
	brief := withTiming(func(t *discovery.Timing) {
		t.RPC = 500 * time.Millisecond
		t.Check, t.Recheck = 300*time.Millisecond, 100*time.Millisecond
		t.Idle = 500 * time.Millisecond // the watch comes and goes as well
	})
	c := connectTo(m.t, []string{m.proxy.Addr()}, brief, etcd.WithEmptyProtection(time.Second))
	if _, err := c.Instances(testContext(m.t), testService); err != nil {
		m.t.Fatal(err)
	}
	for range steps {
		m.step()
		if m.rng.IntN(4) == 0 {
			// That there are no instances is an error of the resolver alone, so that Kitex asks again.
			if _, err := c.Resolver().Resolve(context.Background(), testService); err != nil && !strings.Contains(err.Error(), "has no instances") {
				m.t.Errorf("Resolve: %v", err)
			}
		}
	}
	m.proxy.Forward()
	var want, got []string
	deadline := time.Now().Add(patience)
	for time.Now().Before(deadline) {
		want = m.truth()
		if list, err := c.Instances(testContext(m.t), testService); err == nil {
			got = addresses(list)
		}
		if slices.Equal(want, got) {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	m.t.Fatalf("the instances are %v, etcd holds %v; after %v", got, want, m.done)
}

// truth is what etcd holds.
func (m *mischief) truth() []string {
	resp, err := m.cli.Get(testContext(m.t), record.ServicePrefix(etcd.DefaultPrefix, testService), clientv3.WithPrefix())
	if err != nil {
		m.t.Fatal(err)
	}
	var addrs []string
	for _, kv := range resp.Kvs {
		if r, err := record.Decode(kv.Value, 1); err == nil {
			addrs = append(addrs, r.Address)
		}
	}
	slices.Sort(addrs)
	return addrs
}

func (m *mischief) step() {
	ctx := testContext(m.t)
	addr := fmt.Sprintf("h%d:1", m.rng.IntN(6))
	var what string
	var err error
	switch n := m.rng.IntN(100); {
	case n < 25:
		what = "put " + addr
		put(m.t, m.cli, testService, addr)
	case n < 45:
		what = "put with a lease " + addr
		lease := grant(m.t, m.cli, 600)
		m.leases = append(m.leases, lease)
		put(m.t, m.cli, testService, addr, clientv3.WithLease(lease))
	case n < 60:
		what = "delete " + addr
		remove(m.t, m.cli, testService, addr)
	case n < 70 && len(m.leases) > 0:
		what = "end a lease"
		i := m.rng.IntN(len(m.leases))
		_, err = m.cli.Revoke(ctx, m.leases[i])
		m.leases = slices.Delete(m.leases, i, i+1)
	case n < 73:
		what = "put nonsense at " + addr
		_, err = m.cli.Put(ctx, record.Key(etcd.DefaultPrefix, testService, addr), "nonsense")
	case n < 78:
		what = "compact"
		var resp *clientv3.GetResponse
		if resp, err = m.cli.Get(ctx, "x"); err == nil {
			_, _ = m.cli.Compact(ctx, resp.Header.Revision) // may be compacted already
		}
	case n < 83:
		what = "cut"
		m.proxy.Cut()
	case n < 86:
		what = "refuse"
		m.proxy.Refuse()
	case n < 88:
		what = "pause"
		m.proxy.Pause()
	case n < 90:
		what = "black hole"
		m.proxy.BlackHole()
	case n < 97:
		what = "forward"
		m.proxy.Forward()
		time.Sleep(time.Duration(m.rng.IntN(50)) * time.Millisecond) // some of it shall arrive
	case n < 99:
		what = "restart"
		m.restart(false)
	default:
		what = "rebuild"
		m.restart(true)
	}
	if err != nil {
		m.t.Fatalf("%s: %v", what, err)
	}
	m.done = append(m.done, what)
}

func (m *mischief) restart(wipe bool) {
	m.cluster.Stop()
	if wipe {
		m.leases = nil
		if err := m.cluster.Wipe(); err != nil {
			m.t.Fatal(err)
		}
	}
	if err := m.cluster.Start(); err != nil {
		m.t.Fatal(err)
	}
	m.cli = etcdClient(m.t, m.cluster.Endpoints())
}
