package test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"

	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
	"github.com/kitex-contrib/kitex-etcd/runtime/etcdtest"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/discovery"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/faultproxy"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/record"
)

// TestFaultProperty does to etcd, to the way there and to the credentials whatever comes to its mind. However that goes, when it is over
// the instances are those that etcd holds, and the server that registered is among them. Every second etcd has three members, one of which
// may be cut off from the others. KITEX_ETCD_SEED repeats a run.
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

// mischief is one run. The order of what it does follows from its seed.
type mischief struct {
	t        *testing.T
	seed     uint64
	rng      *rand.Rand
	cluster  *etcdtest.Cluster
	isolated *etcdtest.Member    // cut off from the others; nil: nobody
	proxies  []*faultproxy.Proxy // one in front of each member
	cli      *clientv3.Client    // an administrator's, past the proxies
	auth     bool                // etcd asks for credentials
	password string              // of the Conn's user, as etcd knows it
	given    atomic.Value        // string: the password that the Conn gives
	leases   []clientv3.LeaseID
	done     []string // what was done, for the report of a failure
}

const ownAddr = "127.0.0.1:9" // of the server that registers

func newMischief(t *testing.T, seed uint64) *mischief {
	m := &mischief{t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 0))}
	m.cluster = etcdtest.Start(t, etcdtest.WithMembers(1+2*int(seed%2)), etcdtest.WithConfig(func(c *embed.Config) { c.AuthTokenTTL = 1 }))
	for _, endpoint := range m.cluster.Endpoints() {
		m.proxies = append(m.proxies, faultproxy.Start(t, endpoint))
	}
	m.connect()
	m.addUsers()
	return m
}

func (m *mischief) run(steps int) {
	brief := withTiming(func(t *discovery.Timing) {
		t.RPC = 500 * time.Millisecond
		t.Check, t.Recheck = 300*time.Millisecond, 100*time.Millisecond
		t.Idle = 500 * time.Millisecond // the watch comes and goes as well
	})
	var endpoints []string
	for _, p := range m.proxies {
		endpoints = append(endpoints, p.Addr())
	}
	c := connectTo(m.t, endpoints, brief, etcd.WithEmptyProtection(time.Second),
		etcd.WithAuthFunc(func(context.Context) (string, string, error) { return "app", m.given.Load().(string), nil }))
	mustRegister(m.t, c.Registry(), serverInfo(testService, ownAddr))
	await(m.t, c, testService, ownAddr)
	for range steps {
		m.step()
		if known := len(c.Services()) > 0; m.rng.IntN(4) == 0 && known { // one without instances may be forgotten
			// That there are no instances is an error of the resolver alone, so that Kitex asks again.
			if _, err := c.Resolver().Resolve(context.Background(), testService); err != nil && !strings.Contains(err.Error(), "has no instances") {
				m.t.Errorf("Resolve: %v", err)
			}
		}
	}
	over := time.Now()
	m.isolate(nil)
	m.given.Store(m.password)
	m.proxied((*faultproxy.Proxy).Forward)
	m.proxied(func(p *faultproxy.Proxy) { p.Line(0, 0) })
	var want, got []string
	deadline := time.Now().Add(2 * patience) // a black hole, a thin line and a password together take their time
	for time.Now().Before(deadline) {
		want = m.truth()
		if list, err := c.Instances(testContext(m.t), testService); err == nil {
			got = addresses(list)
		}
		if slices.Equal(want, got) && slices.Contains(got, ownAddr) {
			m.t.Logf("right %v after it was over", time.Since(over))
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	m.t.Fatalf("the instances are %v, etcd holds %v, and %s registered; KITEX_ETCD_SEED=%d repeats it; after %v", got, want, ownAddr, m.seed, m.done)
}

// truth is what etcd holds.
func (m *mischief) truth() []string {
	var addrs []string
	m.do("get", func(ctx context.Context) error {
		resp, err := m.cli.Get(ctx, record.ServicePrefix(etcd.DefaultPrefix, testService), clientv3.WithPrefix())
		if err != nil {
			return err
		}
		for _, kv := range resp.Kvs {
			if r, err := record.Decode(kv.Value, 1); err == nil {
				addrs = append(addrs, r.Address)
			}
		}
		return nil
	})
	slices.Sort(addrs)
	return addrs
}

// do has etcd do something, again for as long as its members are about to find a leader.
func (m *mischief) do(what string, f func(context.Context) error) {
	m.t.Helper()
	for deadline := time.Now().Add(patience); ; {
		ctx, cancel := context.WithTimeout(context.Background(), patience/10)
		err := f(ctx)
		cancel()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			m.t.Fatalf("%s: %v; KITEX_ETCD_SEED=%d repeats it; after %v", what, err, m.seed, m.done)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// connect makes the administrator's client anew, with those members that have a majority.
func (m *mischief) connect() {
	if m.cli != nil {
		_ = m.cli.Close()
	}
	cfg := clientv3.Config{DialTimeout: patience / 10}
	for _, member := range m.cluster.Members() {
		if member != m.isolated {
			cfg.Endpoints = append(cfg.Endpoints, member.Endpoint())
		}
	}
	if m.auth {
		cfg.Username, cfg.Password = "root", "root"
	}
	m.do("connect", func(context.Context) (err error) {
		m.cli, err = clientv3.New(cfg)
		return err
	})
	m.t.Cleanup(func() { _ = m.cli.Close() })
}

// addUsers makes the users of an etcd that has none.
func (m *mischief) addUsers() {
	m.password = "first"
	m.given.Store(m.password)
	from := etcd.DefaultPrefix
	for what, f := range map[string]func(context.Context) (any, error){
		"a role": func(ctx context.Context) (any, error) { return m.cli.RoleAdd(ctx, "app") },
		"root":   func(ctx context.Context) (any, error) { return m.cli.UserAdd(ctx, "root", "root") },
		"app":    func(ctx context.Context) (any, error) { return m.cli.UserAdd(ctx, "app", m.password) },
	} {
		m.do(what, func(ctx context.Context) error { return ignore(f(ctx)) })
	}
	m.do("rights", func(ctx context.Context) error {
		return errors.Join(
			ignore(m.cli.RoleGrantPermission(ctx, "app", from, clientv3.GetPrefixRangeEnd(from), clientv3.PermissionType(clientv3.PermReadWrite))),
			ignore(m.cli.UserGrantRole(ctx, "root", "root")),
			ignore(m.cli.UserGrantRole(ctx, "app", "app")))
	})
}

// ignore returns the error alone, unless it says that there is such a thing already, from an attempt whose answer was lost.
func ignore(_ any, err error) error {
	if errors.Is(err, rpctypes.ErrUserAlreadyExist) || errors.Is(err, rpctypes.ErrRoleAlreadyExist) {
		return nil
	}
	return err
}

func (m *mischief) proxied(f func(*faultproxy.Proxy)) {
	for _, p := range m.proxies {
		f(p)
	}
}

func (m *mischief) put(addr, value string, opts ...clientv3.OpOption) {
	m.do("put", func(ctx context.Context) error {
		_, err := m.cli.Put(ctx, record.Key(etcd.DefaultPrefix, testService, addr), value, opts...)
		return err
	})
}

func (m *mischief) step() {
	addr := fmt.Sprintf("h%d:1", m.rng.IntN(6))
	var what string
	switch n := m.rng.IntN(120); {
	case n < 25:
		what = "put " + addr
		m.put(addr, testRecord(addr))
	case n < 45:
		what = "put with a lease " + addr
		m.do("grant", func(ctx context.Context) error {
			lease, err := m.cli.Grant(ctx, 600)
			if err == nil {
				m.leases = append(m.leases, lease.ID)
			}
			return err
		})
		m.put(addr, testRecord(addr), clientv3.WithLease(m.leases[len(m.leases)-1]))
	case n < 60:
		what = "delete " + addr
		m.do("delete", func(ctx context.Context) error {
			_, err := m.cli.Delete(ctx, record.Key(etcd.DefaultPrefix, testService, addr))
			return err
		})
	case n < 70 && len(m.leases) > 0:
		what = "end a lease"
		i := m.rng.IntN(len(m.leases))
		m.do("revoke", func(ctx context.Context) error {
			if _, err := m.cli.Revoke(ctx, m.leases[i]); !errors.Is(err, rpctypes.ErrLeaseNotFound) { // gone by an attempt whose answer was lost
				return err
			}
			return nil
		})
		m.leases = slices.Delete(m.leases, i, i+1)
	case n < 73:
		what = "put nonsense at " + addr
		m.put(addr, "nonsense")
	case n < 78:
		what = "compact"
		m.do("compact", func(ctx context.Context) error {
			resp, err := m.cli.Get(ctx, "x")
			if err == nil {
				_, _ = m.cli.Compact(ctx, resp.Header.Revision) // may be compacted already
			}
			return err
		})
	case n < 83:
		what = "cut"
		m.proxied((*faultproxy.Proxy).Cut)
	case n < 86:
		what = "refuse"
		m.proxied((*faultproxy.Proxy).Refuse)
	case n < 88:
		what = "pause"
		m.proxied((*faultproxy.Proxy).Pause)
	case n < 90:
		what = "black hole"
		m.proxied((*faultproxy.Proxy).BlackHole)
	case n < 97:
		what = "forward"
		m.proxied((*faultproxy.Proxy).Forward)
		time.Sleep(time.Duration(m.rng.IntN(50)) * time.Millisecond) // some of it shall arrive
	case n < 98:
		what = "restart"
		m.restart(false)
	case n < 99:
		what = "rebuild"
		m.restart(true)
	default:
		what = m.slowly(n - 99)
	}
	m.done = append(m.done, what)
}

// slowly does what connections survive: a thin or a long line, other credentials, a member cut off.
func (m *mischief) slowly(n int) (what string) {
	switch {
	case n < 4:
		rate := 5_000 << m.rng.IntN(6)
		m.proxied(func(p *faultproxy.Proxy) { p.Line(rate, 0) })
		return fmt.Sprint("bandwidth ", rate)
	case n < 7:
		delay := time.Duration(m.rng.IntN(100)) * time.Millisecond
		m.proxied(func(p *faultproxy.Proxy) { p.Line(0, delay) })
		return fmt.Sprint("latency ", delay)
	case n < 10:
		m.auth = !m.auth
		m.do("auth", func(ctx context.Context) error {
			if m.auth {
				return ignore(m.cli.AuthEnable(ctx))
			}
			return ignore(m.cli.AuthDisable(ctx))
		})
		m.connect()
		return fmt.Sprint("auth ", m.auth)
	case n < 13:
		m.password = fmt.Sprint("password", m.rng.IntN(1000))
		m.do("password", func(ctx context.Context) error { return ignore(m.cli.UserChangePassword(ctx, "app", m.password)) })
		return "a new password"
	case n < 17:
		m.given.Store(m.password)
		return "the Conn has the new password"
	}
	members := m.cluster.Members()
	if member := members[m.rng.IntN(len(members))]; len(members) > 1 && m.isolated == nil {
		m.isolate(member)
		return "isolate " + member.Endpoint()
	}
	m.isolate(nil)
	return "isolate none"
}

func (m *mischief) isolate(member *etcdtest.Member) {
	m.isolated = member
	m.cluster.Isolate(member)
	m.connect()
}

func (m *mischief) restart(wipe bool) {
	m.isolated = nil
	m.cluster.Stop()
	if wipe {
		m.leases, m.auth = nil, false
		if err := m.cluster.Wipe(); err != nil {
			m.t.Fatal(err)
		}
	}
	if err := m.cluster.Start(); err != nil {
		m.t.Fatal(err)
	}
	m.connect()
	if wipe {
		m.addUsers()
	}
}
