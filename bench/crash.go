package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/cloudwego/kitex/client"
	"github.com/cloudwego/kitex/pkg/connpool"
)

const (
	crashServers = 5
	crashTimeout = 300 * time.Millisecond // of a call
	crashLength  = 5 * time.Second        // less than the shortest lease
)

// callingLibs are the sides of what is done to servers without a farewell: each calls through its own client.
var callingLibs = []string{ours, before, gozero, kratos}

// A victim is a server that is called, beside others.
type victim struct {
	addr   string
	others []string     // the addresses of the others
	conns  func() int64 // that are open to it; nil where that is not counted
	strike func() error
	mend   func(ctx context.Context) (at time.Time, err error) // says since when it serves again
	end    func()
}

// A crash is a server that goes without a farewell.
type crash struct {
	name, about, more string
	rows              []row
	victim            func(ctx context.Context, b *bench, lib, service string) (victim, error)
}

func crashFamilies() []family {
	again := func(name, what string) row {
		return row{name: name + "_again", what: what + " until it has answered a call", unit: duration, targets: []target{atMost(float64(2500 * time.Millisecond))}}
	}
	late := func(name string) row {
		return row{name: name + "_late", what: "failed calls that begin later than 1 s after it", unit: count, targets: []target{atMost(4)}}
	}
	return []family{
		crash{"kill", "kill -9 of one of five servers", "After 5 s another is started at its address", []row{
			{name: "kill_attempts", what: "failed attempts at it in the first 5 s", unit: count, targets: []target{atMost(3)}},
			{name: "kill_calls", what: "failed calls", unit: count, targets: []target{atMost(0)}},
			again("kill", "from when the record of the new one stands"),
		}, killed}.family(),
		crash{"hang", "SIGSTOP of one of five servers", "It goes on after 5 s", []row{
			{name: "hang_calls", what: "failed calls", unit: count, targets: []target{atMost(30)}},
			late("hang"),
			again("hang", "from SIGCONT"),
		}, stopped}.family(),
		crash{"gone", "Every packet to one of five servers is lost", "Nothing is reset or refused, and its record stays. Packets pass again after 5 s: " +
			"what was sent meanwhile arrives then", []row{
			{name: "gone_calls", what: "failed calls", unit: count},
			{name: "gone_more", what: "more of them than one for each connection that was open", unit: count, targets: []target{atMost(30)}},
			late("gone"),
			again("gone", "from when packets pass"),
		}, lost}.family(),
	}
}

func (c crash) family() family {
	about := fmt.Sprintf("%s. %s. %d calls per second through the client of each library, with a timeout of %s; those of Kitex keep their connections. "+
		"Kitex may hide a failed attempt from the caller by another; with gRPC a call is an attempt. A call that the server had cannot but fail. %s mean that the server had answered no call by then",
		c.about, c.more, callsPerSecond, duration.format(float64(crashTimeout)), duration.format(float64(againLimit)))
	return family{
		name:   c.name,
		about:  about,
		rounds: 3,
		quick:  1,
		rows:   c.rows,
		plots: []drawing{
			{title: "Failed attempts: " + c.about, from: c.name + "_times", each: c.name + "_attempts"},
			{title: "Failed calls: " + c.about, from: c.name + "_failed_times", each: c.name + "_calls", what: "failed calls"},
		},
		open: func(b *bench) ([]side, error) {
			return callingSides(b, c.name, func(ctx context.Context, lib, service string) (values, error) {
				return beside(b.pick(2, 1), func(i int) (values, error) {
					service := fmt.Sprintf("%s-%d", service, i)
					v, err := c.victim(ctx, b, lib, service)
					if err != nil {
						return nil, err
					}
					defer v.end()
					return v.trial(ctx, b, c.name, lib, service, callerOptions{timeout: crashTimeout, options: []client.Option{longPool()}})
				})
			}), nil
		},
	}
}

// longPool keeps connections, as clients do that call often.
func longPool() client.Option {
	return client.WithLongConnection(connpool.IdleConfig{MaxIdlePerAddress: 100, MaxIdleGlobal: 1000, MaxIdleTimeout: time.Minute})
}

const againLimit = 20 * time.Second

// trial strikes once, under calls, and mends.
func (v victim) trial(ctx context.Context, b *bench, name, lib, service string, o callerOptions) (values, error) {
	t, err := v.traffic(ctx, b, lib, service, o)
	if err != nil {
		return nil, err
	}
	defer t.stop()
	var conns int64
	if v.conns != nil {
		conns = v.conns()
	}
	begin := time.Now()
	if err := v.strike(); err != nil {
		return nil, err
	}
	if err := pause(ctx, crashLength-time.Since(begin)); err != nil {
		return nil, err
	}
	attempts := t.failedAttempts(v.addr, begin)
	at, err := v.mend(ctx)
	if err != nil {
		return nil, err
	}
	again := within(ctx, at, againLimit, func() bool { return t.answered(v.addr, at) })
	t.stop()
	calls := t.failedCalls(begin)
	return values{
		name + "_attempts":     {float64(len(attempts))},
		name + "_calls":        {float64(len(calls))},
		name + "_more":         {float64(max(0, int64(len(calls))-conns))},
		name + "_late":         {float64(len(later(calls, time.Second)))},
		name + "_again":        {again},
		name + "_times":        attempts,
		name + "_failed_times": calls,
	}, nil
}

// traffic calls the victim and the others, and returns when each has answered.
func (v victim) traffic(ctx context.Context, b *bench, lib, service string, o callerOptions) (*traffic, error) {
	// Kitex gives a connection 50 ms, which is little where all servers are on one machine. What is gone refuses at once.
	o.options = append(slices.Clone(o.options), client.WithConnectTimeout(200*time.Millisecond))
	t, err := b.startTraffic(ctx, lib, service, o)
	if err != nil {
		return nil, err
	}
	return t, t.reaches(ctx, append(v.others, v.addr)...)
}

// processes are victims that are processes of their own.
func processes(ctx context.Context, b *bench, lib, service string) (victim, []*backend, error) {
	servers, err := b.startServers(ctx, serverOf{lib: lib, service: service}, crashServers)
	if err != nil {
		return victim{}, nil, err
	}
	v := victim{addr: servers[0].addr}
	for _, s := range servers[1:] {
		v.others = append(v.others, s.addr)
	}
	v.end = func() { killAll(servers) }
	return v, servers, nil
}

func killed(ctx context.Context, b *bench, lib, service string) (victim, error) {
	v, servers, err := processes(ctx, b, lib, service)
	v.strike = func() error { servers[0].kill(); return nil }
	v.mend = func(ctx context.Context) (time.Time, error) {
		next, err := b.startServer(ctx, serverOf{lib: lib, service: service, addr: v.addr})
		if err == nil {
			servers[0] = next
		}
		return time.Now(), err
	}
	return v, err
}

func stopped(ctx context.Context, b *bench, lib, service string) (victim, error) {
	v, servers, err := processes(ctx, b, lib, service)
	signal := func(s os.Signal) error { return servers[0].cmd.Process.Signal(s) }
	v.strike = func() error { return signal(syscall.SIGSTOP) }
	v.mend = func(context.Context) (time.Time, error) { return time.Now(), signal(syscall.SIGCONT) }
	return v, err
}

// behindProxies has n instances of a service that are proxies, in front of one server of lib's kind. The first is the victim.
func behindProxies(ctx context.Context, b *bench, lib, service string, n int) (victim, []*proxy, error) {
	serve := b.serve
	if onGRPC(lib) {
		serve = b.serveGRPC
	}
	server, err := serve()
	if err != nil {
		return victim{}, nil, err
	}
	v := victim{end: func() {}}
	ways := make([]*proxy, n)
	for i := range ways {
		if ways[i], err = b.proxyTo(server); err != nil {
			return v, nil, err
		}
		if err := b.etcd.put(ctx, []pair{peerOf(lib).record(service, ways[i].addr)}); err != nil {
			return v, nil, err
		}
		if i > 0 {
			v.others = append(v.others, ways[i].addr)
		}
	}
	v.addr = ways[0].addr
	return v, ways, nil
}

func lost(ctx context.Context, b *bench, lib, service string) (victim, error) {
	v, ways, err := behindProxies(ctx, b, lib, service, crashServers)
	if err != nil {
		return v, err
	}
	v.conns, v.strike = ways[0].conns.Load, ways[0].drop
	v.mend = func(context.Context) (time.Time, error) { ways[0].forward(); return time.Now(), nil }
	return v, nil
}

// leaseFamily is how long etcd shows what is gone.
func leaseFamily() family {
	const atOnce = 3
	return family{
		name:   "lease",
		rounds: 1,
		about: fmt.Sprintf("Servers that are killed, or stopped, with the time that their library gives a lease; %d of each at once. Other clients than those "+
			"that call them learn of it then", atOnce),
		rows: []row{
			{name: "lease_kill", what: "from kill -9 until the record is gone", unit: duration, targets: []target{atMost(float64(12 * time.Second))}},
			{name: "lease_hang", what: "from SIGSTOP until the record is gone", unit: duration, targets: []target{atMost(float64(12 * time.Second))}},
		},
		open: func(b *bench) ([]side, error) {
			return callingSides(b, "lease", func(ctx context.Context, lib, service string) (values, error) {
				return beside(2*b.pick(atOnce, 1), func(i int) (values, error) {
					name, signal, service := "lease_kill", syscall.SIGKILL, fmt.Sprintf("%s-%d", service, i)
					if i%2 == 1 {
						name, signal = "lease_hang", syscall.SIGSTOP
					}
					s, err := b.startBackend(ctx, lib, service)
					if err != nil {
						return nil, err
					}
					defer s.kill()
					begin := time.Now()
					if err := s.cmd.Process.Signal(signal); err != nil {
						return nil, err
					}
					return values{name: {within(ctx, begin, enough, func() bool { return !b.registeredAt(ctx, lib, service, s.addr, 0) })}}, nil
				})
			}), nil
		},
	}
}
