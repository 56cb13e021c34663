package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/cloudwego/kitex/client"
)

// firstFamily is the first call of a client.
func firstFamily() family {
	pauses := []struct {
		name string
		d    time.Duration
	}{{"first_10ms", 10 * time.Millisecond}, {"first_0ms", 0}}
	return family{
		name:  "first",
		quick: 2,
		about: "The first call of a client, which has its connection to etcd to itself, 10 ms after it was made and at once; the floor is Kitex's client " +
			"of an address that it is told",
		rows: []row{
			{name: "first_10ms", what: "the first call, 10 ms after the client was made", unit: duration,
				targets: []target{{of: nothing, times: 1, plus: float64(500 * time.Microsecond)}}},
			{name: "first_0ms", what: "at once", unit: duration},
		},
		open: func(b *bench) ([]side, error) {
			server, err := b.serve()
			if err != nil {
				return nil, err
			}
			onGRPCServer, err := b.serveGRPC()
			if err != nil {
				return nil, err
			}
			var sides []side
			for _, lib := range append([]string{nothing}, callingLibs...) {
				service, at := "bench-first-"+lib, server
				if onGRPC(lib) {
					at = onGRPCServer
				}
				if lib != nothing {
					if err := b.etcd.put(b.ctx, []pair{peerOf(lib).record(service, at)}); err != nil {
						return nil, err
					}
				}
				sides = append(sides, side{lib, func(ctx context.Context) (values, error) {
					v := make(values)
					for range b.pick(10, 5) {
						for _, p := range pauses {
							took, err := b.firstCall(ctx, lib, service, server, p.d)
							if err != nil {
								return nil, err
							}
							v[p.name] = append(v[p.name], float64(took))
						}
					}
					return v, nil
				}})
			}
			return sides, nil
		},
	}
}

// firstCall makes a client, waits and calls once.
func (b *bench) firstCall(ctx context.Context, lib, service, server string, wait time.Duration) (time.Duration, error) {
	var call func(context.Context) (string, error)
	if onGRPC(lib) {
		var err error
		if call, err = b.grpcCaller(lib, service, 3*time.Second); err != nil {
			return 0, err
		}
	} else {
		o := callerOptions{endpoints: b.etcd.endpoints}
		if lib == nothing {
			o.options = []client.Option{client.WithHostPorts(server)}
		}
		c, err := b.newCaller(lib, service, o)
		if err != nil {
			return 0, err
		}
		call = c.call
	}
	if err := pause(ctx, wait); err != nil {
		return 0, err
	}
	begin := time.Now()
	_, err := call(ctx)
	return time.Since(begin), err
}

// firstDownFamily is the first call of a client whose etcd is down.
func firstDownFamily() family {
	const timeout = 500 * time.Millisecond
	return family{
		name:   "unanswered",
		rounds: 3,
		quick:  1,
		about:  fmt.Sprintf("The first call of a client with a timeout of %s, whose etcd refuses connections", duration.format(float64(timeout))),
		rows: []row{
			{name: "unanswered", what: "until the call has failed", unit: duration, targets: []target{atMost(float64(timeout))}},
			{name: "unanswered_mute", what: "of 10 calls, those whose error does not name the cause (connection refused)", unit: count,
				targets: []target{atMost(0)}},
		},
		open: func(b *bench) ([]side, error) {
			away, err := b.proxy()
			if err != nil {
				return nil, err
			}
			away.shut()
			return eachSide(func(ctx context.Context, lib string) (values, error) {
				v := make(values)
				mute := 0.0
				for i := range 10 {
					c, err := b.newCaller(lib, fmt.Sprintf("bench-unanswered-%d", i), callerOptions{endpoints: away.endpoints(), timeout: timeout})
					if err != nil {
						return nil, err
					}
					begin := time.Now()
					_, err = c.call(ctx)
					v["unanswered"] = append(v["unanswered"], float64(time.Since(begin)))
					if err == nil {
						return nil, fmt.Errorf("a call of %s was answered, with etcd down", lib)
					}
					if !strings.Contains(err.Error(), "connection refused") {
						mute++
					}
				}
				v["unanswered_mute"] = []float64{mute}
				return v, ctx.Err()
			}), nil
		},
	}
}
