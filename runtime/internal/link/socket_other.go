//go:build !linux

package link

import (
	"net"
	"time"
)

// setUserTimeout does nothing: TCP's keepalive has to do.
func setUserTimeout(*net.TCPConn, time.Duration) {}
