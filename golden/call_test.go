package golden

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/cloudwego/kitex/server"

	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
	"github.com/kitex-contrib/kitex-etcd/runtime/etcdtest"

	pbCombinedAPI "github.com/kitex-contrib/kitex-etcd/golden/protobuf_combined/kitex_gen/pb/shop"
	pbCombined "github.com/kitex-contrib/kitex-etcd/golden/protobuf_combined/kitex_gen/pb/shop/combineservice"
	pbStreamAPI "github.com/kitex-contrib/kitex-etcd/golden/protobuf_streaming/kitex_gen/pb/chat"
	pbStream "github.com/kitex-contrib/kitex-etcd/golden/protobuf_streaming/kitex_gen/pb/chat/chat"
	pbStreamxAPI "github.com/kitex-contrib/kitex-etcd/golden/protobuf_streamx/kitex_gen/pb/chat"
	pbStreamx "github.com/kitex-contrib/kitex-etcd/golden/protobuf_streamx/kitex_gen/pb/chat/chat"
	pbUnaryAPI "github.com/kitex-contrib/kitex-etcd/golden/protobuf_unary/kitex_gen/api"
	pbUnary "github.com/kitex-contrib/kitex-etcd/golden/protobuf_unary/kitex_gen/api/hello"
	combinedAPI "github.com/kitex-contrib/kitex-etcd/golden/thrift_combined/kitex_gen/api"
	combined "github.com/kitex-contrib/kitex-etcd/golden/thrift_combined/kitex_gen/api/combineservice"
	streamAPI "github.com/kitex-contrib/kitex-etcd/golden/thrift_streaming/kitex_gen/api"
	stream "github.com/kitex-contrib/kitex-etcd/golden/thrift_streaming/kitex_gen/api/chat"
	streamxAPI "github.com/kitex-contrib/kitex-etcd/golden/thrift_streamx/kitex_gen/api"
	streamx "github.com/kitex-contrib/kitex-etcd/golden/thrift_streamx/kitex_gen/api/chat"
	unaryAPI "github.com/kitex-contrib/kitex-etcd/golden/thrift_unary/kitex_gen/api"
	unary "github.com/kitex-contrib/kitex-etcd/golden/thrift_unary/kitex_gen/api/hello"
)

// kinds are the kinds of services: a server of each, and one exchange of a new client with it, which answers "hello".
var kinds = map[string]struct {
	serve    func(*etcd.Conn, ...server.Option) (server.Server, error)
	exchange func(context.Context, *etcd.Conn) (string, error)
}{
	"thrift_unary": {
		serve: func(conn *etcd.Conn, opts ...server.Option) (server.Server, error) {
			return unary.NewHelloServerWithEtcd(new(unaryImpl), conn, opts...)
		},
		exchange: func(ctx context.Context, conn *etcd.Conn) (string, error) {
			cli, err := unary.NewHelloClientWithEtcd(conn)
			if err != nil {
				return "", err
			}
			resp, err := cli.Echo(ctx, &unaryAPI.Request{Message: "hello"})
			if err != nil {
				return "", err
			}
			return resp.GetMessage(), nil
		},
	},
	"thrift_streaming": {
		serve: func(conn *etcd.Conn, opts ...server.Option) (server.Server, error) {
			return stream.NewChatServerWithEtcd(new(streamImpl), conn, opts...)
		},
		exchange: func(ctx context.Context, conn *etcd.Conn) (string, error) {
			cli, err := stream.NewChatStreamClientWithEtcd(conn)
			if err != nil {
				return "", err
			}
			talk, err := cli.Talk(ctx)
			if err != nil {
				return "", err
			}
			if err := talk.Send(&streamAPI.Request{Message: "hello"}); err != nil {
				return "", err
			}
			resp, err := talk.Recv()
			talk.Close()
			if err != nil {
				return "", err
			}
			return resp.GetMessage(), nil
		},
	},
	"thrift_streamx": {
		serve: func(conn *etcd.Conn, opts ...server.Option) (server.Server, error) {
			return streamx.NewChatServerWithEtcd(new(streamxImpl), conn, opts...)
		},
		exchange: func(ctx context.Context, conn *etcd.Conn) (string, error) {
			cli, err := streamx.NewChatClientWithEtcd(conn)
			if err != nil {
				return "", err
			}
			talk, err := cli.Talk(ctx)
			if err != nil {
				return "", err
			}
			if err := talk.Send(ctx, &streamxAPI.Request{Message: "hello"}); err != nil {
				return "", err
			}
			resp, err := talk.Recv(ctx)
			talk.CloseSend(ctx)
			if err != nil {
				return "", err
			}
			return resp.GetMessage(), nil
		},
	},
	"thrift_combined": {
		serve: func(conn *etcd.Conn, opts ...server.Option) (server.Server, error) {
			return combined.NewCombineServiceServerWithEtcd(new(combinedImpl), conn, opts...)
		},
		exchange: func(ctx context.Context, conn *etcd.Conn) (string, error) {
			cli, err := combined.NewCombineServiceClientWithEtcd(conn)
			if err != nil {
				return "", err
			}
			placed, err := cli.Place(ctx, &combinedAPI.Request{Message: "hel"})
			if err != nil {
				return "", err
			}
			counted, err := cli.Count(ctx, &combinedAPI.Request{Message: "lo"})
			if err != nil {
				return "", err
			}
			return placed.GetMessage() + counted.GetMessage(), nil
		},
	},
	"protobuf_unary": {
		serve: func(conn *etcd.Conn, opts ...server.Option) (server.Server, error) {
			return pbUnary.NewHelloServerWithEtcd(new(pbUnaryImpl), conn, opts...)
		},
		exchange: func(ctx context.Context, conn *etcd.Conn) (string, error) {
			cli, err := pbUnary.NewHelloClientWithEtcd(conn)
			if err != nil {
				return "", err
			}
			resp, err := cli.Echo(ctx, &pbUnaryAPI.Request{Message: "hello"})
			if err != nil {
				return "", err
			}
			return resp.GetMessage(), nil
		},
	},
	"protobuf_streaming": {
		serve: func(conn *etcd.Conn, opts ...server.Option) (server.Server, error) {
			return pbStream.NewChatServerWithEtcd(new(pbStreamImpl), conn, opts...)
		},
		exchange: func(ctx context.Context, conn *etcd.Conn) (string, error) {
			cli, err := pbStream.NewChatStreamClientWithEtcd(conn)
			if err != nil {
				return "", err
			}
			talk, err := cli.Talk(ctx)
			if err != nil {
				return "", err
			}
			if err := talk.Send(&pbStreamAPI.Request{Message: "hello"}); err != nil {
				return "", err
			}
			resp, err := talk.Recv()
			talk.Close()
			if err != nil {
				return "", err
			}
			return resp.GetMessage(), nil
		},
	},
	"protobuf_streamx": {
		serve: func(conn *etcd.Conn, opts ...server.Option) (server.Server, error) {
			return pbStreamx.NewChatServerWithEtcd(new(pbStreamxImpl), conn, opts...)
		},
		exchange: func(ctx context.Context, conn *etcd.Conn) (string, error) {
			cli, err := pbStreamx.NewChatClientWithEtcd(conn)
			if err != nil {
				return "", err
			}
			talk, err := cli.Talk(ctx)
			if err != nil {
				return "", err
			}
			if err := talk.Send(ctx, &pbStreamxAPI.Request{Message: "hello"}); err != nil {
				return "", err
			}
			resp, err := talk.Recv(ctx)
			talk.CloseSend(ctx)
			if err != nil {
				return "", err
			}
			return resp.GetMessage(), nil
		},
	},
	"protobuf_combined": {
		serve: func(conn *etcd.Conn, opts ...server.Option) (server.Server, error) {
			return pbCombined.NewCombineServiceServerWithEtcd(new(pbCombinedImpl), conn, opts...)
		},
		exchange: func(ctx context.Context, conn *etcd.Conn) (string, error) {
			cli, err := pbCombined.NewCombineServiceClientWithEtcd(conn)
			if err != nil {
				return "", err
			}
			resp, err := cli.Place(ctx, &pbCombinedAPI.Request{Message: "hello"})
			if err != nil {
				return "", err
			}
			return resp.GetMessage(), nil
		},
	},
}

// Each handler echoes one method; the rest of its interface is not called.
type (
	unaryImpl      struct{}
	streamImpl     struct{ streamAPI.Chat }
	streamxImpl    struct{ streamxAPI.Chat }
	combinedImpl   struct{}
	pbUnaryImpl    struct{}
	pbStreamImpl   struct{ pbStreamAPI.Chat }
	pbStreamxImpl  struct{ pbStreamxAPI.Chat }
	pbCombinedImpl struct{ pbCombined.CombineService }
)

func (unaryImpl) Echo(_ context.Context, req *unaryAPI.Request) (*unaryAPI.Response, error) {
	return &unaryAPI.Response{Message: req.Message}, nil
}

func (streamImpl) Talk(stream streamAPI.Chat_talkServer) error {
	req, err := stream.Recv()
	if err != nil {
		return err
	}
	return stream.Send(&streamAPI.Response{Message: req.Message})
}

func (streamxImpl) Talk(ctx context.Context, stream streamxAPI.Chat_talkServer) error {
	req, err := stream.Recv(ctx)
	if err != nil {
		return err
	}
	return stream.Send(ctx, &streamxAPI.Response{Message: req.Message})
}

func (combinedImpl) Place(_ context.Context, req *combinedAPI.Request) (*combinedAPI.Response, error) {
	return &combinedAPI.Response{Message: req.Message}, nil
}

func (combinedImpl) Count(_ context.Context, req *combinedAPI.Request) (*combinedAPI.Response, error) {
	return &combinedAPI.Response{Message: req.Message}, nil
}

func (pbUnaryImpl) Echo(_ context.Context, req *pbUnaryAPI.Request) (*pbUnaryAPI.Response, error) {
	return &pbUnaryAPI.Response{Message: req.Message}, nil
}

func (pbStreamImpl) Talk(stream pbStreamAPI.Chat_TalkServer) error {
	req, err := stream.Recv()
	if err != nil {
		return err
	}
	return stream.Send(&pbStreamAPI.Response{Message: req.Message})
}

func (pbStreamxImpl) Talk(ctx context.Context, stream pbStreamxAPI.Chat_TalkServer) error {
	req, err := stream.Recv(ctx)
	if err != nil {
		return err
	}
	return stream.Send(ctx, &pbStreamxAPI.Response{Message: req.Message})
}

func (pbCombinedImpl) Place(_ context.Context, req *pbCombinedAPI.Request) (*pbCombinedAPI.Response, error) {
	return &pbCombinedAPI.Response{Message: req.Message}, nil
}

// TestCalls calls a service of each kind, through etcd, between two processes.
func TestCalls(t *testing.T) {
	endpoints := etcdtest.Start(t).Endpoints()
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), serveEnv+"="+strings.Join(endpoints, ","))
	var log strings.Builder
	child.Stdout, child.Stderr = &log, &log
	stdin, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		if err := child.Wait(); err != nil || t.Failed() {
			t.Errorf("servers: %v\n%s", err, log.String())
		}
	})
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) {
			conn, err := connect(endpoints, name)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if answer, err := poll(ctx, func() (string, error) { return kind.exchange(ctx, conn) }); answer != "hello" {
				t.Errorf("answer %q, %v", answer, err)
			}
		})
	}
}

// poll calls until there is an answer: Kitex registers a second after it listens, and says nowhere that it has.
func poll(ctx context.Context, call func() (string, error)) (answer string, err error) {
	for {
		if answer, err = call(); err == nil {
			return answer, nil
		}
		select {
		case <-ctx.Done():
			return "", err
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// serveEnv makes the test binary a process of servers; its value are etcd's endpoints.
const serveEnv = "KITEX_ETCD_GOLDEN_SERVE"

// serveKinds runs a server of each kind until standard input ends. Stopping them is left to the end of the process.
func serveKinds(endpoints []string) error {
	failed := make(chan error, len(kinds)+1)
	for name, kind := range kinds {
		conn, err := connect(endpoints, name)
		if err != nil {
			return err
		}
		defer conn.Close()
		svr, err := kind.serve(conn, server.WithServiceAddr(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}))
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		go func() { failed <- svr.Run() }()
	}
	go func() {
		_, err := io.Copy(io.Discard, os.Stdin)
		failed <- err
	}()
	return <-failed
}

// connect keeps the services of different cases apart, some of which have the same name.
func connect(endpoints []string, name string) (*etcd.Conn, error) {
	return etcd.Connect(endpoints, etcd.WithEtcdServicePrefix("golden/"+name))
}
