package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// gauge reads what an etcd uses, and a process in front of it.
type gauge struct {
	etcd  *etcdProcess
	proxy *child // may be nil
}

// sight is what the processes have used until now, or between two times.
type sight struct {
	at          time.Duration // since 1970
	etcd, proxy usage
	bytes       float64
}

func (g gauge) look() (s sight, err error) {
	s.at = time.Duration(time.Now().UnixNano())
	if s.bytes, err = g.etcd.traffic(); err != nil {
		return s, err
	}
	if s.etcd, err = g.etcd.child.usage(); err != nil || g.proxy == nil {
		return s, err
	}
	s.proxy, err = g.proxy.usage()
	return s, err
}

// over returns what is used in a time in which nothing is done.
func (g gauge) over(ctx context.Context, length time.Duration) (s sight, err error) {
	from, err := g.look()
	if err != nil {
		return s, err
	}
	if err := pause(ctx, length); err != nil {
		return s, err
	}
	to, err := g.look()
	return to.since(from), err
}

// since has what grew since earlier.
func (s sight) since(earlier sight) sight {
	s.at -= earlier.at
	s.etcd.cpu -= earlier.etcd.cpu
	s.proxy.cpu -= earlier.proxy.cpu
	s.bytes -= earlier.bytes
	return s
}

// usage is what a process uses.
type usage struct {
	cpu     time.Duration
	memory  float64 // resident, in bytes, without the program itself: this one is many
	sockets int
}

// usage asks the kernel, which is Linux's.
func (c *child) usage() (u usage, err error) {
	proc := filepath.Join("/proc", strconv.Itoa(c.cmd.Process.Pid))
	tasks, err := filepath.Glob(filepath.Join(proc, "task", "*", "schedstat"))
	if err != nil {
		return u, err
	}
	for _, task := range tasks {
		text, err := os.ReadFile(task)
		if err != nil {
			continue // a thread that has just ended
		}
		ns, _, _ := strings.Cut(string(text), " ")
		n, err := strconv.ParseInt(ns, 10, 64)
		if err != nil {
			return u, fmt.Errorf("%s: %w", task, err)
		}
		u.cpu += time.Duration(n)
	}
	resident, program, err := residentBytes(proc)
	if err != nil {
		return u, err
	}
	u.memory = resident - program
	files, err := os.ReadDir(filepath.Join(proc, "fd"))
	for _, f := range files {
		if to, _ := os.Readlink(filepath.Join(proc, "fd", f.Name())); strings.HasPrefix(to, "socket:") {
			u.sockets++
		}
	}
	return u, err
}

// residentBytes is what a process, as named in /proc, has in memory, and how much of that is of files: the program.
func residentBytes(proc string) (resident, program float64, err error) {
	text, err := os.ReadFile(filepath.Join(proc, "statm"))
	if err != nil {
		return 0, 0, err
	}
	var all, shared int64
	if _, err := fmt.Sscan(string(text), new(int64), &all, &shared); err != nil {
		return 0, 0, fmt.Errorf("%s/statm: %w", proc, err)
	}
	page := float64(os.Getpagesize())
	return float64(all) * page, float64(shared) * page, nil
}
