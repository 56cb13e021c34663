//go:build !linux

package faultproxy

import "testing"

// Drop skips the test: only Linux drops the requests for connections that nobody accepts.
func (p *Proxy) Drop(t testing.TB) {
	t.Helper()
	t.Skip("packets can be dropped on Linux alone")
}
