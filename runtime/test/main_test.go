package test

import (
	"fmt"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// TestMain fails when a test leaves a goroutine behind. Those that Kitex starts for the process, once for each of its
// packages or for each key that it will never free, are not the tests'.
func TestMain(m *testing.M) {
	childMain()
	code := m.Run()
	lasting := []goleak.Option{
		// One for each pair of intervals that clients have, and for each Conn whose resolver was given to a client alone: Kitex never stops a
		// balancer factory.
		goleak.IgnoreAnyFunction("github.com/cloudwego/kitex/pkg/loadbalance/lbcache.(*BalancerFactory).watcher"),
		// One for each refresh interval, until its last balancer has expired.
		goleak.IgnoreAnyFunction("github.com/cloudwego/kitex/pkg/utils.(*SharedTicker).Tick"),
		// Of the process: the workers that Kitex's clients run their calls with a timeout on, and their ticker.
		goleak.IgnoreAnyFunction("github.com/cloudwego/kitex/client.(*timeoutPool).createWorker.func1"),
		goleak.IgnoreAnyFunction("github.com/cloudwego/kitex/client.(*timeoutPool).createTicker.func1"),
		// One for the process: it prepares the streams of Kitex's gRPC clients.
		goleak.IgnoreAnyFunction("github.com/cloudwego/kitex/pkg/remote/trans/nphttp2/grpc.preallocateForStream"),
		// Of the process: netpoll's pollers and idle workers.
		goleak.IgnoreAnyFunction("github.com/cloudwego/netpoll.(*defaultPoll).Wait"),
		goleak.IgnoreAnyFunction("github.com/cloudwego/kitex/pkg/wpool.(*Pool).Tick"),
		goleak.IgnoreAnyFunction("github.com/bytedance/gopkg/util/gopool.(*worker).run.func1"),
		// One for each server with a limit of calls: Kitex never stops its ticker.
		goleak.IgnoreAnyFunction("github.com/cloudwego/kitex/pkg/limiter.(*qpsLimiter).startTicker"),
	}
	// etcd gives the connections among the members of a cluster five seconds to end.
	for deadline := time.Now().Add(10 * time.Second); code == 0; {
		err := goleak.Find(lasting...)
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}
