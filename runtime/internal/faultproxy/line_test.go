package faultproxy_test

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"

	"github.com/kitex-contrib/kitex-etcd/runtime/internal/faultproxy"
)

// TestLineIsShared: two connections together get no more than the line's rate, and each gets its turn.
func TestLineIsShared(t *testing.T) {
	p := faultproxy.Start(t, startEcho(t).addr)
	p.Line(200_000, 0)
	begin := time.Now()
	sent := bytes.Repeat([]byte("x"), 50_000)
	var took [2]time.Duration
	conns := []net.Conn{dial(t, p), dial(t, p)}
	done := make(chan struct{})
	for i, c := range conns {
		go c.Write(sent)
		go func() {
			defer func() { done <- struct{}{} }()
			if _, err := io.ReadFull(c, make([]byte, len(sent))); err != nil {
				t.Error(err)
			}
			took[i] = time.Since(begin)
		}()
	}
	<-done
	<-done
	// 100 kB at 200 kB a second; the way back runs beside the way there. A line has no upper bound on a busy machine.
	if slower, quicker := max(took[0], took[1]), min(took[0], took[1]); slower < 450*time.Millisecond {
		t.Errorf("both after %v: faster than the line", slower)
	} else if quicker < slower/4 {
		t.Errorf("one after %v, the other after %v: one was starved", quicker, slower)
	}
}

// TestDelayIsNoLimit: every byte is late, and any number of them is under way at once.
func TestDelayIsNoLimit(t *testing.T) {
	p := faultproxy.Start(t, startEcho(t).addr)
	c := dial(t, p)
	ping(t, c)
	p.Line(0, 100*time.Millisecond)
	begin := time.Now()
	ping(t, c)
	if took := time.Since(begin); took < 200*time.Millisecond {
		t.Errorf("there and back in %v", took)
	}
	sent := bytes.Repeat([]byte("x"), 1<<20)
	go c.Write(sent)
	if _, err := io.ReadFull(c, make([]byte, len(sent))); err != nil {
		t.Error(err) // 700 packets one after the other would take longer than the connection's deadline
	}
	p.Line(0, 0)
	ping(t, c)
	if p.Made() != 1 {
		t.Errorf("Made = %d, want 1", p.Made())
	}
}

// TestTarget: new connections go to the new target, old ones stay.
func TestTarget(t *testing.T) {
	first, second := startEcho(t), startEcho(t)
	p := faultproxy.Start(t, first.addr)
	old := dial(t, p)
	ping(t, old)
	p.Target(second.addr)
	ping(t, dial(t, p))
	ping(t, old)
	if first.received() != 2*len("ping") || second.received() != len("ping") {
		t.Errorf("%d and %d bytes", first.received(), second.received())
	}
	if p.Made() != 2 {
		t.Errorf("Made = %d, want 2", p.Made())
	}
}
