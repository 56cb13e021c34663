package etcd

import (
	"github.com/cloudwego/kitex/client"
	"github.com/cloudwego/kitex/pkg/discovery"
)

type directory struct{}

func newDirectory(*Conn) *directory { return nil }

func (c *Conn) Resolver() discovery.Resolver { return nil }

func (c *Conn) ClientOptions(opts ...client.Option) []client.Option { return nil }
