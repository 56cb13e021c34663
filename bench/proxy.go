package main

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
)

// proxy forwards connections to etcd and counts them and their bytes.
type proxy struct {
	listener net.Listener
	target   string
	conns    atomic.Int64 // open ones
	bytes    atomic.Int64 // of both directions
}

// proxy returns one in front of the family's etcd, which ends with the family.
func (b *bench) proxy() (*proxy, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &proxy{listener: ln, target: b.etcd.endpoints[0]}
	go p.accept()
	b.cleanup(func() { ln.Close() })
	return p, nil
}

func (p *proxy) endpoints() []string { return []string{p.listener.Addr().String()} }

func (p *proxy) accept() {
	for {
		near, err := p.listener.Accept()
		if err != nil {
			return
		}
		go p.serve(near)
	}
}

// serve carries a connection until either end hangs up.
func (p *proxy) serve(near net.Conn) {
	defer near.Close()
	far, err := net.Dial("tcp", p.target)
	if err != nil {
		return
	}
	defer far.Close()
	p.conns.Add(1)
	defer p.conns.Add(-1)
	var both sync.WaitGroup
	carry := func(to, from net.Conn) {
		_, _ = io.Copy(io.MultiWriter(to, counter{&p.bytes}), from)
		to.Close()
		from.Close()
	}
	both.Go(func() { carry(near, far) })
	both.Go(func() { carry(far, near) })
	both.Wait()
}

type counter struct{ n *atomic.Int64 }

func (c counter) Write(b []byte) (int, error) {
	c.n.Add(int64(len(b)))
	return len(b), nil
}
