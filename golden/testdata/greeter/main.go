// Greeter is a service repository as a user has it: two IDLs, the lines that generate code for them, a server and a client.
package main

//go:generate go tool kitex -module example.com/greeter hello.thrift
//go:generate go tool kitex -module example.com/greeter chat.proto
//go:generate go tool kitex-etcd-gen

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"time"

	"github.com/cloudwego/kitex/server"
	etcd "github.com/kitex-contrib/kitex-etcd/runtime"

	"example.com/greeter/kitex_gen/api"
	"example.com/greeter/kitex_gen/api/hello"
	pb "example.com/greeter/kitex_gen/pb/chat"
	"example.com/greeter/kitex_gen/pb/chat/chat"
)

type helloImpl struct{}

func (helloImpl) Echo(_ context.Context, req *api.Request) (*api.Response, error) {
	return &api.Response{Message: "hello " + req.Message}, nil
}

type chatImpl struct{ pb.Chat }

func (chatImpl) Talk(stream pb.Chat_TalkServer) error {
	for {
		req, err := stream.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := stream.Send(&pb.Response{Message: "chat " + req.Message}); err != nil {
			return err
		}
	}
}

// serve runs both services until standard input ends. Stopping is left to the end of the process.
func serve(conn *etcd.Conn) error {
	loopback := server.WithServiceAddr(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	greeter, err := hello.NewHelloServerWithEtcd(&helloImpl{}, conn, loopback)
	if err != nil {
		return err
	}
	talker, err := chat.NewChatServerWithEtcd(&chatImpl{}, conn, loopback)
	if err != nil {
		return err
	}
	failed := make(chan error, 2)
	go func() { failed <- greeter.Run() }()
	go func() { failed <- talker.Run() }()
	go func() {
		_, err := io.Copy(io.Discard, os.Stdin)
		failed <- err
	}()
	return <-failed
}

// call calls both services, as soon as they can be found.
func call(ctx context.Context, conn *etcd.Conn) error {
	greeter, err := hello.NewHelloClientWithEtcd(conn)
	if err != nil {
		return err
	}
	talker, err := chat.NewChatStreamClientWithEtcd(conn)
	if err != nil {
		return err
	}
	echo := func() (string, error) {
		resp, err := greeter.Echo(ctx, &api.Request{Message: "thrift"})
		if err != nil {
			return "", err
		}
		return resp.Message, nil
	}
	talk := func() (string, error) {
		stream, err := talker.Talk(ctx)
		if err != nil {
			return "", err
		}
		if err := stream.Send(&pb.Request{Message: "protobuf"}); err != nil {
			return "", err
		}
		resp, err := stream.Recv()
		if err != nil {
			return "", err
		}
		return resp.Message, stream.Close()
	}
	for _, call := range []func() (string, error){echo, talk} {
		answer, err := call()
		for err != nil && ctx.Err() == nil {
			time.Sleep(50 * time.Millisecond) // Kitex registers a second after it listens: tried until then
			answer, err = call()
		}
		if err != nil {
			return err
		}
		fmt.Println(answer)
	}
	return nil
}

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	conn, err := etcd.Connect(os.Args[2:])
	if err == nil {
		if os.Args[1] == "serve" {
			err = serve(conn)
		} else {
			err = call(ctx, conn)
		}
		conn.Close()
	}
	if err != nil {
		log.Fatal(err)
	}
}
