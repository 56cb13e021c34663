package picking_test

import (
	"context"
	"errors"
	"io"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cloudwego/kitex/client"
	"github.com/cloudwego/kitex/client/streamclient"
	"github.com/cloudwego/kitex/pkg/connpool"
	"github.com/cloudwego/kitex/pkg/endpoint"
	"github.com/cloudwego/kitex/pkg/kerrors"
	"github.com/cloudwego/kitex/pkg/limit"
	"github.com/cloudwego/kitex/pkg/remote/trans/nphttp2/codes"
	"github.com/cloudwego/kitex/pkg/remote/trans/nphttp2/status"
	"github.com/cloudwego/kitex/pkg/remote/trans/ttstream"
	"github.com/cloudwego/kitex/server"
	"github.com/cloudwego/kitex/transport"

	"github.com/kitex-contrib/kitex-etcd/golden/protobuf_streaming/kitex_gen/pb/chat"
	chatservice "github.com/kitex-contrib/kitex-etcd/golden/protobuf_streaming/kitex_gen/pb/chat/chat"
	streamxAPI "github.com/kitex-contrib/kitex-etcd/golden/thrift_streamx/kitex_gen/api"
	streamx "github.com/kitex-contrib/kitex-etcd/golden/thrift_streamx/kitex_gen/api/chat"
	"github.com/kitex-contrib/kitex-etcd/golden/thrift_unary/kitex_gen/api"
	"github.com/kitex-contrib/kitex-etcd/golden/thrift_unary/kitex_gen/api/hello"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/faultproxy"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/health"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/picking"
)

// The timeouts of the clients: dials are shorter than calls, and what callers give up is shorter than both.
const (
	rpcTimeout     = 400 * time.Millisecond
	connectTimeout = 150 * time.Millisecond
	leaves         = 50 * time.Millisecond
)

// kind is a way to call.
type kind struct {
	shared bool // many calls share a connection
	stream bool // its opening is the attempt
	serve  func(handle func() error, opts ...server.Option) server.Server
	client func(t *testing.T, addr string, opts []client.Option) func(context.Context) error
}

type helloServer struct{ handle func() error }

func (s *helloServer) Echo(context.Context, *api.Request) (*api.Response, error) {
	return &api.Response{}, s.handle()
}

type chatServer struct {
	chat.Chat
	handle func() error
}

func (s *chatServer) Say(context.Context, *chat.Request) (*chat.Response, error) {
	return &chat.Response{}, s.handle()
}
func (s *chatServer) Download(*chat.Request, chat.Chat_DownloadServer) error { return s.handle() }

type streamxServer struct {
	streamxAPI.Chat
	handle func() error
}

func (s *streamxServer) Download(context.Context, *streamxAPI.Request, streamxAPI.Chat_downloadServer) error {
	return s.handle()
}

func unary(opts ...client.Option) kind {
	return kind{
		serve: func(handle func() error, opts ...server.Option) server.Server {
			return hello.NewServer(&helloServer{handle}, opts...)
		},
		client: func(t *testing.T, addr string, more []client.Option) func(context.Context) error {
			cli, err := hello.NewClient("Hello", append(append(opts, client.WithHostPorts(addr)), more...)...)
			if err != nil {
				t.Fatal(err)
			}
			return func(ctx context.Context) error {
				_, err := cli.Echo(ctx, &api.Request{})
				runtime.KeepAlive(cli)
				return err
			}
		},
	}
}

func kinds() map[string]kind {
	long := client.WithLongConnection(connpool.IdleConfig{MaxIdlePerAddress: 10, MaxIdleGlobal: 100, MaxIdleTimeout: time.Minute})
	mux := unary(client.WithMuxConnection(1))
	mux.shared = true
	serveChat := func(handle func() error, opts ...server.Option) server.Server {
		return chatservice.NewServer(&chatServer{handle: handle}, opts...)
	}
	return map[string]kind{
		"long pool":        unary(long),
		"long pool framed": unary(long, client.WithTransportProtocol(transport.Framed)),
		"short":            unary(client.WithShortConnection()),
		"multiplexed":      mux,
		"TTHeader":         unary(long, client.WithTransportProtocol(transport.TTHeaderFramed)),
		"gRPC": {
			shared: true,
			serve:  serveChat,
			client: func(t *testing.T, addr string, opts []client.Option) func(context.Context) error {
				cli, err := chatservice.NewClient("Chat", append(opts, client.WithHostPorts(addr), client.WithTransportProtocol(transport.GRPC), client.WithGRPCConnPoolSize(1))...)
				if err != nil {
					t.Fatal(err)
				}
				return func(ctx context.Context) error {
					_, err := cli.Say(ctx, &chat.Request{})
					runtime.KeepAlive(cli)
					return err
				}
			},
		},
		"gRPC stream": {
			shared: true,
			stream: true,
			serve:  serveChat,
			client: func(t *testing.T, addr string, opts []client.Option) func(context.Context) error {
				var streamOpts []streamclient.Option
				for _, o := range opts {
					//lint:ignore SA1019 deprecated for users: the options here are tested with streams
					streamOpts = append(streamOpts, streamclient.ConvertOptionFrom(o))
				}
				//lint:ignore SA1019 the stream client has no other option for it
				cli, err := chatservice.NewStreamClient("Chat", append(streamOpts, streamclient.WithHostPorts(addr))...)
				if err != nil {
					t.Fatal(err)
				}
				return func(ctx context.Context) error {
					stream, err := cli.Download(ctx, &chat.Request{})
					if err == nil {
						_, err = stream.Recv()
					}
					runtime.KeepAlive(cli)
					return err
				}
			},
		},
		"TTHeader stream": {
			stream: true,
			serve: func(handle func() error, opts ...server.Option) server.Server {
				return streamx.NewServer(&streamxServer{handle: handle}, opts...)
			},
			client: func(t *testing.T, addr string, opts []client.Option) func(context.Context) error {
				cli, err := streamx.NewClient("Chat", append(opts, client.WithHostPorts(addr), client.WithTTHeaderStreamingOptions(
					client.WithTTHeaderStreamingTransportOptions(ttstream.WithClientLongConnPool(ttstream.DefaultLongConnConfig))))...)
				if err != nil {
					t.Fatal(err)
				}
				return func(ctx context.Context) error {
					stream, err := cli.Download(ctx, &streamxAPI.Request{})
					if err == nil {
						_, err = stream.Recv(ctx)
					}
					runtime.KeepAlive(cli)
					return err
				}
			},
		},
	}
}

// start starts a real server and returns its address. It runs until the process ends: Kitex closes the listener of a server that is
// stopped twice, and by then the descriptor may be another test's.
func (k kind) start(t *testing.T, handle func() error, opts ...server.Option) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	svr := k.serve(handle, append(opts, server.WithListener(ln), server.WithExitSignal(func() <-chan error { return nil }))...)
	go func() { _ = svr.Run() }()
	return ln.Addr().String()
}

// rawServer accepts connections and does with each as told.
func rawServer(t *testing.T, treat func(*net.TCPConn)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		var conns []net.Conn
		defer func() {
			for _, c := range conns {
				c.Close()
			}
		}()
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			conns = append(conns, c)
			treat(c.(*net.TCPConn))
		}
	}()
	t.Cleanup(func() { ln.Close(); <-ended })
	return ln.Addr().String()
}

// fault is what goes wrong with a call.
type fault struct {
	addr func(*testing.T, kind) string
	warm bool // the fault comes with the second call
	ctx  func() (context.Context, context.CancelFunc)
	call string // the signal of a call; empty means none, a stroke "or"
	grpc string // over gRPC, if that is another: Kitex does not notice there that a connection ends before the first frame
	open string // the signal of the opening of a stream
	kept string // the signal of a call where the transport waits for the answer although the caller has left
}

func serverThat(handle func() error, opts ...server.Option) func(*testing.T, kind) string {
	return func(t *testing.T, k kind) string { return k.start(t, handle, opts...) }
}

func faults() map[string]fault {
	silent := func(t *testing.T, _ kind) string { return rawServer(t, func(*net.TCPConn) {}) }
	return map[string]fault{
		"nothing": {addr: serverThat(func() error { return nil }), call: "answered"},
		"refused": {addr: func(t *testing.T, _ kind) string {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			return ln.Addr().String()
		}, call: "no connection", open: "no connection"},
		"packets dropped": {addr: func(t *testing.T, _ kind) string {
			p := faultproxy.Start(t, "127.0.0.1:1")
			p.Drop(t)
			return p.Addr()
		}, call: "dial timeout", open: "dial timeout"},
		"closed before the answer": {addr: func(t *testing.T, _ kind) string {
			return rawServer(t, func(c *net.TCPConn) { _, _ = io.ReadFull(c, make([]byte, 16)); c.Close() })
		}, call: "closed", grpc: "no answer|closed", open: "|closed"},
		"reset before the answer": {addr: func(t *testing.T, _ kind) string {
			return rawServer(t, func(c *net.TCPConn) {
				_, _ = io.ReadFull(c, make([]byte, 16))
				_ = c.SetLinger(0)
				c.Close()
			})
		}, call: "closed", grpc: "no answer|closed", open: "|closed"},
		"reset during a later call": {warm: true, addr: func(t *testing.T, k kind) string {
			var p *faultproxy.Proxy
			var calls atomic.Int32
			p = faultproxy.Start(t, k.start(t, func() error {
				if calls.Add(1) == 1 {
					return nil
				}
				p.Cut()
				time.Sleep(2 * rpcTimeout) // longer than the client waits
				return nil
			}))
			return p.Addr()
		}, call: "closed"},
		"no answer":         {addr: silent, call: "no answer"},
		"an exception":      {addr: serverThat(func() error { return errors.New("an exception") }), call: "answered"},
		"a business error":  {addr: serverThat(func() error { return kerrors.NewBizStatusError(1, "a business error") }), call: "answered"},
		"Unavailable":       {addr: serverThat(func() error { return status.Err(codes.Unavailable, "unavailable") }), call: "answered", grpc: "closed"},
		"too many requests": {addr: serverThat(func() error { return nil }, server.WithLimit(&limit.Option{MaxQPS: 1, MaxConnections: 100})), call: "closed", grpc: "no answer|closed", open: "|closed"},
		"the caller cancels": {addr: silent, ctx: func() (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(context.Background())
			time.AfterFunc(leaves, cancel)
			return ctx, cancel
		}, kept: "no answer"},
		"the caller's deadline": {addr: silent, ctx: func() (context.Context, context.CancelFunc) {
			return context.WithTimeout(context.Background(), leaves)
		}, kept: "no answer"},
	}
}

var signalNames = map[health.Signal]string{
	health.Answered: "answered", health.NoConnection: "no connection", health.DialTimeout: "dial timeout",
	health.NoAnswer: "no answer", health.Closed: "closed",
}

// TestSignals: what a real client of Kitex makes of a fault, over each transport, is taken for what it is.
func TestSignals(t *testing.T) {
	for kindName, k := range kinds() {
		for faultName, f := range faults() {
			t.Run(kindName+"/"+faultName, func(t *testing.T) {
				t.Parallel()
				want := f.call
				switch {
				case k.stream:
					want = f.open
				case kindName == "gRPC" && f.grpc != "":
					want = f.grpc
				case !k.shared && f.kept != "":
					want = f.kept
				}
				type outcome struct {
					signal string
					err    error
				}
				got := make(chan outcome, 100)
				call := k.client(t, f.addr(t, k), []client.Option{
					client.WithConnectTimeout(connectTimeout), client.WithRPCTimeout(rpcTimeout),
					client.WithInstanceMW(func(next endpoint.Endpoint) endpoint.Endpoint {
						return func(ctx context.Context, req, resp any) error {
							began := time.Now()
							err := next(ctx, req, resp)
							took := time.Since(began)
							if !k.shared {
								took = 0
							}
							o := outcome{err: err}
							if s, ok := picking.SignalOf(ctx, resp, err, took); ok {
								o.signal = signalNames[s]
							}
							got <- o
							return err
						}
					}),
				})
				ctx, cancel := context.Background(), context.CancelFunc(func() {})
				if f.ctx != nil {
					ctx, cancel = f.ctx()
				} else if k.stream {
					ctx, cancel = context.WithTimeout(ctx, rpcTimeout)
				}
				defer cancel()
				if f.warm {
					if err := call(ctx); err != nil {
						t.Log(err)
					}
					<-got
				}
				err := call(ctx)
				if o := <-got; !slices.Contains(strings.Split(want, "|"), o.signal) {
					t.Errorf("signal %q, want %q; error of the attempt %v, of the call %v", o.signal, want, o.err, err)
				}
			})
		}
	}
}
