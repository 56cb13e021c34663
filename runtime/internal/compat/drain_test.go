package compat

import (
	"context"
	"errors"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cloudwego/kitex/client"
	"github.com/cloudwego/kitex/pkg/remote/trans/gonet"
	kitexserver "github.com/cloudwego/kitex/server"

	"github.com/kitex-contrib/kitex-etcd/golden/thrift_unary/kitex_gen/api"
	"github.com/kitex-contrib/kitex-etcd/golden/thrift_unary/kitex_gen/api/hello"
	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
	"github.com/kitex-contrib/kitex-etcd/runtime/etcdtest"
)

// place is a server of Hello that answers with its address.
type place struct{ addr string }

func (p *place) Echo(context.Context, *api.Request) (*api.Response, error) {
	return &api.Response{Message: p.addr}, nil
}

// servePlace runs a server, registered by kitex-etcd, and returns its address. It is on Kitex's gonet, as it shares its process.
func servePlace(t *testing.T, cluster *etcdtest.Cluster) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	conn, err := etcd.Connect(cluster.Endpoints())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	svr, err := hello.NewHelloServerWithEtcd(&place{ln.Addr().String()}, conn, kitexserver.WithListener(ln),
		kitexserver.WithTransServerFactory(gonet.NewTransServerFactory()), kitexserver.WithTransHandlerFactory(gonet.NewSvrTransHandlerFactory()),
		kitexserver.WithExitSignal(func() <-chan error { return nil }))
	if err != nil {
		t.Fatal(err)
	}
	ran := make(chan error, 1)
	go func() { ran <- svr.Run() }()
	t.Cleanup(func() {
		if err := errors.Join(svr.Stop(), <-ran); err != nil {
			t.Error(err)
		}
	})
	return ln.Addr().String()
}

// caller calls Hello one call after the other, 200 times a second, and remembers who answered last when.
type caller struct {
	name  string
	calls int
	begun time.Time // the last call that was answered

	mu   sync.Mutex
	last map[string]time.Time // by address: when the last call began that it answered
}

func call(t *testing.T, name string, cli hello.Client) *caller {
	t.Helper()
	c := &caller{name: name, last: make(map[string]time.Time)}
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() {
		ticker := time.NewTicker(5 * time.Millisecond)
		defer ticker.Stop()
		for ctx.Err() == nil {
			<-ticker.C
			begun := time.Now()
			resp, err := cli.Echo(context.Background(), &api.Request{Message: "hi"})
			if err != nil {
				t.Errorf("a call of %s failed: %v", name, err)
				return
			}
			c.mu.Lock()
			c.calls++
			c.begun, c.last[resp.Message] = begun, begun
			c.mu.Unlock()
		}
	})
	t.Cleanup(func() {
		cancel()
		done.Wait()
		t.Logf("%s: %d calls", name, c.calls)
	})
	return c
}

// wait waits until cond is true of the last call and of the last one that addr answered; the zero time if it answered none.
func (c *caller) wait(t *testing.T, what, addr string, cond func(last, at time.Time) bool) {
	t.Helper()
	for begin := time.Now(); !t.Failed(); time.Sleep(10 * time.Millisecond) {
		c.mu.Lock()
		last, at := c.begun, c.last[addr]
		c.mu.Unlock()
		if cond(last, at) {
			t.Logf("%s: %s after %v", c.name, what, time.Since(begin).Round(time.Millisecond))
			return
		}
		if time.Since(begin) > 30*time.Second {
			t.Fatalf("%s: not within 30 s: %s", c.name, what)
		}
	}
	t.FailNow()
}

// TestCommandDrainsForRegistryEtcd: an operator takes a server out with the command, and back. Clients of both libraries follow, ours at once,
// those of registry-etcd when Kitex asks it next, every 5 s. No call of either fails.
func TestCommandDrainsForRegistryEtcd(t *testing.T) {
	command := filepath.Join(t.TempDir(), "kitex-etcd")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", command, "./cmd/kitex-etcd")
	build.Dir = "../../.."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	cluster := etcdtest.Start(t)
	addrs := []string{servePlace(t, cluster), servePlace(t, cluster), servePlace(t, cluster)}
	for _, addr := range addrs {
		waitForRecord(t, newClient(t, cluster, "", ""), prefix+"/Hello/"+addr)
	}
	var callers []*caller
	conn, err := etcd.Connect(cluster.Endpoints())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	resolver, err := theirs.resolver(cluster.Endpoints(), prefix)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		opts []client.Option
	}{{ours.name, conn.ClientOptions()}, {theirs.name, []client.Option{client.WithResolver(resolver)}}} {
		cli, err := hello.NewClient("Hello", append(c.opts, client.WithShortConnection(), client.WithConnectTimeout(2*time.Second), client.WithRPCTimeout(5*time.Second))...)
		if err != nil {
			t.Fatal(err)
		}
		callers = append(callers, call(t, c.name, cli))
	}
	operator := func(args ...string) {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), command, append(args, "--endpoints", strings.Join(cluster.Endpoints(), ","))...).CombinedOutput()
		if err != nil {
			t.Fatalf("kitex-etcd %q: %v: %s", args, err, out)
		}
	}
	called := func(what string) {
		t.Helper()
		since := time.Now()
		for _, c := range callers {
			c.wait(t, what, addrs[0], func(_, at time.Time) bool { return at.After(since) })
		}
	}
	called("calls the server")
	operator("drain", "Hello", addrs[0])
	drained := time.Now()
	for i, c := range callers {
		// For longer than the refresh nobody may come back to it.
		c.wait(t, "has left the server alone for 6 s", addrs[0], func(last, at time.Time) bool { return last.Sub(at) > 6*time.Second })
		c.mu.Lock()
		late := c.last[addrs[0]].Sub(drained)
		c.mu.Unlock()
		t.Logf("%s: called the server last %v after it was drained", c.name, late)
		if limit := []time.Duration{time.Second, 8 * time.Second}[i]; late > limit {
			t.Errorf("%s called the server %v after it was drained, want %v at most", c.name, late, limit)
		}
	}
	operator("undrain", "Hello", addrs[0])
	called("calls the server again")
}
