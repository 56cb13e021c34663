package etcdtest

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// reserved says that a port stays ours between reserve and release.
const reserved = true

// A port is a loopback address bound by a socket that never listens. Nobody else
// is given the port, connections to it are refused, and etcd, which shares it
// by SO_REUSEPORT, may come and go.
type port struct {
	addr string
	fd   int
}

func reserve() (*port, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("reserve a port: %w", err)
	}
	p := &port{fd: fd}
	if err := p.bind(); err != nil {
		p.release()
		return nil, fmt.Errorf("reserve a port: %w", err)
	}
	return p, nil
}

func (p *port) bind() error {
	if err := unix.SetsockoptInt(p.fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
		return err
	}
	if err := unix.Bind(p.fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return err
	}
	name, err := unix.Getsockname(p.fd)
	if err != nil {
		return err
	}
	p.addr = fmt.Sprintf("127.0.0.1:%d", name.(*unix.SockaddrInet4).Port)
	return nil
}

func (p *port) release() {
	if p.fd >= 0 {
		unix.Close(p.fd)
		p.fd = -1
	}
}
