package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/cloudwego/kitex/pkg/registry"
	"github.com/cloudwego/kitex/pkg/rpcinfo"
	"github.com/cloudwego/kitex/server"
	old "github.com/kitex-contrib/registry-etcd"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/kitex-contrib/kitex-etcd/example/plain/kitex_gen/api/hello"
	"github.com/kitex-contrib/kitex-etcd/golden/thrift_streamx/kitex_gen/api/chat"
	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
)

// backend is a server in a process of its own.
type backend struct {
	*child
	addr string
}

// serverOf says which server to start.
type serverOf struct {
	role    string // of the process; empty means that of Hello
	lib     string
	service string
	addr    string // where it listens; empty means a free port
	zone    string // the value of a tag of its record; empty means none
	drained bool   // an operator's mark stands: there will be no record
}

// startBackend starts a server of Hello and returns when its record stands.
func (b *bench) startBackend(ctx context.Context, lib, service string) (*backend, error) {
	return b.startServer(ctx, serverOf{lib: lib, service: service})
}

func (b *bench) startServer(ctx context.Context, of serverOf) (*backend, error) {
	now, err := b.etcd.client.Get(ctx, of.service, clientv3.WithCountOnly()) // another's record may stand at its address
	if err != nil {
		return nil, err
	}
	c, err := startChild(cmp.Or(of.role, "server"), []string{of.lib, of.service, cmp.Or(of.addr, "127.0.0.1:0"), b.etcd.endpoints[0], of.zone})
	if err != nil {
		return nil, err
	}
	s := &backend{child: c}
	if err := c.read(&s.addr); err != nil {
		s.kill()
		return nil, fmt.Errorf("start a server: %w", err)
	}
	if of.drained {
		return s, nil
	}
	if err := await(ctx, "the record of "+s.addr, 20*time.Second, func() bool {
		return b.registeredAt(ctx, of.lib, of.service, s.addr, now.Header.Revision)
	}); err != nil {
		s.kill()
		return nil, err
	}
	return s, nil
}

// startServers starts n servers at once.
func (b *bench) startServers(ctx context.Context, of serverOf, n int) ([]*backend, error) {
	servers, errs := make([]*backend, n), make([]error, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { servers[i], errs[i] = b.startServer(ctx, of) })
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		killAll(servers)
		return nil, err
	}
	return servers, nil
}

func killAll(servers []*backend) {
	for _, s := range servers {
		if s != nil {
			s.kill()
		}
	}
}

// registeredAt says whether a record of lib stands for a service at addr that was written after a revision.
func (b *bench) registeredAt(ctx context.Context, lib, service, addr string, after int64) bool {
	prefix := map[string]string{gozero: service + "/", kratos: "/microservices/" + service + "/"}[lib]
	if prefix == "" {
		prefix = etcd.DefaultPrefix + "/" + service + "/"
	}
	resp, err := b.etcd.client.Get(ctx, prefix, clientv3.WithPrefix())
	return err == nil && slices.ContainsFunc(resp.Kvs, func(kv *mvccpb.KeyValue) bool {
		return kv.ModRevision > after && bytes.Contains(kv.Value, []byte(addr))
	})
}

func (b *bench) stands(ctx context.Context, key string) bool {
	resp, err := b.etcd.client.Get(ctx, key)
	return err == nil && len(resp.Kvs) == 1
}

// stop ends a server as a supervisor does, and returns when it is gone.
func (s *backend) stop() error {
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	return s.cmd.Wait()
}

func (s *backend) kill() {
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
}

// serveHello is what the process does: a server as its library's documentation has it. It prints its address.
func serveHello(args []string) error {
	switch lib, service, addr, endpoints := args[0], args[1], args[2], args[3:4]; lib {
	case gozero:
		return serveGoZero(service, addr, endpoints)
	case kratos:
		return serveKratos(service, addr, endpoints)
	}
	return serveKitex(args, func(addr string, opts ...server.Option) server.Server {
		return hello.NewServer(&echoServer{addr}, opts...)
	})
}

// serveStreams is the same for streams.
func serveStreams(args []string) error {
	return serveKitex(args, func(addr string, opts ...server.Option) server.Server {
		return chat.NewServer(&chatServer{addr: addr}, opts...)
	})
}

func serveKitex(args []string, newServer func(addr string, opts ...server.Option) server.Server) error {
	lib, service, endpoints := args[0], args[1], args[3:4]
	ln, err := net.Listen("tcp", args[2])
	if err != nil {
		return err
	}
	addr := ln.Addr().String()
	opts := []server.Option{server.WithListener(ln)}
	if len(args) > 4 {
		opts = append(opts, server.WithRegistryInfo(&registry.Info{Tags: map[string]string{zoneTag: args[4]}}))
	}
	if lib == ours {
		conn, err := etcd.Connect(endpoints)
		if err != nil {
			return err
		}
		defer conn.Close()
		opts = append(opts, conn.ServerOptions(service)...)
	} else {
		r, err := old.NewEtcdRegistry(endpoints, quietly)
		if err != nil {
			return err
		}
		opts = append(opts, server.WithRegistry(r), server.WithServerBasicInfo(&rpcinfo.EndpointBasicInfo{ServiceName: service}))
	}
	svr := newServer(addr, opts...)
	if err := json.NewEncoder(os.Stdout).Encode(addr); err != nil {
		return err
	}
	if err := svr.Run(); err != nil && !strings.Contains(err.Error(), "use of closed") {
		return err
	}
	return nil
}
