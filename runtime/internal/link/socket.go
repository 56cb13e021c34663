package link

import (
	"context"
	"net"
	"strings"
	"sync/atomic"
	"time"
)

// socket is one connection to etcd. It knows when bytes last arrived: as long as they do, the connection is alive, however late
// a single answer is.
type socket struct {
	net.Conn
	link  *Link
	heard atomic.Int64 // when bytes last arrived, in Unix nanoseconds
}

func (s *socket) Read(b []byte) (n int, err error) {
	if n, err = s.Conn.Read(b); n > 0 {
		now := time.Now().UnixNano()
		s.heard.Store(now)
		s.link.heard.Store(now)
	}
	return n, err
}

func (s *socket) Close() error {
	s.link.mu.Lock()
	delete(s.link.sockets, s)
	s.link.mu.Unlock()
	return s.Conn.Close()
}

// dial opens a socket and remembers it. Why it cannot is kept for Explain: the calls that wait for a connection do not say it.
func (l *Link) dial(ctx context.Context, addr string) (net.Conn, error) {
	network := "tcp"
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		network, addr = "unix", strings.TrimPrefix(path, "//")
	}
	dialer := net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: keepaliveTime, Interval: keepaliveTimeout, Count: 1}}
	conn, err := dialer.DialContext(ctx, network, addr)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		if ctx.Err() != context.Canceled { // gRPC gave the attempt up
			l.trouble = err
		}
		return nil, err
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		setUserTimeout(tcp, keepaliveTimeout)
	}
	s := &socket{Conn: conn, link: l}
	s.heard.Store(time.Now().UnixNano())
	l.sockets[s] = struct{}{}
	return s, nil
}

// socketAt returns the socket with the local address addr, nil if there is none.
func (l *Link) socketAt(addr net.Addr) *socket {
	if addr == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for s := range l.sockets {
		if local := s.LocalAddr(); local == addr || local.String() == addr.String() {
			return s
		}
	}
	return nil
}

// closeSockets closes every socket, or the one given: gRPC connects anew at once. It must not be called often; see mayReset.
func (l *Link) closeSockets(only *socket) {
	var sockets []*socket
	l.mu.Lock()
	for s := range l.sockets {
		if only == nil || s == only {
			sockets = append(sockets, s)
		}
	}
	l.mu.Unlock()
	for _, s := range sockets {
		_ = s.Close()
	}
}
