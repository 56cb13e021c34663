package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cloudwego/kitex/client"
	"github.com/cloudwego/kitex/client/streamclient"

	"github.com/kitex-contrib/kitex-etcd/example/chain/kitex_gen/shop/checkout"
	"github.com/kitex-contrib/kitex-etcd/example/chain/kitex_gen/shop/prices"
	"github.com/kitex-contrib/kitex-etcd/example/lanes/kitex_gen/lanes/back"
	"github.com/kitex-contrib/kitex-etcd/example/lanes/kitex_gen/lanes/front"
	"github.com/kitex-contrib/kitex-etcd/example/plain/kitex_gen/api/hello"
	"github.com/kitex-contrib/kitex-etcd/example/streaming/kitex_gen/pb"
	"github.com/kitex-contrib/kitex-etcd/example/streaming/kitex_gen/pb/ticker"
	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
	"github.com/kitex-contrib/kitex-etcd/runtime/etcdtest"
)

// The tests run the examples as their readers do: as programs, against an etcd.

// leashVar makes a process of this test binary a leash.
const leashVar = "EXAMPLE_TEST_LEASH"

func TestMain(m *testing.M) {
	if os.Getenv(leashVar) != "" {
		leash(os.Args[1:])
	}
	os.Exit(m.Run())
}

// leash runs a program and stops it the way systemd does when its own standard input ends, which is when the test says
// so, or is gone, however it went.
func leash(args []string) {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	go func() {
		io.Copy(io.Discard, os.Stdin)
		cmd.Process.Signal(syscall.SIGTERM)
		time.AfterFunc(20*time.Second, func() { cmd.Process.Kill() })
	}()
	if err := cmd.Wait(); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", args[0], err)
		os.Exit(1)
	}
	os.Exit(0)
}

// A stage is an etcd of a test, and what looks at it.
type stage struct {
	*testing.T
	endpoints string
	conn      *etcd.Conn
	ctx       context.Context // ends before the test's time does
}

func newStage(t *testing.T) stage {
	t.Parallel()
	cluster := etcdtest.Start(t)
	conn, err := etcd.Connect(cluster.Endpoints())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, errors.New("a minute was not enough"))
	t.Cleanup(cancel)
	return stage{t, cluster.Endpoints()[0], conn, ctx}
}

// await returns the addresses of service as soon as it has n of them.
func (s stage) await(service string, n int) []string {
	s.Helper()
	for instances, err := range s.conn.Watch(s.ctx, service) {
		if err != nil {
			s.Fatal(err)
		}
		if len(instances) == n {
			addrs := make([]string, n)
			for i, instance := range instances {
				addrs[i] = instance.Address().String()
			}
			return addrs
		}
	}
	s.Fatalf("waiting for %d servers of %s: %v", n, service, context.Cause(s.ctx))
	return nil
}

// A program is one of the examples' that runs.
type program struct {
	stage
	name  string
	cmd   *exec.Cmd
	stdin io.Closer
	lines chan string // of its standard output; closed when that ends
}

// start builds a program, such as plain/server, and runs it until it is stopped, which it is at the test's end at the
// latest.
func (s stage) start(name string, args ...string) *program {
	s.Helper()
	file := filepath.Join(s.TempDir(), path.Base(name))
	if out, err := exec.CommandContext(s.ctx, "go", "build", "-o", file, "./"+name).CombinedOutput(); err != nil {
		s.Fatalf("go build ./%s: %v\n%s", name, err, out)
	}
	return s.run(file, args...)
}

// run starts what start has built, once more.
func (s stage) run(file string, args ...string) *program {
	s.Helper()
	self, err := os.Executable()
	if err != nil {
		s.Fatal(err)
	}
	cmd := exec.Command(self, append([]string{file, "-etcd", s.endpoints}, args...)...)
	cmd.Env = append(os.Environ(), leashVar+"=1")
	p := &program{stage: s, name: file, cmd: cmd, lines: make(chan string, 1000)}
	cmd.Stderr = s.Output()
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		s.Fatal(err)
	}
	if p.stdin, err = cmd.StdinPipe(); err != nil {
		s.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		s.Fatal(err)
	}
	go func() {
		defer close(p.lines)
		for scanner := bufio.NewScanner(stdout); scanner.Scan(); {
			p.lines <- scanner.Text()
		}
	}()
	s.Cleanup(p.stop)
	return p
}

// stop stops the program, and fails the test unless the program ends of itself with exit code 0. Further calls do nothing.
func (p *program) stop() {
	p.Helper()
	p.stdin.Close()
	p.wait()
}

// wait returns the lines that are left when the program has ended.
func (p *program) wait() (lines []string) {
	p.Helper()
	for line := range p.lines {
		lines = append(lines, line)
	}
	if p.cmd.ProcessState == nil {
		if err := p.cmd.Wait(); err != nil {
			p.Errorf("%s: %v", p.name, err)
		}
	}
	return lines
}

// await reads lines until every one that is wanted was there, and fails the test at any other.
func (p *program) await(want ...string) {
	p.Helper()
	seen := make(map[string]bool)
	for len(seen) < len(want) {
		select {
		case line, ok := <-p.lines:
			if !ok || !slices.Contains(want, line) {
				p.Fatalf("%s printed %q, want one of %q", p.name, line, want)
			}
			seen[line] = true
		case <-p.ctx.Done():
			p.Fatalf("%s printed %v, want all of %q: %v", p.name, seen, want, context.Cause(p.ctx))
		}
	}
}

func TestPlain(t *testing.T) {
	s := newStage(t)
	first := s.start("plain/server", "-name", "hello-1")
	s.run(first.name, "-name", "hello-2")
	s.await(hello.HelloServiceName, 2)
	client := s.start("plain/client")
	client.await("hello from hello-1", "hello from hello-2")

	first.stop()
	s.await(hello.HelloServiceName, 1)
	client.stdin.Close()
	rest := client.wait()
	if len(rest) == 0 || rest[len(rest)-1] != "hello from hello-2" {
		t.Errorf("after hello-1 stopped: %q", rest)
	}
	for _, line := range rest {
		if !strings.HasPrefix(line, "hello from ") {
			t.Error(line)
		}
	}
}

func TestMulti(t *testing.T) {
	s := newStage(t)
	server := s.start("multi/server")
	if orders, stock := s.await("Orders", 1), s.await("Stock", 1); !slices.Equal(orders, stock) {
		t.Errorf("Orders is at %s, Stock at %s; want one server", orders, stock)
	}
	if lines, want := s.start("multi/client").wait(), []string{"4 apples in stock", "ordered 3 apples"}; !slices.Equal(lines, want) {
		t.Errorf("the client printed %q, want %q", lines, want)
	}
	server.stop()
	s.await("Orders", 0)
	s.await("Stock", 0)
}

func TestStreaming(t *testing.T) {
	s := newStage(t)
	server := s.start("streaming/server")
	s.await(ticker.TickerServiceName, 1)
	client := s.start("streaming/client")
	client.await("tick 1", "tick 2", "tick 3")
	client.stop()

	// A stream outlives the record of its server, until Kitex ends it.
	//lint:ignore SA1019 what shall take its place asks for Kitex's -streamx
	cli, err := ticker.NewTickerStreamClientWithEtcd(s.conn, streamclient.WithConnectTimeout(time.Second))
	if err != nil {
		t.Fatal(err)
	}
	defer runtime.KeepAlive(cli)
	stream, err := cli.Watch(s.ctx, &pb.WatchRequest{IntervalMs: 100})
	if err != nil {
		t.Fatal(err)
	}
	receive := func() error { _, err := stream.Recv(); return err }
	if err := receive(); err != nil {
		t.Fatal(err)
	}
	server.stdin.Close()
	s.await(ticker.TickerServiceName, 0)
	for range 10 {
		if err := receive(); err != nil {
			t.Fatalf("a stream of a server that is being stopped: %v", err)
		}
	}
	for err == nil {
		err = receive()
	}
	if !strings.Contains(err.Error(), "graceful shutdown") {
		t.Errorf("the stream ended with %v", err)
	}
	server.stop()
}

// A server that calls another is stopped while it is called, and every call ends well; the other may come and go.
func TestChain(t *testing.T) {
	s := newStage(t)
	pricing := s.start("chain/prices")
	first := s.start("chain/checkout")
	second := s.run(first.name)
	s.await(prices.PricesServiceName, 1)
	s.await(checkout.CheckoutServiceName, 2)
	if lines, want := s.start("chain/client").wait(), []string{"total 110"}; !slices.Equal(lines, want) {
		t.Errorf("the client printed %q, want %q", lines, want)
	}

	cli, err := checkout.NewCheckoutClientWithEtcd(s.conn, client.WithConnectTimeout(time.Second))
	if err != nil {
		t.Fatal(err)
	}
	total := func() error { _, err := cli.Total(s.ctx, []string{"apples", "pears"}); return err }
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		first.stop()
	}()
	for running := true; running; {
		if err := total(); err != nil {
			t.Errorf("while one server stops: %v", err)
		}
		select {
		case <-stopped:
			running = false
		default:
		}
	}
	s.await(checkout.CheckoutServiceName, 1)

	pricing.stop()
	for err = nil; err == nil; { // checkout hears of it when it does
		err = total()
	}
	if !strings.Contains(err.Error(), "service Prices has no instances") {
		t.Errorf("without Prices: %v", err)
	}
	s.run(pricing.name)
	s.await(prices.PricesServiceName, 1)
	for err != nil && s.ctx.Err() == nil {
		err = total()
	}
	if err != nil {
		t.Errorf("with Prices again: %v", err)
	}
	second.stop()
	s.await(checkout.CheckoutServiceName, 0)
}

func TestLanes(t *testing.T) {
	s := newStage(t)
	base := s.start("lanes/back")
	front1 := s.start("lanes/front")
	s.await(back.BackServiceName, 1)
	s.await(front.FrontServiceName, 1)
	client := func(lane string) string {
		t.Helper()
		lines := s.start("lanes/client", "-lane", lane).wait()
		if len(lines) != 1 {
			t.Fatalf("the client printed %q", lines)
		}
		return lines[0]
	}
	if got := client("blue"); got != "front of base, back of base" {
		t.Errorf("a lane without servers: %s", got)
	}
	blue := s.run(base.name, "-lane", "blue")
	s.await(back.BackServiceName, 2)
	if got := client("blue"); got != "front of base, back of blue" {
		t.Errorf("a lane of one: %s", got)
	}
	if got := client(""); got != "front of base, back of base" {
		t.Errorf("the base: %s", got)
	}
	s.run(front1.name, "-lane", "blue")
	s.await(front.FrontServiceName, 2)
	if got := client("blue"); got != "front of blue, back of blue" {
		t.Errorf("a lane of both: %s", got)
	}
	blue.stop()
	s.await(back.BackServiceName, 1)
	if got := client("blue"); got != "front of blue, back of base" {
		t.Errorf("a lane whose back has left: %s", got)
	}
}
