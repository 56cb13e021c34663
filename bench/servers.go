package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/cloudwego/kitex/pkg/registry"
	"github.com/cloudwego/kitex/pkg/rpcinfo"
	"github.com/cloudwego/kitex/server"
	old "github.com/kitex-contrib/registry-etcd"

	"github.com/kitex-contrib/kitex-etcd/example/plain/kitex_gen/api/hello"
	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
)

// backend is a Kitex server in a process of its own.
type backend struct {
	*child
	addr string
	key  string // of its record
}

// startBackend starts a server of lib and returns when its record stands.
func (b *bench) startBackend(ctx context.Context, lib, service string) (*backend, error) {
	c, err := startChild("server", []string{lib, service, b.etcd.endpoints[0]})
	if err != nil {
		return nil, err
	}
	s := &backend{child: c}
	if err := c.read(&s.addr); err != nil {
		s.kill()
		return nil, fmt.Errorf("start a server: %w", err)
	}
	s.key = etcd.DefaultPrefix + "/" + service + "/" + s.addr
	err = await(ctx, "the record of "+s.addr, 20*time.Second, func() bool { return b.stands(ctx, s.key) })
	if err != nil {
		s.kill()
	}
	return s, err
}

// startBackends starts n servers at once.
func (b *bench) startBackends(ctx context.Context, lib, service string, n int) ([]*backend, error) {
	servers, errs := make([]*backend, n), make([]error, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { servers[i], errs[i] = b.startBackend(ctx, lib, service) })
	}
	all.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return servers, nil
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
	lib, service, endpoints := args[0], args[1], args[2:]
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	handler := &echoServer{ln.Addr().String()}
	opts := []server.Option{server.WithListener(ln)}
	if lib == ours {
		conn, err := etcd.Connect(endpoints)
		if err != nil {
			return err
		}
		defer conn.Close()
		opts = append(opts, conn.ServerOptions(service)...)
	} else {
		var r registry.Registry
		if r, err = old.NewEtcdRegistry(endpoints, quietly); err != nil {
			return err
		}
		opts = append(opts, server.WithRegistry(r), server.WithServerBasicInfo(&rpcinfo.EndpointBasicInfo{ServiceName: service}))
	}
	svr := hello.NewServer(handler, opts...)
	if err := json.NewEncoder(os.Stdout).Encode(handler.addr); err != nil {
		return err
	}
	go func() { // its parent is gone: so is this, whatever it was doing
		awaitParent()
		os.Exit(1)
	}()
	if err := svr.Run(); err != nil && !strings.Contains(err.Error(), "use of closed") {
		return err
	}
	return nil
}
