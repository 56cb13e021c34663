package test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cloudwego/kitex/client"
	"github.com/cloudwego/kitex/pkg/kerrors"

	"github.com/kitex-contrib/kitex-etcd/golden/thrift_unary/kitex_gen/api"
	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
	"github.com/kitex-contrib/kitex-etcd/runtime/etcdtest"
)

// startLane starts a server of Hello or of a service with streams in lane x.
func startLane(t *testing.T, cluster *etcdtest.Cluster, env ...string) *child {
	t.Helper()
	c, err := startChild(t, cluster, 10*time.Second, append(env, childLane+"=x")...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// kill ends the process without a farewell.
func (c *child) kill(t *testing.T) {
	t.Helper()
	c.signal(t, os.Kill)
	_ = c.cmd.Wait()
}

// TestLaneUnderTraffic has callers of a lane of one server and of the base all the time, while the lane's server is killed, comes
// back and leaves by itself. Kitex may repeat what was under way when it was killed. No call fails, and none without a lane goes to it.
func TestLaneUnderTraffic(t *testing.T) {
	for name, opts := range routingBalancers {
		t.Run(name, func(t *testing.T) {
			cluster := etcdtest.Start(t)
			cli := etcdClient(t, cluster.Endpoints())
			base := make(map[string]bool)
			for range 3 {
				addr := serveHello(t).addr
				base[addr] = true
				putTagged(t, cli, "Hello", addr, "lane", "")
			}
			lane := startLane(t, cluster)
			c := newHello(t, connect(t, cluster), append(slices.Clone(opts), longPool(), client.WithConnectTimeout(2*time.Second),
				client.WithRPCTimeout(5*time.Second), anyErrorAgain(), etcd.Lane("lane", laneOf))...)

			var toLane, toBase atomic.Int64 // calls of lane x
			ctx, cancel := context.WithCancel(t.Context())
			var callers sync.WaitGroup
			defer callers.Wait()
			defer cancel()
			for i := range 4 {
				callers.Go(func() {
					for n := 0; ctx.Err() == nil; n++ {
						in := []string{"x", "x", "x", ""}[i]
						resp, err := c.Echo(inLane(in), &api.Request{Message: fmt.Sprint(i, n)})
						switch {
						case err != nil:
							t.Errorf("a call of lane %q: %v", in, err)
						case in == "" && !base[resp.Message]:
							t.Errorf("a call without a lane went to %s", resp.Message)
						case in == "":
						case base[resp.Message]:
							toBase.Add(1)
						default:
							toLane.Add(1)
						}
					}
				})
			}
			goes(t, "calls of the lane go to it", &toLane, &toBase)
			lane.kill(t)
			goes(t, "the lane's server was killed: its calls go to the base", &toBase, &toLane)
			lane = startLane(t, cluster, childAddr+"="+lane.addr)
			goes(t, "it is back", &toLane, &toBase)
			lane.stop(t)
			goes(t, "it left: its calls go to the base", &toBase, &toLane)
		})
	}
}

// TestRoutesOfStreams opens streams in a lane, or a preferred zone, of one server, which is killed: they go to the others. None fails but
// on a connection that the client does not yet know to be cut: with gRPC it has as many as Kitex keeps for a server.
func TestRoutesOfStreams(t *testing.T) {
	for service, newDownload := range downloads {
		t.Run(service, func(t *testing.T) {
			cluster := etcdtest.Start(t)
			cli := etcdClient(t, cluster.Endpoints())
			t.Setenv(childService, service)
			base := startChildren(t, cluster, 10*time.Second, 2)
			inBase := func(addr string) bool { return addr == base[0].addr || addr == base[1].addr }
			for name, opts := range routingBalancers {
				for route, opt := range map[string]client.Option{"lane": etcd.Lane("lane", laneOf), "zone": etcd.Prefer("lane", "x", 1)} {
					t.Run(route+" "+name, func(t *testing.T) {
						one := startLane(t, cluster)
						conn := connect(t, cluster)
						download := newDownload(t, conn, append(slices.Clone(opts), opt, client.WithConnectTimeout(2*time.Second)))
						cut := 0
						open := func(in string) string {
							t.Helper()
							ctx, cancel := context.WithTimeout(inLane(in), patience)
							defer cancel()
							addr, err := download(ctx)
							for cut > 0 && err != nil && !errors.Is(err, kerrors.ErrGetConnection) {
								cut--
								addr, err = download(ctx)
							}
							if err != nil {
								t.Fatalf("a stream of lane %q: %v", in, err)
							}
							return addr
						}
						for range 10 {
							if got := open("x"); got != one.addr {
								t.Fatalf("a stream went to %s, want %s", got, one.addr)
							}
							if got := open(""); route == "lane" && !inBase(got) {
								t.Fatalf("a stream without a lane went to %s", got)
							}
						}
						one.kill(t)
						defer remove(t, cli, "Chat", one.addr) // the next one's lane is of one again
						cut = runtime.GOMAXPROCS(0) * 3 / 2    // Kitex's size of the pool
						for range 30 {
							if got := open("x"); !inBase(got) {
								t.Fatalf("a stream went to %s, which was killed", got)
							}
						}
					})
				}
			}
		})
	}
}
