package picking

import (
	"context"
	"time"

	"github.com/cloudwego/kitex/pkg/rpcinfo"

	"github.com/kitex-contrib/kitex-etcd/runtime/internal/health"
)

// SignalOf is what the instance middleware makes of an attempt; took is 0 where many calls do not share a connection.
func SignalOf(ctx context.Context, resp any, err error, took time.Duration) (s health.Signal, ok bool) {
	a := newAttempt(ctx, rpcinfo.GetRPCInfo(ctx), resp, err)
	a.took = took
	return a.signal()
}
