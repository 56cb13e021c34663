package faultproxy_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"

	"github.com/kitex-contrib/kitex-etcd/runtime/etcdtest"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/faultproxy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestForward(t *testing.T) {
	echo := startEcho(t)
	p := faultproxy.Start(t, echo.addr)
	c := dial(t, p)
	ping(t, c)
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	go c.Write(big)
	got := make([]byte, len(big))
	if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, big) {
		t.Errorf("1 MiB through the proxy: %v, equal %v", err, bytes.Equal(got, big))
	}
	if n := p.Conns(); n != 1 {
		t.Errorf("Conns = %d, want 1", n)
	}
	// A half-closed connection still delivers, and then ends.
	if _, err := c.Write([]byte("bye")); err != nil {
		t.Fatal(err)
	}
	c.(*net.TCPConn).CloseWrite()
	if rest, err := io.ReadAll(c); err != nil || string(rest) != "bye" {
		t.Errorf("after CloseWrite: %q, %v; want bye", rest, err)
	}
	waitConns(t, p, 0)
}

func TestPauseHoldsAndForwardDelivers(t *testing.T) {
	p := faultproxy.Start(t, startEcho(t).addr)
	old := dial(t, p)
	ping(t, old)
	p.Pause()
	fresh := dial(t, p)
	for _, c := range []net.Conn{old, fresh} {
		if _, err := c.Write([]byte("held")); err != nil {
			t.Fatal(err)
		}
	}
	p.Forward()
	for _, c := range []net.Conn{old, fresh} {
		got := make([]byte, 4)
		if _, err := io.ReadFull(c, got); err != nil || string(got) != "held" {
			t.Errorf("after the pause: %q, %v; want held", got, err)
		}
	}
}

func TestPauseLetsNothingThrough(t *testing.T) {
	echo := startEcho(t)
	p := faultproxy.Start(t, echo.addr)
	c := dial(t, p)
	ping(t, c)
	before := echo.received()
	p.Pause()
	if _, err := c.Write([]byte("held")); err != nil {
		t.Fatal(err)
	}
	p.Cut() // what was held is gone, so the count is final
	waitConns(t, p, 0)
	echo.stop()
	if after := echo.received(); after != before {
		t.Errorf("%d bytes passed a paused proxy", after-before)
	}
}

func TestBlackHole(t *testing.T) {
	echo := startEcho(t)
	p := faultproxy.Start(t, echo.addr)
	old, hung := dial(t, p), dial(t, p)
	ping(t, old)
	ping(t, hung)
	before := echo.received()

	p.BlackHole()
	fresh := dial(t, p)
	waitConns(t, p, 3)
	for _, c := range []net.Conn{old, hung, fresh} {
		if _, err := c.Write([]byte("lost")); err != nil {
			t.Fatal(err)
		}
	}
	hung.Close()
	p.Forward()
	ping(t, dial(t, p)) // only new connections work again
	if n := p.Conns(); n != 4 {
		t.Errorf("Conns = %d, want 4: nobody learns that one hung up", n)
	}

	p.Cut()
	for name, c := range map[string]net.Conn{"old": old, "fresh": fresh} {
		if got, err := io.ReadAll(c); len(got) != 0 || !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s connection: %q, %v; want nothing until %v", name, got, err, syscall.ECONNRESET)
		}
	}
	waitConns(t, p, 0)
	echo.stop()
	if after := echo.received(); after != before+len("ping") {
		t.Errorf("%d bytes passed a black hole", after-before-len("ping"))
	}
}

func TestRefuse(t *testing.T) {
	p := faultproxy.Start(t, startEcho(t).addr)
	c := dial(t, p)
	ping(t, c)
	p.Refuse()
	if _, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("an open connection: %v, want %v", err, syscall.ECONNRESET)
	}
	if err := tryDial(p); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a new connection: %v, want %v", err, syscall.ECONNRESET)
	}
	p.Forward()
	ping(t, dial(t, p))
}

func TestCutWakesWhatAPauseHolds(t *testing.T) {
	p := faultproxy.Start(t, startEcho(t).addr)
	p.Pause()
	c := dial(t, p)
	if _, err := c.Write([]byte("held")); err != nil {
		t.Fatal(err)
	}
	waitConns(t, p, 1)
	p.Cut()
	waitConns(t, p, 0)
}

func TestTargetDown(t *testing.T) {
	echo := startEcho(t)
	echo.stop()
	p := faultproxy.Start(t, echo.addr)
	if err := tryDial(p); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a connection to a target that is down: %v, want %v", err, syscall.ECONNRESET)
	}
}

// The real thing: an etcd client rides out every fault.
func TestEtcdClient(t *testing.T) {
	cluster := etcdtest.Start(t)
	p := faultproxy.Start(t, cluster.Endpoints()[0])
	cli, err := clientv3.New(clientv3.Config{Endpoints: []string{p.Addr()}})
	if err != nil {
		t.Fatal(err)
	}
	defer cli.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	watch := cli.Watch(ctx, "k")
	for name, fault := range map[string]func(){"pause": p.Pause, "black hole": p.BlackHole, "refuse": p.Refuse} {
		t.Run(name, func(t *testing.T) {
			if _, err := cli.Get(ctx, "k"); err != nil {
				t.Fatal(err)
			}
			fault()
			short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
			defer cancel()
			if _, err := cli.Get(short, "k"); err == nil {
				t.Error("a Get passed the faulty proxy")
			}
			p.Forward()
			p.Cut() // or a black-holed connection would stay dead
			for {
				if _, err := cli.Put(ctx, "k", name); err == nil {
					break
				} else if ctx.Err() != nil {
					t.Fatal(err)
				}
			}
			if r := <-watch; r.Err() != nil || len(r.Events) != 1 {
				t.Errorf("watch: %+v", r)
			}
		})
	}
}

// echo answers what it is sent, until every client hung up.
type echo struct {
	addr     string
	listener net.Listener
	wg       sync.WaitGroup

	mu    sync.Mutex
	bytes int
}

func startEcho(t *testing.T) *echo {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	e := &echo{addr: l.Addr().String(), listener: l}
	e.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			e.wg.Go(func() { e.serve(c) })
		}
	})
	t.Cleanup(e.stop)
	return e
}

func (e *echo) serve(c net.Conn) {
	defer c.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := c.Read(buf)
		e.mu.Lock()
		e.bytes += n
		e.mu.Unlock()
		if err != nil {
			return
		}
		if _, err := c.Write(buf[:n]); err != nil {
			return
		}
	}
}

// stop waits for the clients to hang up.
func (e *echo) stop() {
	e.listener.Close()
	e.wg.Wait()
}

func (e *echo) received() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.bytes
}

func dial(t *testing.T, p *faultproxy.Proxy) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(30 * time.Second))
	t.Cleanup(func() { c.Close() })
	return c
}

// tryDial returns how a connection ends that nothing is sent on.
func tryDial(p *faultproxy.Proxy) error {
	c, err := net.Dial("tcp", p.Addr())
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = io.ReadAll(c)
	return err
}

func ping(t *testing.T, c net.Conn) {
	t.Helper()
	if _, err := c.Write([]byte("ping")); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 4)
	if _, err := io.ReadFull(c, got); err != nil || string(got) != "ping" {
		t.Fatalf("ping: %q, %v", got, err)
	}
}

func waitConns(t *testing.T, p *faultproxy.Proxy, want int) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for p.Conns() != want {
		if time.Now().After(deadline) {
			t.Fatalf("Conns = %d, want %d", p.Conns(), want)
		}
		time.Sleep(time.Millisecond)
	}
}

// TestDrop: no connection is made, nor refused, and the open ones are dead; after it new ones work.
func TestDrop(t *testing.T) {
	target, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	go func() {
		for {
			c, err := target.Accept()
			if err != nil {
				return
			}
			go io.Copy(c, c)
		}
	}()
	p := faultproxy.Start(t, target.Addr().String())
	p.Drop(t)
	_, err = net.DialTimeout("tcp", p.Addr(), 300*time.Millisecond)
	if timeout, ok := err.(net.Error); !ok || !timeout.Timeout() {
		t.Fatalf("a connection while packets are dropped: %v, want a timeout", err)
	}
	p.Forward()
	c, err := net.DialTimeout("tcp", p.Addr(), 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Errorf("after it: %v", err)
	}
}
