package main

import (
	"bytes"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"
)

// TestProxy: what the network does to a connection, it does.
func TestProxy(t *testing.T) {
	echo, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer echo.Close()
	go func() {
		for {
			c, err := echo.Accept()
			if err != nil {
				return
			}
			go io.Copy(c, c)
		}
	}()
	b := new(bench)
	defer b.close()
	p, err := b.proxyTo(echo.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	dial := func() net.Conn {
		c, err := net.DialTimeout("tcp", p.addr, 10*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	ping := func(c net.Conn, n int) {
		t.Helper()
		sent, got := bytes.Repeat([]byte("x"), n), make([]byte, n)
		go c.Write(sent)
		if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(sent, got) {
			t.Fatalf("%d bytes: %v", n, err)
		}
	}
	c := dial()
	ping(c, 1<<20)
	if p.bytes.Load() != 2<<20 || p.conns.Load() != 1 || p.made.Load() != 1 {
		t.Errorf("%d bytes, %d connections of %d", p.bytes.Load(), p.conns.Load(), p.made.Load())
	}

	p.narrow(200_000, 10*time.Millisecond)
	begin := time.Now()
	ping(c, 40_000)
	if took := time.Since(begin); took < 200*time.Millisecond { // there: it is the slower for the way back
		t.Errorf("40 kB passed 200 kB/s in %v", took)
	}
	p.narrow(0, 0)

	if err := p.drop(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if n, err := c.Read(make([]byte, 1)); n != 0 || !timedOut(err) {
		t.Errorf("while packets are lost: %d bytes, %v", n, err)
	}
	if _, err := net.DialTimeout("tcp", p.addr, 100*time.Millisecond); !timedOut(err) {
		t.Errorf("a connection while packets are lost: %v, want a timeout", err)
	}
	p.forward()
	_ = c.SetReadDeadline(time.Time{})
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Errorf("what was sent meanwhile does not arrive: %v", err)
	}
	ping(dial(), 1)

	p.shut()
	if _, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("an open connection: %v, want a reset", err)
	}
	if _, err := net.DialTimeout("tcp", p.addr, time.Second); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a new connection: %v, want it refused", err)
	}
	if err := p.open(); err != nil {
		t.Fatal(err)
	}
	ping(dial(), 1)
}

func timedOut(err error) bool {
	var e net.Error
	return errors.As(err, &e) && e.Timeout()
}
