package test

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cloudwego/kitex/client"
	"github.com/cloudwego/kitex/pkg/endpoint"
	"github.com/cloudwego/kitex/pkg/klog"
	"github.com/cloudwego/kitex/pkg/registry"
	"github.com/cloudwego/kitex/pkg/rpcinfo"
	"github.com/cloudwego/kitex/server"
	clientv3 "go.etcd.io/etcd/client/v3"

	chatservice "github.com/kitex-contrib/kitex-etcd/golden/protobuf_streaming/kitex_gen/pb/chat/chat"
	streamx "github.com/kitex-contrib/kitex-etcd/golden/thrift_streamx/kitex_gen/api/chat"
	"github.com/kitex-contrib/kitex-etcd/golden/thrift_unary/kitex_gen/api"
	"github.com/kitex-contrib/kitex-etcd/golden/thrift_unary/kitex_gen/api/hello"
	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
	"github.com/kitex-contrib/kitex-etcd/runtime/etcdtest"
)

// A server that is killed, stopped or hangs is a process of its own: this test binary, started again.

const (
	childEtcd = "KITEX_ETCD_TEST_ENDPOINTS" // makes a process a child
	childTTL  = "KITEX_ETCD_TEST_TTL"
	// childService is the service that a child serves: Chat, with streams over gRPC, StreamX, with those of TTHeader, or else
	// Hello.
	childService = "KITEX_ETCD_TEST_SERVICE"
	// childAddr is where a child listens; a free port without it.
	childAddr = "KITEX_ETCD_TEST_ADDR"
	// childLane is the value of the tag "lane" that a child registers with; no tag without it.
	childLane = "KITEX_ETCD_TEST_LANE"
)

// childMain runs and exits in a process that a test started, and returns in every other. It is a server as a user writes it. It prints its
// address when it is registered, or starts drained.
func childMain() {
	endpoints := os.Getenv(childEtcd)
	if endpoints == "" {
		return
	}
	klog.SetLevel(klog.LevelFatal)
	go func() { // whoever started it is gone
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(3)
	}()
	if err := serveChild(strings.Split(endpoints, ",")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func serveChild(endpoints []string) error {
	ttl, err := time.ParseDuration(os.Getenv(childTTL))
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp", cmp.Or(os.Getenv(childAddr), "127.0.0.1:0"))
	if err != nil {
		return err
	}
	addr := ln.Addr().String()
	conn, err := etcd.Connect(endpoints, etcd.WithLeaseTTL(ttl), etcd.WithEventHandler(func(ev etcd.Event) {
		if ev.Type == etcd.EventRegistered || ev.Type == etcd.EventDrained {
			fmt.Println(addr)
		}
	}))
	if err != nil {
		return err
	}
	defer conn.Close()
	var svr server.Server
	opts := []server.Option{server.WithListener(ln)}
	if lane := os.Getenv(childLane); lane != "" {
		opts = append(opts, server.WithRegistryInfo(&registry.Info{Tags: map[string]string{"lane": lane}}))
	}
	switch os.Getenv(childService) {
	case "Chat":
		svr, err = chatservice.NewChatServerWithEtcd(&chatServer{addr: addr}, conn, opts...)
	case "StreamX":
		svr, err = streamx.NewChatServerWithEtcd(&streamxServer{addr: addr}, conn, opts...)
	default:
		svr, err = hello.NewHelloServerWithEtcd(&helloServer{addr: addr}, conn, opts...)
	}
	if err != nil {
		return err
	}
	return svr.Run()
}

// child is a running server process.
type child struct {
	cmd   *exec.Cmd
	stdin io.Closer
	addr  string
}

// startChildren starts n servers and returns when they are registered. They are killed with the test.
func startChildren(t *testing.T, cluster *etcdtest.Cluster, ttl time.Duration, n int) []*child {
	t.Helper()
	children := make([]*child, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			c, err := startChild(t, cluster, ttl)
			if err != nil {
				t.Errorf("start a server: %v", err)
			}
			children[i] = c
		})
	}
	all.Wait()
	if t.Failed() {
		t.FailNow()
	}
	return children
}

// again returns the command that runs the test t again, alone in a process; nil in that process.
func again(t *testing.T) *exec.Cmd {
	const variable = "KITEX_ETCD_TEST_AGAIN"
	if os.Getenv(variable) == t.Name() {
		return nil
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), variable+"="+t.Name())
	return cmd
}

// startChild starts a server and returns when it is registered, or drained; env are more variables of its environment.
func startChild(t *testing.T, cluster *etcdtest.Cluster, ttl time.Duration, env ...string) (*child, error) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEtcd+"="+strings.Join(cluster.Endpoints(), ","), childTTL+"="+ttl.String())
	cmd.Env = append(cmd.Env, env...)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	return &child{cmd, stdin, strings.TrimSpace(line)}, err
}

func (c *child) signal(t *testing.T, s os.Signal) {
	t.Helper()
	if s == nil {
		t.Skip("no signal stops a process here")
	}
	if err := c.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// stop stops the server as a supervisor does and waits until it is gone.
func (c *child) stop(t *testing.T) {
	t.Helper()
	c.signal(t, syscall.SIGTERM)
	if err := c.cmd.Wait(); err != nil {
		t.Errorf("server %s: %v", c.addr, err)
	}
}

// waitRecord polls until the record of addr stands, or does not, and returns how long that took.
func waitRecord(t *testing.T, cli *clientv3.Client, addr string, stands bool) time.Duration {
	t.Helper()
	begin := time.Now()
	for time.Since(begin) < 30*time.Second {
		resp, err := cli.Get(context.Background(), etcd.DefaultPrefix+"/Hello/"+addr)
		if err == nil && (resp.Count == 1) == stands {
			return time.Since(begin)
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("the record of %s: want it to stand: %v", addr, stands)
	return 0
}

// traffic calls at 200 requests per second until stop.
type traffic struct {
	calls, failed atomic.Int64
	attempts      atomic.Int64 // that failed, hidden by Kitex's choice of another instance or not
	stop          func()
	mu            sync.Mutex
	errs          map[string]int
}

func startTraffic(t *testing.T, conn *etcd.Conn, opts ...client.Option) *traffic {
	t.Helper()
	tr := &traffic{errs: make(map[string]int)}
	// A loaded machine takes longer than Kitex's 50 ms to connect. What is gone refuses at once.
	opts = append(opts, client.WithConnectTimeout(2*time.Second), client.WithRPCTimeout(5*time.Second))
	cli := newHello(t, conn, append(opts, client.WithInstanceMW(
		func(next endpoint.Endpoint) endpoint.Endpoint {
			return func(ctx context.Context, req, resp any) error {
				err := next(ctx, req, resp)
				if err != nil {
					tr.attempts.Add(1)
					tr.note(fmt.Sprintf("%v: %v", rpcinfo.GetRPCInfo(ctx).To().Address(), err))
				}
				return err
			}
		}))...)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		var calls sync.WaitGroup
		defer calls.Wait()
		ticker := time.NewTicker(5 * time.Millisecond)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				calls.Go(func() {
					tr.calls.Add(1)
					if _, err := cli.Echo(context.Background(), &api.Request{Message: "hi"}); err != nil {
						tr.failed.Add(1)
						tr.note(err.Error())
					}
				})
			case <-ctx.Done():
				return
			}
		}
	}()
	var once sync.Once
	tr.stop = func() { once.Do(func() { cancel(); <-done }) }
	t.Cleanup(tr.stop)
	return tr
}

func (tr *traffic) note(what string) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.errs[what]++
}

// check stops the traffic and fails the test for every failed attempt or call.
func (tr *traffic) check(t *testing.T) {
	t.Helper()
	tr.stop()
	calls, failed, attempts := tr.calls.Load(), tr.failed.Load(), tr.attempts.Load()
	t.Logf("%d calls, %d failed, %d failed attempts", calls, failed, attempts)
	if calls == 0 {
		t.Error("there were no calls")
	}
	if failed+attempts != 0 {
		t.Errorf("want no failures: %v", tr.errs)
	}
}

func TestFaultServerKilled(t *testing.T) {
	t.Parallel()
	const ttl = 2 * time.Second
	cluster := etcdtest.Start(t)
	cli := etcdClient(t, cluster.Endpoints())
	children := startChildren(t, cluster, ttl, 2)
	children[0].signal(t, os.Kill)
	t.Logf("gone %v after kill -9, with a TTL of %v", waitRecord(t, cli, children[0].addr, false), ttl)
	waitRecord(t, cli, children[1].addr, true)
}

// TestFaultServerHangs also is the process that sleeps past its lease and wakes up.
func TestFaultServerHangs(t *testing.T) {
	t.Parallel()
	const ttl = 2 * time.Second
	cluster := etcdtest.Start(t)
	cli := etcdClient(t, cluster.Endpoints())
	c := startChildren(t, cluster, ttl, 1)[0]
	for range 2 {
		c.signal(t, sigStop)
		t.Logf("gone %v after SIGSTOP, with a TTL of %v", waitRecord(t, cli, c.addr, false), ttl)
		c.signal(t, sigContinue)
		t.Logf("back %v after SIGCONT", waitRecord(t, cli, c.addr, true))
	}
	c.stop(t)
	waitRecord(t, cli, c.addr, false)
}

func TestFaultGracefulStop(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string][]client.Option{
		"short connections": nil,
		"long connections":  {longPool()},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cluster := etcdtest.Start(t)
			children := startChildren(t, cluster, 10*time.Second, 3)
			tr := startTraffic(t, connect(t, cluster), opts...)
			children[0].stop(t)
			children[1].stop(t)
			tr.check(t)
		})
	}
}

func TestFaultRollingRestart(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Start(t)
	old := startChildren(t, cluster, 10*time.Second, 3)
	tr := startTraffic(t, connect(t, cluster), longPool())
	for _, c := range old {
		startChildren(t, cluster, 10*time.Second, 1)
		c.stop(t)
	}
	tr.check(t)
}

func TestFaultEtcdIsDownWhenServersStart(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Start(t)
	cluster.Stop()
	conn := connect(t, cluster)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	svr, err := hello.NewHelloServerWithEtcd(&helloServer{}, conn, onGonet(ln)...)
	if err != nil {
		t.Fatal(err)
	}
	if err := svr.Run(); err == nil || !strings.Contains(err.Error(), cluster.Endpoints()[0]) {
		t.Errorf("Run returned %v, want an error that names etcd", err)
	}
}

// TestServerOfAClosedConn: what is wrong with a Conn or a name is the error of Run.
func TestServerOfAClosedConn(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Start(t)
	conn := connect(t, cluster)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	svr, err := hello.NewHelloServerWithEtcd(&helloServer{}, conn, onGonet(ln)...)
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	if err := svr.Run(); !errors.Is(err, etcd.ErrClosed) {
		t.Errorf("Run returned %v, want ErrClosed", err)
	}
}
