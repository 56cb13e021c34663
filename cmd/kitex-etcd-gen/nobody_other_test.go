//go:build !linux

package main

import "testing"

func runAsNobody(t *testing.T) {
	t.Skip("root may read and write everything, and a process of another user is started on Linux only")
}
