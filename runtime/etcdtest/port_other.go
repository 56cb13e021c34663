//go:build !linux

package etcdtest

import (
	"fmt"
	"net"
)

// reserved says that a port stays ours between reserve and release. Here it is
// only likely to: what shares a port by SO_REUSEPORT differs too much.
const reserved = false

// A port is a loopback address that was free a moment ago.
type port struct{ addr string }

func reserve() (*port, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("find a free port: %w", err)
	}
	defer l.Close()
	return &port{addr: l.Addr().String()}, nil
}

func (p *port) release() {}
