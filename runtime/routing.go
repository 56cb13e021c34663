package etcd

import (
	"context"
	"fmt"

	"github.com/cloudwego/kitex/client"
	"github.com/cloudwego/kitex/pkg/utils"

	"github.com/kitex-contrib/kitex-etcd/runtime/internal/picking"
)

// Prefer returns the option of a client whose calls go to the instances that have the tag with that value while at least atLeast of
// them are usable, and to all instances otherwise. Ejected instances are not usable; see [WithEjection]. It works with any
// balancer, in any order with client.WithLoadBalancer. The choice is made when the list changes, not for each call.
//
//	cli, err := hello.NewHelloClientWithEtcd(conn, etcd.Prefer("zone", zone, 2))
//
// An empty tag or value, atLeast below 1, and two different Prefers for one client are errors of the generated constructor. Kitex's
// own constructors panic, as they do for its own options. A client without a Conn may have it, too: its resolver has to give instances
// with tags, and the choice is made at Kitex's refresh.
func Prefer(tag, value string, atLeast int) client.Option {
	if tag == "" || value == "" || atLeast < 1 {
		return invalidOption(fmt.Sprintf("etcd: Prefer(%q, %q, %d): tag and value must not be empty, and at least 1 instance has to be usable", tag, value, atLeast))
	}
	return picking.Route{Prefer: &picking.Prefer{Tag: tag, Value: value, AtLeast: atLeast}}.Option()
}

// Lane returns the option of a client whose calls go to the instances that have the tag with the value that of returns for the
// call's context. A call for which of returns the empty string, or a lane that has no usable instance, goes to the instances
// without the tag, never to those of another lane. Together with [Prefer] the lane comes first.
//
// of is called for each call, must be safe for concurrent use and should return at once. When it panics the call goes to the instances
// without the tag, and one log line says so. An empty tag, a nil function, and two Lanes for one client are errors as for
// Prefer; what one call of Lane returned may be given twice. A client without a Conn may have it as for Prefer.
func Lane(tag string, of func(context.Context) string) client.Option {
	if tag == "" || of == nil {
		return invalidOption(fmt.Sprintf("etcd: Lane(%q, …): the tag must not be empty, nor the function nil", tag))
	}
	return picking.Route{Lane: &picking.Lane{Tag: tag, Of: of}}.Option()
}

// invalidOption is an option that Kitex's constructors panic on, and ours make an error of.
func invalidOption(text string) client.Option {
	return client.Option{F: func(*client.Options, *utils.Slice) { panic(text) }}
}
