package etcd

import (
	"github.com/cloudwego/kitex/pkg/registry"
	"github.com/cloudwego/kitex/server"
)

type registrar struct{}

func newRegistrar(*Conn) *registrar { return nil }

func (*registrar) close() error { return nil }

func (c *Conn) Registry() registry.Registry { return nil }

func (c *Conn) ServerOptions(services ...string) []server.Option { return nil }
