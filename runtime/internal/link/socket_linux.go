package link

import (
	"net"
	"syscall"
	"time"
)

// tcpUserTimeout is Linux's TCP_USER_TIMEOUT, which package syscall lacks on some architectures.
const tcpUserTimeout = 0x12

// setUserTimeout has the kernel end a connection whose bytes nobody acknowledges for d. gRPC does this for connections that it
// knows to be TCP, which ours are not to it.
func setUserTimeout(conn *net.TCPConn, d time.Duration) {
	if d <= 0 {
		return
	}
	if raw, err := conn.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) {
			_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout, int(d.Milliseconds()))
		})
	}
}
