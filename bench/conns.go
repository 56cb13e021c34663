package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"time"

	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
)

const (
	connsService   = "bench-conns"
	connsInstances = 50
	// kitexForgets is longer than Kitex keeps what a client had found and does not call any more.
	kitexForgets = 35 * time.Second
)

// connsFamily is a process that opens and closes connections to etcd, as tests and reloads do.
func connsFamily() family {
	return family{
		name:   "conns",
		rounds: 2,
		quick:  1,
		about: fmt.Sprintf("What is left of each of 200 Conns with a client of a service of %d, called once and closed, in a process that has closed 20 before: %s "+
			"later, when Kitex has forgotten the service. registry-etcd's resolver, of which each client has one, cannot be closed", connsInstances,
			duration.format(float64(kitexForgets))),
		rows: []row{
			{name: "conns_goroutines", what: "goroutines", unit: count, targets: []target{atMost(0.05)}},
			{name: "conns_heap", what: "heap in use after a collection", unit: size, targets: []target{atMost(2000)}},
		},
		open: func(b *bench) ([]side, error) {
			server, err := b.serve()
			if err != nil {
				return nil, err
			}
			if err := peers[0].seed(b, connsService, connsInstances); err != nil {
				return nil, err
			}
			return eachSide(func(_ context.Context, lib string) (values, error) {
				c, err := startChild("conns", []string{lib, server, b.etcd.endpoints[0]})
				if err != nil {
					return nil, err
				}
				defer c.close()
				v := make(values)
				return v, c.read(&v)
			}), nil
		},
	}
}

// openConns is what the process does.
func openConns(args []string) error {
	lib, server, endpoints := args[0], args[1], args[2:]
	open := func(n int) (heap, goroutines float64, err error) {
		for range n {
			conn, err := etcd.Connect(endpoints) // unused by registry-etcd: Connect does not use the network
			if err == nil {
				err = openAndClose(lib, conn, connsService, endpoints, server)
				_ = conn.Close()
			}
			if err != nil {
				return 0, 0, err
			}
		}
		time.Sleep(kitexForgets) // Kitex frees what nobody uses after this time, and tells nobody
		heap, goroutines = inUse()
		return heap, goroutines, nil
	}
	const first, more = 20, 200
	heap, goroutines, err := open(first)
	if err != nil {
		return err
	}
	heapAfter, goroutinesAfter, err := open(more)
	if err != nil {
		return err
	}
	err = json.NewEncoder(os.Stdout).Encode(values{
		"conns_heap":       {(heapAfter - heap) / more},
		"conns_goroutines": {(goroutinesAfter - goroutines) / more},
	})
	awaitParent()
	return err
}

// unservedFamily is names that nobody serves, which whoever calls a gateway may choose.
func unservedFamily() family {
	const names, wait = 3000, 260 * time.Second
	return family{
		name:   "unserved",
		rounds: 1,
		about: fmt.Sprintf("A process asks for %d names that nobody serves, once each. What it has more than before, %s later (20 s in a quick run, when "+
			"nothing is forgotten yet). Go keeps about 0.5 kB of each goroutine that there ever was at one time, which is in the figure", names, duration.format(float64(wait))),
		rows: []row{
			{name: "unserved_goroutines", what: "goroutines", unit: count, targets: []target{atMost(0)}},
			{name: "unserved_heap", what: "heap in use after a collection", unit: size, targets: []target{atMost(0.3e6)}},
		},
		open: func(b *bench) ([]side, error) {
			if err := peers[0].seed(b, connsService, 1); err != nil {
				return nil, err
			}
			return eachSide(func(_ context.Context, lib string) (values, error) {
				seconds := b.pick(int(wait/time.Second), 20)
				if lib == before {
					seconds = 5 // it keeps nothing that could be forgotten
				}
				c, err := startChild("unserved", []string{lib, strconv.Itoa(names), strconv.Itoa(seconds), b.etcd.endpoints[0]})
				if err != nil {
					return nil, err
				}
				defer c.close()
				v := make(values)
				return v, c.read(&v)
			}), nil
		},
	}
}

// askForNobody is what the process does.
func askForNobody(args []string) error {
	names, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	seconds, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	b := &bench{ctx: context.Background(), etcd: &etcdProcess{endpoints: args[3:]}}
	r, err := b.resolver(args[0])
	if err != nil {
		return err
	}
	if _, err := r.Resolve(b.ctx, connsService); err != nil { // the connection stands
		return err
	}
	// This one stays in use. Without it what is left would be less than before.
	ctx, stop := context.WithCancel(b.ctx)
	defer stop()
	go func() {
		for pause(ctx, time.Second) == nil {
			_, _ = r.Resolve(ctx, connsService)
		}
	}()
	time.Sleep(time.Second) // nothing tells when the goroutines that only begin have ended, and these must not be counted
	heap, goroutines := inUse()
	if err := atOnce(32, names, func(i int) error {
		_, _ = r.Resolve(b.ctx, fmt.Sprintf("bench-nobody-%d", i)) // whether that is an error is the library's choice
		return nil
	}); err != nil {
		return err
	}
	time.Sleep(time.Duration(seconds) * time.Second) // the row is about what is left after this time
	heapAfter, goroutinesAfter := inUse()
	err = json.NewEncoder(os.Stdout).Encode(values{
		"unserved_heap":       {heapAfter - heap},
		"unserved_goroutines": {goroutinesAfter - goroutines},
	})
	awaitParent()
	return err
}
