package test

import (
	"context"
	"errors"
	"io"
	"os"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/cloudwego/kitex/client"
	"github.com/cloudwego/kitex/client/streamclient"

	"github.com/kitex-contrib/kitex-etcd/golden/protobuf_streaming/kitex_gen/pb/chat"
	chatservice "github.com/kitex-contrib/kitex-etcd/golden/protobuf_streaming/kitex_gen/pb/chat/chat"
	streamxAPI "github.com/kitex-contrib/kitex-etcd/golden/thrift_streamx/kitex_gen/api"
	streamx "github.com/kitex-contrib/kitex-etcd/golden/thrift_streamx/kitex_gen/api/chat"
	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
	"github.com/kitex-contrib/kitex-etcd/runtime/etcdtest"
)

// streamxServer answers a stream with its own address.
type streamxServer struct {
	streamxAPI.Chat
	addr string
}

func (s *streamxServer) Download(ctx context.Context, _ *streamxAPI.Request, stream streamxAPI.Chat_downloadServer) error {
	return stream.Send(ctx, &streamxAPI.Response{Message: s.addr})
}

// downloads makes clients of both kinds of streams, by the service that a child serves. Each returns what opens a stream, and reads all of
// it: the address of the server.
var downloads = map[string]func(*testing.T, *etcd.Conn, []client.Option) func(context.Context) (string, error){
	"StreamX": func(t *testing.T, conn *etcd.Conn, opts []client.Option) func(context.Context) (string, error) {
		c, err := streamx.NewChatClientWithEtcd(conn, append(slices.Clone(opts), closedAfter(t))...)
		if err != nil {
			t.Fatal(err)
		}
		return func(ctx context.Context) (string, error) {
			defer runtime.KeepAlive(c)
			stream, err := c.Download(ctx, &streamxAPI.Request{})
			if err != nil {
				return "", err
			}
			resp, err := stream.Recv(ctx)
			if err != nil {
				return "", err
			}
			_, err = stream.Recv(ctx)
			return resp.Message, notEOF(err)
		}
	},
	"Chat": func(t *testing.T, conn *etcd.Conn, opts []client.Option) func(context.Context) (string, error) {
		var all []streamclient.Option
		for _, opt := range opts {
			//lint:ignore SA1019 a stream client takes no other options
			all = append(all, streamclient.ConvertOptionFrom(opt))
		}
		c, err := chatservice.NewChatStreamClientWithEtcd(conn, all...)
		if err != nil {
			t.Fatal(err)
		}
		return func(ctx context.Context) (string, error) {
			defer runtime.KeepAlive(c)
			stream, err := c.Download(ctx, &chat.Request{})
			if err != nil {
				return "", err
			}
			resp, err := stream.Recv()
			if err != nil {
				return "", err
			}
			_, err = stream.Recv()
			return resp.Message, notEOF(err)
		}
	},
}

// TestEjectionStreams kills one of three servers while streams are opened, of both kinds. None hangs, and none fails but one
// that was open.
func TestEjectionStreams(t *testing.T) {
	for service, newDownload := range downloads {
		t.Run(service, func(t *testing.T) {
			cluster := etcdtest.Start(t)
			t.Setenv(childService, service)
			children := startChildren(t, cluster, 10*time.Second, 3)
			download := newDownload(t, connect(t, cluster), nil)
			open := func() (string, error) {
				ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
				defer cancel()
				return download(ctx)
			}
			answered := make(map[string]bool)
			eventually(t, "each answers", func() bool {
				addr, err := open()
				if err != nil {
					t.Fatal(err)
				}
				answered[addr] = true
				return len(answered) == 3
			})
			children[0].signal(t, os.Kill)
			_ = children[0].cmd.Wait()
			failed := 0
			for range 100 {
				addr, err := open()
				switch {
				case errors.Is(err, context.DeadlineExceeded):
					t.Fatalf("a stream hung: %v", err)
				case err != nil:
					failed++
					t.Logf("failed: %v", err)
				case addr == children[0].addr:
					t.Error("a dead server answered")
				}
			}
			if failed > 1 {
				t.Errorf("%d of 100 streams failed, want 1 at most", failed)
			}
		})
	}
}

func notEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}
