package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/cloudwego/kitex/client"
	"github.com/cloudwego/kitex/pkg/loadbalance"
	"github.com/cloudwego/kitex/pkg/remote/trans/netpoll"
	"github.com/cloudwego/kitex/pkg/utils"
	old "github.com/kitex-contrib/registry-etcd"

	"github.com/kitex-contrib/kitex-etcd/example/plain/kitex_gen/api"
	"github.com/kitex-contrib/kitex-etcd/example/plain/kitex_gen/api/hello"
	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
)

const clientsService = "bench-clients"

// clientsFamily is a process that opens and closes Kitex clients.
func clientsFamily() family {
	return family{
		name:   "clients",
		rounds: 5,
		quick:  1,
		about: "What is left in a process that has opened 1,000 Kitex clients (200 in a quick run), called once with each and closed it, against one " +
			"that has done so with 10. Each has a load balancer of its own, so that Kitex does not keep one resolver for all. Ours share a Conn; " +
			"those of registry-etcd have a resolver each, which cannot be closed. What Kitex keeps of each client's service goes after 15 to 30 s, " +
			"and is counted",
		rows: []row{
			{name: "clients_conns", what: "connections to etcd", unit: count, targets: []target{atMost(0)}},
			{name: "clients_goroutines", what: "goroutines", unit: count, targets: []target{atMost(10)}},
			{name: "clients_heap", what: "heap in use after a collection", unit: size, targets: []target{atMost(1e6)}},
		},
		open: func(b *bench) ([]side, error) {
			server, err := b.serve()
			if err != nil {
				return nil, err
			}
			if err := b.etcd.put(b.ctx, []pair{kitexRecord(clientsService, address(0))}); err != nil {
				return nil, err
			}
			return eachSide(func(_ context.Context, lib string) (values, error) {
				return clientsTurn(b, lib, server, strconv.Itoa(b.pick(1000, 200)))
			}), nil
		},
	}
}

func clientsTurn(b *bench, lib, server, n string) (values, error) {
	px, err := b.proxy()
	if err != nil {
		return nil, err
	}
	c, err := startChild("clients", []string{lib, n, server, px.endpoints()[0]})
	if err != nil {
		return nil, err
	}
	defer c.close()
	var ready bool
	if err := c.read(&ready); err != nil {
		return nil, err
	}
	conns := px.conns.Load()
	if _, err := fmt.Fprintln(c.stdin, "go on"); err != nil {
		return nil, err
	}
	v := make(values)
	if err := c.read(&v); err != nil {
		return nil, err
	}
	v["clients_conns"] = []float64{float64(px.conns.Load() - conns)}
	return v, nil
}

// openClients is what the process does: a few clients, and when it is told to go on, many.
func openClients(args []string) error {
	lib, server, endpoints := args[0], args[2], args[3:]
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	conn, err := etcd.Connect(endpoints) // unused by registry-etcd: Connect does not use the network
	if err != nil {
		return err
	}
	defer conn.Close()
	open := func(n int) (heap, goroutines float64, err error) {
		for range n {
			if err := openAndClose(lib, conn, clientsService, endpoints, server, client.WithLoadBalancer(loadbalance.NewWeightedBalancer())); err != nil {
				return 0, 0, err
			}
		}
		time.Sleep(time.Second) // nothing tells when the goroutines of closed clients have ended, and these must not be counted
		heap, goroutines = inUse()
		return heap, goroutines, nil
	}
	heap, goroutines, err := open(10)
	if err != nil {
		return err
	}
	out := json.NewEncoder(os.Stdout)
	if err := out.Encode(true); err != nil {
		return err
	}
	if _, err := os.Stdin.Read(make([]byte, 16)); err != nil {
		return err
	}
	heapAfter, goroutinesAfter, err := open(n)
	if err != nil {
		return err
	}
	err = out.Encode(values{"clients_heap": {heapAfter - heap}, "clients_goroutines": {goroutinesAfter - goroutines}})
	awaitParent()
	return err
}

// openAndClose opens a client as its library's documentation has it, calls once and closes it.
func openAndClose(lib string, conn *etcd.Conn, service string, endpoints []string, server string, opts ...client.Option) error {
	var made *client.Options
	opts = append(opts,
		client.WithDialer(detour{netpoll.NewDialer(), server}),
		client.TailOption(client.Option{F: func(o *client.Options, _ *utils.Slice) { made = o }}),
	)
	if lib == ours {
		opts = conn.ClientOptions(opts...)
	} else {
		r, err := old.NewEtcdResolver(endpoints, quietly)
		if err != nil {
			return err
		}
		opts = append(opts, client.WithResolver(r))
	}
	cli, err := hello.NewClient(service, opts...)
	if err != nil {
		return err
	}
	_, err = cli.Echo(context.Background(), &api.Request{Message: "hello"})
	for _, f := range made.CloseCallbacks {
		err = errors.Join(err, f())
	}
	return err
}
