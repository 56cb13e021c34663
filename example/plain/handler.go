// Package plain is the handler of Hello, a thrift service; server and client beside it are the programs.
package plain

import (
	"context"

	"github.com/kitex-contrib/kitex-etcd/example/plain/kitex_gen/api"
)

//go:generate go tool kitex -module github.com/kitex-contrib/kitex-etcd hello.thrift
//go:generate go tool kitex-etcd-gen

// Handler implements Hello. Name is what tells one server from another.
type Handler struct{ Name string }

// Echo answers with the message and the server's name.
func (h *Handler) Echo(ctx context.Context, req *api.Request) (*api.Response, error) {
	return &api.Response{Message: req.Message, Server: h.Name}, nil
}
