// Package faultproxy is a proxy between a client and a server, and plays the network
// faults that neither can play for itself: connections cut, refused, held, slow, or open
// but dead. It is for tests only.
//
// It is not built on Shopify/toxiproxy, the well-kept library for this, because that
// one closes black-holed connections when an end hangs up or the fault ends (a
// dead network does neither), cannot hold bytes and let them go, and cannot be
// used in-process without its HTTP API, metrics and logging.
package faultproxy

import (
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// A Proxy forwards TCP connections to a target until told otherwise. Its methods
// may be called concurrently.
type Proxy struct {
	addr    string
	running sync.WaitGroup

	there, back line // to the target, and from it

	mu       sync.Mutex
	target   string // of new connections
	listener net.Listener
	changed  sync.Cond // the mode, or a link's state
	mode     mode
	links    map[*link]struct{}
	made     int        // how many links there ever were
	fillers  []net.Conn // of the queue of connections that nobody accepts, while packets are dropped
}

type mode int

const (
	forward mode = iota
	pause
	blackHole
	refuse
	drop
)

// A link is one client's connection and its counterpart to the target.
type link struct {
	client net.Conn

	// Guarded by the proxy's mutex:
	server net.Conn // nil until dialed
	dead   bool     // carries nothing any more
	cut    bool     // both ends are closed
}

// Start runs a proxy in front of target (host:port) for as long as the test t.
func Start(t testing.TB, target string) *Proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("faultproxy: %v", err)
	}
	p := &Proxy{target: target, addr: listener.Addr().String(), listener: listener, links: make(map[*link]struct{})}
	p.changed.L = &p.mu
	p.running.Go(func() { p.accept(listener) })
	t.Cleanup(p.close)
	return p
}

// Addr returns the address to connect to instead of the target's.
func (p *Proxy) Addr() string { return p.addr }

// Conns returns the number of connections that clients have open, or, if black-holed,
// believe to have open.
func (p *Proxy) Conns() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.links)
}

// Made returns the number of connections that clients made since the start.
func (p *Proxy) Made() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.made
}

// Target has new connections go to another target.
func (p *Proxy) Target(target string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = target
}

// Forward ends every fault but a Line. What Pause held is delivered; what BlackHole swallowed is
// lost, and so are the connections that were open under it: only new ones work.
func (p *Proxy) Forward() { p.set(forward) }

// Pause holds every byte, of new connections too, until the mode changes.
func (p *Proxy) Pause() { p.set(pause) }

// BlackHole swallows every byte. Connections stay open, new ones are accepted,
// nothing answers, and no end learns that the other hung up.
func (p *Proxy) BlackHole() { p.set(blackHole) }

// Refuse resets every connection, open or new.
func (p *Proxy) Refuse() {
	p.set(refuse)
	p.Cut()
}

// Shut stops listening and resets every connection: the kernel refuses new ones, as it does for a process that is gone.
func (p *Proxy) Shut() {
	p.mu.Lock()
	p.listener.Close()
	p.mu.Unlock()
	p.Cut()
}

// Open listens again after Shut, at the same address.
func (p *Proxy) Open(t testing.TB) {
	t.Helper()
	listener, err := net.Listen("tcp", p.addr)
	if err != nil {
		t.Fatalf("faultproxy: %v", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.listener = listener
	p.running.Go(func() { p.accept(listener) })
}

// Cut resets every open connection; new ones fare as the mode has it.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		l.reset()
	}
	p.changed.Broadcast()
}

func (p *Proxy) set(m mode) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mode = m
	if m != drop {
		for _, c := range p.fillers {
			c.Close()
		}
		p.fillers = nil
	}
	if m == blackHole || m == drop {
		for l := range p.links {
			l.dead = true
		}
	}
	p.changed.Broadcast()
}

func (p *Proxy) close() {
	p.set(refuse)
	p.Shut()
	p.running.Wait()
}

func (p *Proxy) accept(listener net.Listener) {
	for {
		p.mu.Lock()
		for p.mode == drop {
			p.changed.Wait()
		}
		p.mu.Unlock()
		client, err := listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		l := &link{client: client}
		p.mu.Lock()
		p.links[l] = struct{}{}
		p.made++
		switch p.mode {
		case refuse:
			l.reset()
		case blackHole, drop:
			l.dead = true
		}
		p.mu.Unlock()
		p.running.Go(func() { p.serve(l) })
	}
}

// serve carries l's bytes until both ends have hung up or l was reset.
func (p *Proxy) serve(l *link) {
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		l.close()
		delete(p.links, l)
	}()
	if !p.carries(l) {
		io.Copy(io.Discard, l.client)
		return
	}
	p.mu.Lock()
	target := p.target
	p.mu.Unlock()
	server, err := net.DialTimeout("tcp", target, 5*time.Second)
	if err != nil {
		p.reset(l)
		return
	}
	p.mu.Lock()
	l.server = server
	if l.cut {
		l.reset()
	}
	p.mu.Unlock()
	var pumps sync.WaitGroup
	pumps.Go(func() { p.pump(l, server, p.through(&p.there, l.client)) })
	pumps.Go(func() { p.pump(l, l.client, p.through(&p.back, server)) })
	pumps.Wait()
}

func (p *Proxy) pump(l *link, dst net.Conn, src io.Reader) {
	buf := make([]byte, 32<<10)
	for {
		n, err := src.Read(buf)
		if !p.carries(l) {
			io.Copy(io.Discard, src)
			return
		}
		if _, werr := dst.Write(buf[:n]); werr != nil {
			err = werr
		}
		if err == io.EOF {
			dst.(*net.TCPConn).CloseWrite()
			return
		}
		if err != nil {
			p.reset(l)
			io.Copy(io.Discard, src)
			return
		}
	}
}

// carries reports whether l may pass on what it has read, once no pause holds it.
func (p *Proxy) carries(l *link) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.mode == pause && !l.dead {
		p.changed.Wait()
	}
	return !l.dead
}

func (p *Proxy) reset(l *link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l.reset()
}

// reset closes both ends the hard way: what is on its way is lost.
func (l *link) reset() {
	l.client.(*net.TCPConn).SetLinger(0)
	if l.server != nil {
		l.server.(*net.TCPConn).SetLinger(0)
	}
	l.close()
}

func (l *link) close() {
	l.dead, l.cut = true, true
	l.client.Close()
	if l.server != nil {
		l.server.Close()
	}
}
