package faultproxy

import (
	"net"
	"syscall"
	"testing"
	"time"
)

// Drop loses every packet: open connections are black-holed, and new ones are not made, nor refused. It is Linux that drops
// the request for a connection when the queue of those not accepted is full. Forward ends it.
func (p *Proxy) Drop(t testing.TB) {
	t.Helper()
	p.set(drop)
	raw, err := p.listener.(*net.TCPListener).SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) { _ = syscall.Listen(int(fd), 0) }) // shortens the queue
	}
	if err != nil {
		t.Fatalf("faultproxy: %v", err)
	}
	for {
		c, err := net.DialTimeout("tcp", p.addr, 300*time.Millisecond)
		if err != nil {
			return // full
		}
		p.mu.Lock()
		p.fillers = append(p.fillers, c)
		p.mu.Unlock()
	}
}
