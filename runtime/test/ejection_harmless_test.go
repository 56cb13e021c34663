package test

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cloudwego/kitex/client"
	"github.com/cloudwego/kitex/client/callopt"
	"github.com/cloudwego/kitex/pkg/limit"
	"github.com/cloudwego/kitex/server"

	"github.com/kitex-contrib/kitex-etcd/golden/thrift_unary/kitex_gen/api"
	"github.com/kitex-contrib/kitex-etcd/golden/thrift_unary/kitex_gen/api/hello"
	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
	"github.com/kitex-contrib/kitex-etcd/runtime/etcdtest"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/faultproxy"
)

// moodyServer answers as its mood is.
type moodyServer struct {
	addr string
	way  *faultproxy.Proxy // to it
	mood atomic.Pointer[func(req string) error]
}

func (s *moodyServer) Echo(_ context.Context, req *api.Request) (*api.Response, error) {
	if mood := s.mood.Load(); mood != nil {
		if err := (*mood)(req.Message); err != nil {
			return nil, err
		}
	}
	return &api.Response{Message: s.addr}, nil
}

func (s *moodyServer) set(mood func(req string) error) {
	if mood == nil {
		s.mood.Store(nil)
		return
	}
	s.mood.Store(&mood)
}

// moodyServers returns a Conn to an etcd that knows n servers, each behind a proxy, and what the Conn tells.
func moodyServers(t *testing.T, n int, opts ...server.Option) ([]*moodyServer, *etcd.Conn, *journal) {
	t.Helper()
	cluster := etcdtest.Start(t)
	cli := etcdClient(t, cluster.Endpoints())
	servers := make([]*moodyServer, n)
	for i := range servers {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		s := &moodyServer{}
		svr := hello.NewServer(s, append(onGonet(ln), opts...)...)
		ran := make(chan error, 1)
		go func() { ran <- svr.Run() }()
		t.Cleanup(func() {
			if err := errors.Join(svr.Stop(), <-ran); err != nil {
				t.Error(err)
			}
		})
		s.way = faultproxy.Start(t, ln.Addr().String())
		s.addr = s.way.Addr()
		put(t, cli, "Hello", s.addr)
		servers[i] = s
	}
	events := newJournal()
	return servers, connect(t, cluster, etcd.WithEventHandler(events.add)), events
}

func addrsOfMoody(servers []*moodyServer) (addrs []string) {
	for _, s := range servers {
		addrs = append(addrs, s.addr)
	}
	return addrs
}

// about returns how many events of type typ there were about an address.
func (j *journal) about(typ etcd.EventType, addr string) (n int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, ev := range j.events {
		if ev.Type == typ && ev.Address == addr {
			n++
		}
	}
	return n
}

func wantNoEjection(t *testing.T, events *journal) {
	t.Helper()
	if n := events.count(etcd.EventEjected); n != 0 {
		events.mu.Lock()
		defer events.mu.Unlock()
		t.Errorf("%d ejections, want none: %+v", n, events.events)
	}
}

// quickly is an RPC timeout that a busy machine meets; tooSlow is how long a server takes that does not.
const (
	quickly = 500 * time.Millisecond
	tooSlow = 4 * quickly
)

func sleepy(d time.Duration) func(string) error {
	return func(string) error { time.Sleep(d); return nil }
}

// TestEjectionAllSlow: where all are too slow for the timeout nobody is better than the others. Each keeps its share.
func TestEjectionAllSlow(t *testing.T) {
	t.Parallel()
	servers, conn, _ := moodyServers(t, 4)
	l := startLoad(t, conn, longPool(), client.WithRPCTimeout(quickly))
	l.called(t, addrsOfMoody(servers)...)
	for _, s := range servers {
		s.set(sleepy(tooSlow))
	}
	began := time.Now()
	time.Sleep(3 * time.Second) // calls come and fail
	for _, s := range servers {
		s.set(nil)
	}
	quick := time.Now()
	total := 0
	for _, s := range servers {
		total += len(l.at(s.addr, began))
	}
	for _, s := range servers {
		if share := float64(len(l.at(s.addr, began))) / float64(total); share < 0.15 {
			t.Errorf("%s got %.0f %% of the calls, want its quarter", s.addr, 100*share)
		}
	}
	time.Sleep(2 * time.Second) // quick again
	l.stop()
	if failed := l.failedCalls(quick.Add(time.Second)); len(failed) > 0 {
		t.Errorf("%d calls failed although all had been quick for 1 s: %v", len(failed), failed[0].err)
	}
	l.wasCalled(t, quick.Add(time.Second), servers)
}

// wasCalled checks that each server was called after since.
func (l *load) wasCalled(t *testing.T, since time.Time, servers []*moodyServer) {
	t.Helper()
	for _, s := range servers {
		if !l.answeredBy(s.addr, since) {
			t.Errorf("%s is not called any more", s.addr)
		}
	}
}

// TestEjectionHalfSlow: two of four are too slow. They are left alone but for trials, and called again when they are quick.
func TestEjectionHalfSlow(t *testing.T) {
	t.Parallel()
	servers, conn, events := moodyServers(t, 4)
	l := startLoad(t, conn, longPool(), client.WithRPCTimeout(quickly))
	l.called(t, addrsOfMoody(servers)...)
	slow := servers[:2]
	for _, s := range slow {
		s.set(sleepy(tooSlow))
	}
	for _, s := range slow {
		eventually(t, s.addr+" is ejected", func() bool { return events.about(etcd.EventEjected, s.addr) > 0 })
	}
	ejected := time.Now()
	time.Sleep(3 * time.Second) // trials come and go
	since, failed := ejected.Add(100*time.Millisecond), 0
	for _, s := range slow {
		failed += len(l.failedAt(s.addr, since))
	}
	if failed > 8 {
		t.Errorf("%d failed calls in 3 s, want no more than the trials", failed)
	}
	for _, s := range slow {
		s.set(nil)
	}
	for _, s := range slow {
		eventually(t, s.addr+" is readmitted", func() bool {
			return events.about(etcd.EventReadmitted, s.addr) == events.about(etcd.EventEjected, s.addr)
		})
	}
	l.called(t, addrsOfMoody(servers)...)
}

// TestEjectionSlowMethod: calls of one kind are slow everywhere, the others are answered: nobody is ejected.
func TestEjectionSlowMethod(t *testing.T) {
	t.Parallel()
	servers, conn, events := moodyServers(t, 4)
	for _, s := range servers {
		s.set(func(req string) error {
			if strings.HasSuffix(req, "3") {
				time.Sleep(time.Second)
			}
			return nil
		})
	}
	l := startLoad(t, conn, longPool(), client.WithRPCTimeout(500*time.Millisecond))
	eventually(t, "60 calls failed", func() bool { return len(l.failedCalls(time.Time{})) >= 60 })
	l.stop()
	wantNoEjection(t, events)
}

// TestEjectionOwnNetworkDown: the client cannot reach anybody. When it can again it calls all of them, at once.
func TestEjectionOwnNetworkDown(t *testing.T) {
	t.Parallel()
	servers, conn, events := moodyServers(t, 4)
	l := startLoad(t, conn, longPool())
	l.called(t, addrsOfMoody(servers)...)
	for _, s := range servers {
		s.way.Pause() // nothing answers while one after the other goes away
	}
	for _, s := range servers {
		s.way.Shut()
	}
	down := time.Now()
	eventually(t, "100 calls failed", func() bool { return len(l.failedCalls(down)) >= 100 })
	for _, s := range servers {
		s.way.Forward()
		s.way.Open(t)
	}
	up := time.Now()
	l.called(t, addrsOfMoody(servers)...)
	l.stop()
	if failed := l.failedCalls(up); len(failed) > 0 {
		t.Errorf("%d calls failed after the network was back: %v", len(failed), failed[0].err)
	}
	wantNoEjection(t, events)
}

// TestEjectionAnswersOfAllKinds: an exception, and a refusal for load, are answers.
func TestEjectionAnswersOfAllKinds(t *testing.T) {
	t.Parallel()
	t.Run("exception", func(t *testing.T) {
		t.Parallel()
		servers, conn, events := moodyServers(t, 3)
		servers[0].set(func(string) error { return errors.New("an exception") })
		l := startLoad(t, conn, longPool())
		eventually(t, "100 calls failed", func() bool { return len(l.failedCalls(time.Time{})) >= 100 })
		l.stop()
		wantNoEjection(t, events)
	})
	t.Run("load is shed", func(t *testing.T) {
		t.Parallel()
		_, conn, events := moodyServers(t, 3, server.WithLimit(&limit.Option{MaxQPS: 20, MaxConnections: 1000}))
		l := startLoad(t, conn, longPool())
		eventually(t, "100 calls failed", func() bool { return len(l.failedCalls(time.Time{})) >= 100 })
		l.stop()
		wantNoEjection(t, events)
	})
}

// TestEjectionCallersLeave: callers cancel, or have less time than the client's timeout. That says nothing about the server.
func TestEjectionCallersLeave(t *testing.T) {
	t.Parallel()
	for name, opt := range map[string]client.Option{"long pool": longPool(), "multiplexed": client.WithMuxConnection(2)} {
		for _, way := range []string{"cancel", "deadline"} {
			t.Run(name+", "+way, func(t *testing.T) {
				t.Parallel()
				servers, conn, events := moodyServers(t, 3)
				servers[0].set(sleepy(50 * time.Millisecond))
				cli := newHello(t, conn, opt, client.WithRPCTimeout(2*time.Second))
				failed := 0
				for failed < 20 {
					ctx, cancel := context.WithCancel(context.Background())
					if way == "deadline" {
						ctx, cancel = context.WithTimeout(context.Background(), 20*time.Millisecond)
					} else {
						time.AfterFunc(20*time.Millisecond, cancel)
					}
					if _, err := cli.Echo(ctx, &api.Request{Message: "hi"}, callopt.WithConnectTimeout(time.Second)); err != nil {
						failed++
					}
					cancel()
				}
				wantNoEjection(t, events)
			})
		}
	}
}

// TestEjectionOfTwo: one of two dies, and all calls go to the other.
func TestEjectionOfTwo(t *testing.T) {
	t.Parallel()
	servers, conn, events := moodyServers(t, 2)
	l := startLoad(t, conn, longPool())
	l.called(t, addrsOfMoody(servers)...)
	began := time.Now()
	servers[0].way.Shut()
	events.wait(t, etcd.EventEjected, 1)
	l.called(t, servers[1].addr)
	l.stop()
	if failed := l.failedAt(servers[0].addr, began); len(failed) > 1 { // one may have been under way
		t.Errorf("%d failed calls: %v", len(failed), failed[0].err)
	}
}

// TestEjectionOfOne: the only instance is never ejected, and called as soon as it is back.
func TestEjectionOfOne(t *testing.T) {
	t.Parallel()
	servers, conn, events := moodyServers(t, 1)
	l := startLoad(t, conn, longPool())
	l.called(t, servers[0].addr)
	servers[0].way.Shut()
	down := time.Now()
	eventually(t, "20 calls failed", func() bool { return len(l.failedCalls(down)) >= 20 })
	servers[0].way.Open(t)
	up := time.Now()
	l.called(t, servers[0].addr)
	l.stop()
	if failed := l.failedCalls(up); len(failed) > 0 {
		t.Errorf("%d calls failed after it was back: %v", len(failed), failed[0].err)
	}
	wantNoEjection(t, events)
}

// TestEjectionAllDead: all die, and one comes back. It is called.
func TestEjectionAllDead(t *testing.T) {
	t.Parallel()
	servers, conn, _ := moodyServers(t, 4)
	l := startLoad(t, conn, longPool())
	l.called(t, addrsOfMoody(servers)...)
	for _, s := range servers {
		s.way.Shut()
	}
	down := time.Now()
	eventually(t, "100 calls failed", func() bool { return len(l.failedCalls(down)) >= 100 })
	servers[2].way.Open(t)
	up := time.Now()
	l.called(t, servers[2].addr)
	t.Logf("called %v after it was back", time.Since(up))
}

// TestEjectionPacketsDropped: the way to one of four loses everything. A call for each connection that was open fails, and a few
// that wait for an answer beside them.
func TestEjectionPacketsDropped(t *testing.T) {
	t.Parallel()
	servers, conn, events := moodyServers(t, 4)
	l := startLoad(t, conn, longPool(), client.WithConnectTimeout(100*time.Millisecond), client.WithRPCTimeout(200*time.Millisecond))
	l.called(t, addrsOfMoody(servers)...)
	lost := servers[0]
	open := lost.way.Conns()
	began := time.Now()
	lost.way.Drop(t)
	events.wait(t, etcd.EventEjected, 1)
	time.Sleep(4 * time.Second) // trials come and go
	lost.way.Forward()
	back := time.Now()
	eventually(t, "it is called again", func() bool { return l.answeredBy(lost.addr, back) })
	t.Logf("called %v after the way was back", time.Since(back))
	l.stop()
	all, late := l.failedAt(lost.addr, began), l.failedAt(lost.addr, began.Add(time.Second))
	t.Logf("%d connections were open; %d failed calls, %d of them begun after 1 s", open, len(all), len(late))
	if len(all) > open+30 || len(late) > 4 {
		t.Errorf("%d failed calls, %d of them late", len(all), len(late))
	}
}

// TestEjectionOff: with WithEjection(false) a dead instance is called until its lease ends.
func TestEjectionOff(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Start(t)
	cli := etcdClient(t, cluster.Endpoints())
	alive, way := serveHello(t), faultproxy.Start(t, serveHello(t).addr)
	put(t, cli, "Hello", alive.addr)
	put(t, cli, "Hello", way.Addr())
	events := newJournal()
	l := startLoad(t, connect(t, cluster, etcd.WithEventHandler(events.add), etcd.WithEjection(false)), longPool())
	l.called(t, alive.addr, way.Addr())
	way.Shut()
	down := time.Now()
	eventually(t, "100 attempts failed", func() bool { return len(l.at(way.Addr(), down)) >= 100 })
	l.stop()
	wantNoEjection(t, events)
}

// TestEjectionLateFailures: a server leaves with calls that it never answers. They fail when it is out of the list, which is no
// ground to eject it.
func TestEjectionLateFailures(t *testing.T) {
	t.Parallel()
	servers, conn, events := moodyServers(t, 3)
	cli := newHello(t, conn, longPool(), client.WithConnectTimeout(time.Second), client.WithRPCTimeout(500*time.Millisecond))
	gone := servers[0]
	var hanging atomic.Int32
	release := make(chan struct{})
	defer close(release)
	gone.set(func(string) error { hanging.Add(1); <-release; return nil })
	var calls sync.WaitGroup
	eventually(t, "six calls hang", func() bool {
		calls.Go(func() { _, _ = cli.Echo(context.Background(), &api.Request{Message: "hi"}) })
		time.Sleep(10 * time.Millisecond) // so that others are answered while they fail one after the other
		return hanging.Load() >= 6
	})
	remove(t, conn.Client(), "Hello", gone.addr)
	for list, err := range conn.Watch(testContext(t), "Hello") {
		if err != nil {
			t.Fatal(err)
		}
		if len(list) == 2 {
			break
		}
	}
	var failed atomic.Bool
	go func() { calls.Wait(); failed.Store(true) }()
	eventually(t, "the calls fail while others are answered", func() bool { echo(t, cli); return failed.Load() })
	wantNoEjection(t, events)
	if s := conn.Services()[0]; s.Ejected != 0 {
		t.Errorf("ejected although it is not listed: %+v", s)
	}
}

// TestEjectionClose closes a Conn while instances are ejected and probed. Its goroutines end, which TestMain checks, and its
// clients call on, all instances.
func TestEjectionClose(t *testing.T) {
	t.Parallel()
	servers, conn, events := moodyServers(t, 5)
	l := startLoad(t, conn, longPool(), client.WithConnectTimeout(200*time.Millisecond), client.WithRPCTimeout(400*time.Millisecond))
	l.called(t, addrsOfMoody(servers)...)
	servers[0].way.Drop(t)
	servers[1].way.Shut()
	events.wait(t, etcd.EventEjected, 2)
	began := time.Now()
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	t.Logf("closed after %v", time.Since(began))
	servers[0].way.Forward()
	servers[1].way.Open(t)
	l.called(t, addrsOfMoody(servers)...)
}
