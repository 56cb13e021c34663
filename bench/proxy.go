package main

import (
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// proxy forwards connections to a target and counts them and their bytes. It can be a slow line, and lose what it carries.
type proxy struct {
	addr   string
	target string
	there  line         // to the target
	back   line         // from it
	conns  atomic.Int64 // open ones
	made   atomic.Int64
	bytes  atomic.Int64 // of both directions

	mu       sync.Mutex
	listener net.Listener
	carried  map[*carried]struct{}
	dropping bool
	holding  int        // connections that were accepted and are not made while dropping
	changed  sync.Cond  // dropping or holding has
	fillers  []net.Conn // of the queue of connections that nobody accepts while dropping
}

// carried is a connection and its counterpart to the target.
type carried struct {
	near, far *net.TCPConn
}

// proxy returns one in front of the family's etcd, which ends with the family.
func (b *bench) proxy() (*proxy, error) { return b.proxyTo(b.etcd.endpoints[0]) }

func (b *bench) proxyTo(target string) (*proxy, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &proxy{addr: ln.Addr().String(), target: target, listener: ln, carried: make(map[*carried]struct{})}
	p.changed.L = &p.mu
	go p.accept(ln)
	b.cleanup(func() { p.forward(); p.shut() })
	return p, nil
}

func (p *proxy) endpoints() []string { return []string{p.addr} }

// shut has the kernel refuse connections, as for a process that is gone, and resets those that are open.
func (p *proxy) shut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.listener.Close()
	for c := range p.carried {
		_ = c.near.SetLinger(0)
		_ = c.far.SetLinger(0)
		c.close()
	}
}

// open listens again after shut, at the same address.
func (p *proxy) open() error {
	ln, err := net.Listen("tcp", p.addr)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.listener = ln
	go p.accept(ln)
	return nil
}

// drop loses every packet until forward: open connections carry nothing, new ones are neither made nor refused. It is Linux
// that drops the request for a connection when the queue of those not accepted is full.
func (p *proxy) drop() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dropping = true
	fill := func(timeout time.Duration) error {
		c, err := net.DialTimeout("tcp", p.addr, timeout)
		if err == nil {
			p.fillers = append(p.fillers, c)
		}
		return err
	}
	if err := fill(time.Second); err != nil {
		return err
	}
	for p.holding == 0 { // until nobody accepts
		p.changed.Wait()
	}
	raw, err := p.listener.(*net.TCPListener).SyscallConn()
	if err != nil {
		return err
	}
	if err := raw.Control(func(fd uintptr) { _ = syscall.Listen(int(fd), 0) }); err != nil { // shortens the queue
		return err
	}
	for fill(100*time.Millisecond) == nil { // until it is full
	}
	return nil
}

// forward ends drop. What was sent meanwhile arrives now, as TCP sends it again.
func (p *proxy) forward() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.fillers {
		c.Close()
	}
	p.fillers, p.dropping = nil, false
	p.changed.Broadcast()
}

// await waits while packets are lost; more is what is held for as long.
func (p *proxy) await(more int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.holding += more
	p.changed.Broadcast()
	defer func() { p.holding -= more }()
	for p.dropping {
		p.changed.Wait()
	}
}

func (p *proxy) accept(ln net.Listener) {
	for {
		near, err := ln.Accept()
		if err != nil {
			return
		}
		p.await(1)
		p.made.Add(1)
		go p.serve(near.(*net.TCPConn))
	}
}

// serve carries a connection until either end hangs up.
func (p *proxy) serve(near *net.TCPConn) {
	defer near.Close()
	far, err := net.Dial("tcp", p.target)
	if err != nil {
		return
	}
	c := &carried{near: near, far: far.(*net.TCPConn)}
	defer c.close()
	p.mu.Lock()
	p.carried[c] = struct{}{}
	p.mu.Unlock()
	p.conns.Add(1)
	defer func() {
		p.conns.Add(-1)
		p.mu.Lock()
		delete(p.carried, c)
		p.mu.Unlock()
	}()
	var both sync.WaitGroup
	both.Go(func() { p.carry(c, &p.there, c.far, c.near) })
	both.Go(func() { p.carry(c, &p.back, c.near, c.far) })
	both.Wait()
}

func (c *carried) close() {
	c.near.Close()
	c.far.Close()
}

// carry carries one direction over a line.
func (p *proxy) carry(c *carried, l *line, to, from net.Conn) {
	queue := make(chan packet, 256) // what comes after them waits in the sender's socket
	go func() {
		defer close(queue)
		for {
			buf := make([]byte, l.packet())
			n, err := from.Read(buf)
			queue <- packet{buf[:n], l.due(n)}
			if err != nil {
				return
			}
		}
	}()
	for sent := range queue {
		time.Sleep(time.Until(sent.due)) // the delay of the line, which is what the proxy is for
		p.await(0)
		p.bytes.Add(int64(len(sent.bytes)))
		if _, err := to.Write(sent.bytes); err != nil {
			c.close() // ends the reading
		}
	}
	c.close()
}

type packet struct {
	bytes []byte
	due   time.Time
}

// A line is one direction of the way between clients and target. All connections share it. Without rate and delay it is the
// machine's own.
type line struct {
	mu    sync.Mutex
	rate  int           // bytes a second
	delay time.Duration // on top of the time that the bytes take
	free  time.Time     // when what was sent so far has passed
}

// narrow makes the way there and back carry rate bytes a second each, and every byte delay later.
func (p *proxy) narrow(rate int, delay time.Duration) {
	for _, l := range []*line{&p.there, &p.back} {
		l.mu.Lock()
		l.rate, l.delay, l.free = rate, delay, time.Time{}
		l.mu.Unlock()
	}
}

// packet is how much is carried at once: little where all connections take turns.
func (l *line) packet() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.rate > 0 {
		return 1500
	}
	return 32 << 10
}

// due returns when n bytes that are sent now arrive.
func (l *line) due(n int) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.rate == 0 && l.delay == 0 {
		return time.Time{}
	}
	if now := time.Now(); l.free.Before(now) {
		l.free = now
	}
	if l.rate > 0 {
		l.free = l.free.Add(time.Duration(n) * time.Second / time.Duration(l.rate))
	}
	return l.free.Add(l.delay)
}
