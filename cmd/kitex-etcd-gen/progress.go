package main

import (
	"fmt"
	"io"
	"time"
)

// progress says how far a long scan is, once a second from the third second on.
type progress struct {
	w    io.Writer
	now  func() time.Time
	next time.Time
	done int
}

func newProgress(w io.Writer, now func() time.Time) *progress {
	return &progress{w: w, now: now, next: now().Add(2 * time.Second)}
}

// step counts one of total directories.
func (p *progress) step(total int) {
	p.done++
	if now := p.now(); now.After(p.next) {
		fmt.Fprintf(p.w, "kitex-etcd-gen: read %d of %d directories\n", p.done, total)
		p.next = now.Add(time.Second)
	}
}
