package etcd

import (
	"context"
	"fmt"

	"github.com/cloudwego/kitex/client"
	"github.com/cloudwego/kitex/pkg/utils"

	"github.com/kitex-contrib/kitex-etcd/runtime/internal/picking"
)

// Prefer returns a client option: calls go to the instances whose tag has this value, if at least atLeast of them are usable. Otherwise
// they go to all instances. Ejected instances are not usable; see [WithEjection]. The choice is made when the list changes, not for each
// call. It works with each load balancer; the order of the options does not matter.
//
//	cli, err := hello.NewHelloClientWithEtcd(conn, etcd.Prefer("zone", zone, 2))
//
// These are errors of the generated constructor: an empty tag or value, atLeast below 1, two different Prefers for one client. Kitex's
// own constructors panic, as they do for Kitex's options. A client without a Conn may have the option too, if its resolver gives
// instances with tags; then the choice is made at Kitex's refresh.
func Prefer(tag, value string, atLeast int) client.Option {
	if tag == "" || value == "" || atLeast < 1 {
		return invalidOption(fmt.Sprintf("etcd: Prefer(%q, %q, %d): tag and value must not be empty, and at least 1 instance has to be usable", tag, value, atLeast))
	}
	return picking.Route{Prefer: &picking.Prefer{Tag: tag, Value: value, AtLeast: atLeast}}.Option()
}

// Lane returns a client option: of returns the lane of a call, and the call goes to the instances whose tag has this value. If of returns
// an empty string, or the lane has no usable instance, the call goes to the instances without the tag. It never goes to another lane.
// Together with [Prefer], the lane is applied first.
//
// of is called for each call. It must be safe for concurrent use and should return at once. If it panics, the call goes to the instances
// without the tag, and one log line says so. An empty tag, a nil function, and two Lanes for one client are errors, as for Prefer; the
// same Lane may be given twice. A client without a Conn may have the option, as for Prefer.
func Lane(tag string, of func(context.Context) string) client.Option {
	if tag == "" || of == nil {
		return invalidOption(fmt.Sprintf("etcd: Lane(%q, …): the tag must not be empty, nor the function nil", tag))
	}
	return picking.Route{Lane: &picking.Lane{Tag: tag, Of: of}}.Option()
}

// invalidOption is an option with which Kitex's constructors panic; ours return the error.
func invalidOption(text string) client.Option {
	return client.Option{F: func(*client.Options, *utils.Slice) { panic(text) }}
}
