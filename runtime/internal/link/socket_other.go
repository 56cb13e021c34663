//go:build !linux

package link

import (
	"net"
	"time"
)

// setUserTimeout does nothing: gRPC's keepalive has to do.
func setUserTimeout(*net.TCPConn, time.Duration) {}
