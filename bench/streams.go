package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/cloudwego/kitex/client"
	old "github.com/kitex-contrib/registry-etcd"

	"github.com/kitex-contrib/kitex-etcd/golden/thrift_streamx/kitex_gen/api"
	"github.com/kitex-contrib/kitex-etcd/golden/thrift_streamx/kitex_gen/api/chat"
)

const (
	streamPatience = 2 * time.Second // for one stream
	streamsAfter   = 100             // a kill
)

// streamFamily is Kitex's streams over TTHeader, whose connections Kitex keeps by itself.
func streamFamily() family {
	return family{
		name:  "stream_kill",
		quick: 1,
		about: fmt.Sprintf("kill -9 of one of three servers of streams over TTHeader (ttstream). Then %d streams are opened, one after the other, of which "+
			"each gets one message; one that takes longer than %s hangs, and ends the turn at the third", streamsAfter, duration.format(float64(streamPatience))),
		rows: []row{
			{name: "stream_kill_hung", what: "streams that hang", unit: count, targets: []target{atMost(0)}},
			{name: "stream_kill_failed", what: "streams that fail", unit: count, targets: []target{atMost(1)}},
		},
		open: func(b *bench) ([]side, error) {
			turns := 0
			return eachSide(func(ctx context.Context, lib string) (values, error) {
				turns++
				return streamTurn(ctx, b, lib, fmt.Sprintf("bench-stream-%d", turns))
			}), nil
		},
	}
}

func streamTurn(ctx context.Context, b *bench, lib, service string) (values, error) {
	servers, err := b.startServers(ctx, serverOf{role: "streams", lib: lib, service: service}, 3)
	if err != nil {
		return nil, err
	}
	defer killAll(servers)
	open, err := b.streamCaller(lib, service)
	if err != nil {
		return nil, err
	}
	answered := make(map[string]bool)
	if err := await(ctx, "a stream to each server", 20*time.Second, func() bool {
		addr, err := open(ctx)
		answered[addr] = err == nil
		return len(answered) == len(servers) && !answered[""]
	}); err != nil {
		return nil, err
	}
	servers[0].kill()
	var hung, failed float64
	for n := 0; n < streamsAfter && hung < 3; n++ {
		switch _, err := open(ctx); {
		case errors.Is(err, context.DeadlineExceeded):
			hung++
		case err != nil:
			failed++
		}
	}
	return values{"stream_kill_hung": {hung}, "stream_kill_failed": {failed}}, ctx.Err()
}

// streamCaller returns what opens a stream and says who answered. It gives up a stream that hangs, which may not end at all.
func (b *bench) streamCaller(lib, service string) (func(context.Context) (addr string, err error), error) {
	var opts []client.Option
	if lib == ours {
		conn, err := b.connect()
		if err != nil {
			return nil, err
		}
		opts = conn.ClientOptions()
	} else {
		r, err := old.NewEtcdResolver(b.etcd.endpoints, quietly)
		if err != nil {
			return nil, err
		}
		opts = []client.Option{client.WithResolver(alone{r, fmt.Sprintf("etcd-%d", resolvers.Add(1))})}
	}
	cli, err := chat.NewClient(service, opts...)
	if err != nil {
		return nil, err
	}
	type answer struct {
		addr string
		err  error
	}
	return func(ctx context.Context) (string, error) {
		ctx, cancel := context.WithTimeout(ctx, streamPatience)
		answers := make(chan answer, 1)
		go func() {
			defer cancel()
			addr, err := download(ctx, cli)
			answers <- answer{addr, err}
		}()
		select {
		case a := <-answers:
			return a.addr, a.err
		case <-time.After(streamPatience + time.Second):
			return "", context.DeadlineExceeded
		}
	}, nil
}

func download(ctx context.Context, cli chat.Client) (string, error) {
	stream, err := cli.Download(ctx, &api.Request{})
	if err != nil {
		return "", err
	}
	resp, err := stream.Recv(ctx)
	if err != nil {
		return "", err
	}
	if _, err := stream.Recv(ctx); !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("the stream does not end: %w", err)
	}
	return resp.Message, nil
}

// chatServer answers a stream with its own address.
type chatServer struct {
	api.Chat
	addr string
}

func (s *chatServer) Download(ctx context.Context, _ *api.Request, stream api.Chat_downloadServer) error {
	return stream.Send(ctx, &api.Response{Message: s.addr})
}
