package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/cloudwego/kitex/client"

	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
)

// startFamily is processes of clients that start while etcd is away.
func startFamily() family {
	const (
		processes = 3
		calls     = 200
	)
	aways := []struct{ name, what string }{{"start_refused", "etcd refuses connections"}, {"start_silent", "packets to etcd are lost"}}
	f := family{
		name:   "start",
		rounds: 2,
		quick:  1,
		about: fmt.Sprintf("%d processes that have called a service before start again while etcd is away, and call %d times, %d calls per second; one of its three "+
			"addresses is dead. Ours has WithSnapshots; go-zero, kratos and registry-etcd keep nothing", processes, calls, callsPerSecond),
	}
	for _, a := range aways {
		f.rows = append(f.rows,
			row{name: a.name, what: a.what + ": the first call, with the making of the client", unit: duration,
				targets: []target{atMost(float64(500 * time.Millisecond))}},
			row{name: a.name + "_calls", what: "failed calls of a process", unit: count, targets: []target{atMost(0)}})
	}
	f.open = func(b *bench) ([]side, error) {
		dead, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		dead.Close()
		return callingSides(b, "start", func(ctx context.Context, lib, service string) (values, error) {
			serve := b.serve
			if onGRPC(lib) {
				serve = b.serveGRPC
			}
			records := []pair{peerOf(lib).record(service, dead.Addr().String())}
			for range 2 {
				addr, err := serve()
				if err != nil {
					return nil, err
				}
				records = append(records, peerOf(lib).record(service, addr))
			}
			if err := b.etcd.put(ctx, records); err != nil {
				return nil, err
			}
			dir, err := os.MkdirTemp("", "kitex-etcd-bench-")
			if err != nil {
				return nil, err
			}
			defer os.RemoveAll(dir)
			px, err := b.proxy()
			if err != nil {
				return nil, err
			}
			start := func(i, calls int, v any) error {
				c, err := startChild("restart", []string{lib, service, filepath.Join(dir, strconv.Itoa(i)), strconv.Itoa(calls), px.addr})
				if err != nil {
					return err
				}
				defer c.close()
				return c.read(v)
			}
			for i := range processes { // what they were before
				if err := start(i, 20, new(restarted)); err != nil {
					return nil, err
				}
			}
			all := make(values)
			for _, a := range aways {
				if a.name == "start_refused" {
					px.shut()
				} else if err := px.drop(); err != nil {
					return nil, err
				}
				v, err := beside(processes, func(i int) (values, error) {
					var r restarted
					err := start(i, calls, &r)
					return values{a.name: {float64(r.First)}, a.name + "_calls": {float64(r.Failed)}}, err
				})
				if err != nil {
					return nil, err
				}
				for name, found := range v {
					all[name] = found
				}
				if a.name == "start_refused" {
					if err := px.open(); err != nil {
						return nil, err
					}
				}
			}
			px.forward()
			return all, nil
		}), nil
	}
	return f
}

// restarted is what became of a process's calls.
type restarted struct {
	First  time.Duration
	Failed int
}

// callAfresh is what the process does.
func callAfresh(args []string) error {
	lib, service, dir := args[0], args[1], args[2]
	n, err := strconv.Atoi(args[3])
	if err != nil {
		return err
	}
	begin := time.Now()
	b := &bench{ctx: context.Background(), etcd: &etcdProcess{endpoints: args[4:]}}
	call, err := b.afresh(lib, service, dir)
	if err != nil { // some cannot be made without etcd: none of the calls can be
		call = func(context.Context) (string, error) { return "", err }
	}
	var r restarted
	failed := make(chan bool, n)
	for i := range n {
		attempt := func() {
			ctx, cancel := context.WithTimeout(b.ctx, 5*time.Second)
			defer cancel()
			_, err := call(ctx)
			failed <- err != nil
		}
		if i == 0 {
			attempt()
			r.First = time.Since(begin)
			continue
		}
		go attempt()
		time.Sleep(time.Second / callsPerSecond) // the rate
	}
	for range n {
		if <-failed {
			r.Failed++
		}
	}
	if lib == ours {
		time.Sleep(1500 * time.Millisecond) // a list is written once a second at most
	}
	err = json.NewEncoder(os.Stdout).Encode(r)
	awaitParent()
	return err
}

func (b *bench) afresh(lib, service, dir string) (func(context.Context) (string, error), error) {
	const timeout = 2 * time.Second
	if onGRPC(lib) {
		return b.grpcCaller(lib, service, timeout)
	}
	c, err := b.newCaller(lib, service, callerOptions{
		endpoints: b.etcd.endpoints,
		timeout:   timeout,
		conn:      []etcd.Option{etcd.WithSnapshots(dir)},
		options:   []client.Option{longPool(), client.WithConnectTimeout(200 * time.Millisecond)},
	})
	if err != nil {
		return nil, err
	}
	return c.call, nil
}
