package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	kratosetcd "github.com/go-kratos/kratos/contrib/registry/etcd/v2"
	kratosapp "github.com/go-kratos/kratos/v2"
	kratoslog "github.com/go-kratos/kratos/v2/log"
	kratosgrpc "github.com/go-kratos/kratos/v2/transport/grpc"
	"github.com/zeromicro/go-zero/core/conf"
	"github.com/zeromicro/go-zero/core/discov"
	"github.com/zeromicro/go-zero/core/logx"
	"github.com/zeromicro/go-zero/zrpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	grpcpeer "google.golang.org/grpc/peer"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// go-zero and kratos call over gRPC, with clients and servers of their own.

const echoMethod = "/bench.Hello/Echo"

// echoService is Hello for gRPC. Its implementation is the address that it answers with.
var echoService = grpc.ServiceDesc{
	ServiceName: "bench.Hello",
	HandlerType: (*any)(nil),
	Methods: []grpc.MethodDesc{{
		MethodName: "Echo",
		Handler: func(addr any, ctx context.Context, decode func(any) error, intercept grpc.UnaryServerInterceptor) (any, error) {
			in := new(wrapperspb.StringValue)
			if err := decode(in); err != nil {
				return nil, err
			}
			answer := func(context.Context, any) (any, error) { return wrapperspb.String(addr.(string)), nil }
			if intercept == nil {
				return answer(ctx, in)
			}
			return intercept(ctx, in, &grpc.UnaryServerInfo{Server: addr, FullMethod: echoMethod}, answer)
		},
	}},
}

func init() { kratoslog.SetLogger(kratoslog.NewStdLogger(io.Discard)) }

// onGRPC says whether lib calls over gRPC.
func onGRPC(lib string) bool { return lib == gozero || lib == kratos }

// grpcCaller returns the call of a client of lib, with its defaults but for the timeout. A call is one attempt, and says at which
// address, if it came that far.
func (b *bench) grpcCaller(lib, service string, timeout time.Duration) (call func(context.Context) (addr string, err error), err error) {
	var cc *grpc.ClientConn
	if lib == gozero {
		var c zrpc.RpcClientConf
		if err := conf.FillDefault(&c); err != nil {
			return nil, err
		}
		c.Etcd, c.Timeout = discov.EtcdConf{Hosts: b.etcd.endpoints, Key: service}, timeout.Milliseconds()
		client, err := zrpc.NewClient(c)
		if err != nil {
			return nil, err
		}
		cc = client.Conn()
	} else {
		client, err := newClient(b.etcd.endpoints)
		if err != nil {
			return nil, err
		}
		b.cleanup(func() { client.Close() })
		cc, err = kratosgrpc.DialInsecure(b.ctx, kratosgrpc.WithEndpoint("discovery:///"+service),
			kratosgrpc.WithDiscovery(kratosetcd.New(client)), kratosgrpc.WithTimeout(timeout))
		if err != nil {
			return nil, err
		}
	}
	b.cleanup(func() { cc.Close() })
	return func(ctx context.Context) (string, error) {
		var from grpcpeer.Peer
		err := cc.Invoke(ctx, echoMethod, wrapperspb.String("hello"), new(wrapperspb.StringValue), grpc.Peer(&from))
		if from.Addr == nil {
			return "", err
		}
		return from.Addr.String(), err
	}, nil
}

// serveGRPC runs a server that is not registered, until the family ends.
func (b *bench) serveGRPC() (addr string, err error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	s := grpc.NewServer()
	s.RegisterService(&echoService, ln.Addr().String())
	healthpb.RegisterHealthServer(s, health.NewServer()) // which kratos's clients ask
	go func() { _ = s.Serve(ln) }()
	b.cleanup(s.Stop)
	return ln.Addr().String(), nil
}

// serveGoZero is a server of go-zero with its defaults, but for what would take a fixed port. It prints its address.
func serveGoZero(service, addr string, endpoints []string) error {
	ln, err := net.Listen("tcp", addr) // a server of go-zero has to be told its port
	if err != nil {
		return err
	}
	addr = ln.Addr().String()
	ln.Close()
	var c zrpc.RpcServerConf
	if err := conf.FillDefault(&c); err != nil {
		return err
	}
	c.Name, c.ListenOn, c.Etcd = service, addr, discov.EtcdConf{Hosts: endpoints, Key: service}
	c.DevServer.Enabled = false
	svr, err := zrpc.NewServer(c, func(s *grpc.Server) { s.RegisterService(&echoService, addr) })
	if err != nil {
		return err
	}
	logx.Disable() // NewServer had it begin; stdout is for what this process has to say
	if err := json.NewEncoder(os.Stdout).Encode(addr); err != nil {
		return err
	}
	svr.Start()
	return nil
}

// serveKratos is a server of kratos with its defaults. It prints its address.
func serveKratos(service, addr string, endpoints []string) error {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	addr = ln.Addr().String()
	client, err := newClient(endpoints)
	if err != nil {
		return err
	}
	defer client.Close()
	svr := kratosgrpc.NewServer(kratosgrpc.Listener(ln), kratosgrpc.Address(addr))
	svr.RegisterService(&echoService, addr)
	if err := json.NewEncoder(os.Stdout).Encode(addr); err != nil {
		return err
	}
	if err := kratosapp.New(kratosapp.Name(service), kratosapp.ID(addr), kratosapp.Server(svr), kratosapp.Registrar(kratosetcd.New(client))).Run(); err != nil {
		return fmt.Errorf("serve %s: %w", service, err)
	}
	return nil
}
