package main

import (
	"fmt"
	"io"
	"time"
)

// progress says once a second, from the second second on, how far a long scan is.
type progress struct {
	w           io.Writer
	now         func() time.Time
	next        time.Time
	directories int
}

func newProgress(w io.Writer) *progress {
	return &progress{w: w, now: time.Now, next: time.Now().Add(2 * time.Second)}
}

// step counts one directory.
func (p *progress) step(services int) {
	p.directories++
	if now := p.now(); now.After(p.next) {
		fmt.Fprintf(p.w, "kitex-etcd-gen: %d directories read, %d services found\n", p.directories, services)
		p.next = now.Add(time.Second)
	}
}
