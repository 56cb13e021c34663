package main

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/cloudwego/kitex/pkg/klog"
	"github.com/cloudwego/kitex/server"

	"github.com/kitex-contrib/kitex-etcd/golden/thrift_unary/kitex_gen/api"
	"github.com/kitex-contrib/kitex-etcd/golden/thrift_unary/kitex_gen/api/hello"
	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
	"github.com/kitex-contrib/kitex-etcd/runtime/etcdtest"
)

// Servers under test, and the command in a terminal, are processes of their own: this test binary, started again.
const (
	childEtcd    = "KITEX_ETCD_TEST_ENDPOINTS" // makes a process a server of Hello
	childAddr    = "KITEX_ETCD_TEST_ADDR"      // where it listens; a free port without it
	childCommand = "KITEX_ETCD_TEST_COMMAND"   // makes a process the command
)

func TestMain(m *testing.M) {
	if os.Getenv(childCommand) != "" {
		os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
	}
	if endpoints := os.Getenv(childEtcd); endpoints != "" {
		if err := serveHello(strings.Split(endpoints, ",")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

type helloServer struct{ hello.Client }

func (*helloServer) Echo(_ context.Context, req *api.Request) (*api.Response, error) {
	return &api.Response{Message: req.Message}, nil
}

// serveHello is a server as a user writes it. It prints its address when it is registered, or starts drained.
func serveHello(endpoints []string) error {
	klog.SetLevel(klog.LevelFatal)
	go func() { // whoever started it is gone
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(3)
	}()
	ln, err := net.Listen("tcp", cmp.Or(os.Getenv(childAddr), "127.0.0.1:0"))
	if err != nil {
		return err
	}
	conn, err := etcd.Connect(endpoints, etcd.WithEventHandler(func(ev etcd.Event) {
		if ev.Type == etcd.EventRegistered || ev.Type == etcd.EventDrained {
			fmt.Println(ln.Addr(), ev.Type)
		}
	}))
	if err != nil {
		return err
	}
	defer conn.Close()
	svr, err := hello.NewHelloServerWithEtcd(&helloServer{}, conn, server.WithListener(ln))
	if err != nil {
		return err
	}
	return svr.Run()
}

// helloProcess is a running server.
type helloProcess struct {
	cmd   *exec.Cmd
	addr  string
	lines <-chan string // what it prints
}

// startHello starts a server at addr, or at a free port, and returns when it is registered, or drained.
func startHello(t *testing.T, cluster *etcdtest.Cluster, addr string) *helloProcess {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEtcd+"="+strings.Join(cluster.Endpoints(), ","), childAddr+"="+addr)
	cmd.Stderr = os.Stderr
	_, err := cmd.StdinPipe() // its end is that of this process
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	lines := make(chan string, 100)
	go func() {
		defer close(lines)
		for scanner := bufio.NewScanner(stdout); scanner.Scan(); {
			lines <- scanner.Text()
		}
	}()
	first, ok := <-lines
	if !ok {
		t.Fatal("a server did not start")
	}
	addr, _, _ = strings.Cut(first, " ")
	return &helloProcess{cmd, addr, lines}
}

func (p *helloProcess) stop(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for range p.lines { // until it has ended
	}
	if err := p.cmd.Wait(); err != nil {
		t.Error(err)
	}
}
