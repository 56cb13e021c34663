// Package lanes holds the handlers of Front and Back, whose servers are in the folders beside it.
package lanes

import (
	"context"

	"github.com/bytedance/gopkg/cloud/metainfo"
	"github.com/cloudwego/kitex/client"
	"github.com/cloudwego/kitex/pkg/transmeta"
	"github.com/cloudwego/kitex/server"
	"github.com/cloudwego/kitex/transport"

	"github.com/kitex-contrib/kitex-etcd/example/lanes/kitex_gen/lanes/back"
	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
)

//go:generate go tool kitex -module github.com/kitex-contrib/kitex-etcd lanes.thrift
//go:generate go tool kitex-etcd-gen

// Tag is the tag of a server's record that names its lane, and the key under which a call carries its own.
const Tag = "lane"

// ClientOptions are those of every client: calls go to their lane, and carry it on.
func ClientOptions() []client.Option {
	return []client.Option{
		etcd.Lane(Tag, func(ctx context.Context) string {
			lane, _ := metainfo.GetPersistentValue(ctx, Tag)
			return lane
		}),
		// What carries metainfo from hop to hop.
		client.WithTransportProtocol(transport.TTHeader),
		client.WithMetaHandler(transmeta.ClientTTHeaderHandler),
	}
}

// ServerOption receives what clients carry on.
func ServerOption() server.Option { return server.WithMetaHandler(transmeta.ServerTTHeaderHandler) }

// BackHandler answers with the place that its server is in.
type BackHandler struct{ Name string }

// Place implements Back.
func (h *BackHandler) Place(context.Context) (string, error) { return h.Name, nil }

// FrontHandler answers with the places of all hops of a call.
type FrontHandler struct {
	Name string
	Back back.Client
}

// Places implements Front.
func (h *FrontHandler) Places(ctx context.Context) ([]string, error) {
	next, err := h.Back.Place(ctx)
	if err != nil {
		return nil, err
	}
	return []string{h.Name, next}, nil
}
