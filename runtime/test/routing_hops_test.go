package test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bytedance/gopkg/cloud/metainfo"
	"github.com/cloudwego/kitex/client"
	"github.com/cloudwego/kitex/pkg/transmeta"
	"github.com/cloudwego/kitex/server"
	"github.com/cloudwego/kitex/transport"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/kitex-contrib/kitex-etcd/golden/thrift_unary/kitex_gen/api"
	"github.com/kitex-contrib/kitex-etcd/golden/thrift_unary/kitex_gen/api/hello"
	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
	"github.com/kitex-contrib/kitex-etcd/runtime/etcdtest"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/record"
)

// frontServer answers with its name and with what answers behind it.
type frontServer struct {
	name string
	back hello.Client
}

func (s *frontServer) Echo(ctx context.Context, req *api.Request) (*api.Response, error) {
	resp, err := s.back.Echo(ctx, req)
	if err != nil {
		return nil, err
	}
	return &api.Response{Message: s.name + " " + resp.Message}, nil
}

// hopOptions are those of a client whose calls go to the lane that they carry, and carry it on.
func hopOptions() []client.Option {
	return []client.Option{
		etcd.Lane("lane", func(ctx context.Context) string {
			lane, _ := metainfo.GetPersistentValue(ctx, "lane")
			return lane
		}),
		client.WithTransportProtocol(transport.TTHeader), client.WithMetaHandler(transmeta.ClientTTHeaderHandler),
		longPool(), client.WithConnectTimeout(2 * time.Second), client.WithRPCTimeout(5 * time.Second),
	}
}

// serveFront runs a server of Front in a lane, or in the base, and has l keep its attempts at the service behind it.
func serveFront(t *testing.T, cli *clientv3.Client, conn *etcd.Conn, l *load, lane string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &frontServer{"front-" + lane, newHello(t, conn, append(append(l.options(), hopOptions()...), anyErrorAgain())...)}
	svr := hello.NewServer(s, append(onGonet(ln), server.WithMetaHandler(transmeta.ServerTTHeaderHandler))...)
	ran := make(chan error, 1)
	go func() { ran <- svr.Run() }()
	t.Cleanup(func() {
		if err := errors.Join(svr.Stop(), <-ran); err != nil {
			t.Error(err)
		}
	})
	putTagged(t, cli, "Front", ln.Addr().String(), "lane", lane)
}

// TestLanesOverTwoHops has a lane that only a part of the services has servers in: Front has one in lane x, and Hello behind it has one
// that comes and goes. What the lane has is called in the lane, and what it has not in the base, at once, and no call fails. Nobody goes to
// another lane's.
func TestLanesOverTwoHops(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Start(t)
	cli := etcdClient(t, cluster.Endpoints())
	conn := connect(t, cluster)
	var base []string
	for range 3 {
		base = append(base, serveHello(t).addr)
		putTagged(t, cli, "Hello", base[len(base)-1], "lane", "")
	}
	putTagged(t, cli, "Hello", serveHello(t).addr, "lane", "y")
	lane := startLane(t, cluster)
	key := record.Key(etcd.DefaultPrefix, "Hello", lane.addr)
	l := new(load) // of Front in lane x
	serveFront(t, cli, conn, l, "x")
	serveFront(t, cli, conn, new(load), "")
	c, err := hello.NewClient("Front", append(conn.ClientOptions(hopOptions()...), closedAfter(t))...)
	if err != nil {
		t.Fatal(err)
	}
	var toLane, toBase atomic.Int64 // calls of lane x, by where they ended behind Front
	ctx, cancel := context.WithCancel(t.Context())
	var callers sync.WaitGroup
	defer callers.Wait()
	defer cancel()
	for i := range 4 {
		in, there := []string{"x", "x", "x", ""}[i], lane.addr
		callers.Go(func() {
			call := metainfo.WithPersistentValue(context.Background(), "lane", in)
			for n := 0; ctx.Err() == nil; n++ {
				resp, err := c.Echo(call, &api.Request{Message: fmt.Sprint(i, n)})
				if err != nil {
					t.Errorf("a call of lane %q: %v", in, err)
					continue
				}
				front, back, _ := strings.Cut(resp.Message, " ")
				switch {
				case front != "front-"+in:
					t.Errorf("a call of lane %q went to %s", in, front)
				case in == "x" && back == there:
					toLane.Add(1)
				case !slices.Contains(base, back):
					t.Errorf("a call of lane %q went to %s behind Front", in, back)
				case in == "x":
					toBase.Add(1)
				}
			}
		})
	}

	// first is how long after since the first attempt at one of the base began, or at the lane's.
	first := func(since time.Time, addrs ...string) time.Duration {
		soonest := time.Hour
		for _, addr := range addrs {
			for _, a := range l.at(addr, since) {
				soonest = min(soonest, a.begun.Sub(since))
			}
		}
		return soonest
	}
	gone := func(what string, since time.Time) {
		t.Helper()
		goes(t, what+": its calls go to the base", &toBase, &toLane)
		late, last := l.lateness(lane.addr, since)
		t.Logf("%s: the first call went to the base after %v; %d began to its server later, the last after %v", what, first(since, base...), late, last)
		if last > pickLimit {
			t.Errorf("%s: its server was called %v after", what, last)
		}
	}
	returns := func() {
		t.Helper()
		told := changed(t, cli, key)
		lane = startLane(t, cluster, childAddr+"="+lane.addr)
		since := <-told
		goes(t, "the lane's server is back", &toLane, &toBase)
		t.Logf("it is back: the first call went to it after %v", first(since, lane.addr))
	}
	goes(t, "the lane's server is there", &toLane, &toBase)
	for range 2 {
		told := changed(t, cli, key)
		lane.stop(t)
		gone("the lane's server left", <-told)
		returns()
		lane.kill(t)
		gone("the lane's server was killed", time.Now())
		returns()
	}
	t.Logf("%d calls of the lane ended in it, %d in the base", toLane.Load(), toBase.Load())
}
