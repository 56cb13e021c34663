// Package streaming is the handler of Ticker, a protobuf service with a stream; server and client beside it are the
// programs.
package streaming

import (
	"fmt"
	"time"

	"github.com/kitex-contrib/kitex-etcd/example/streaming/kitex_gen/pb"
)

//go:generate go tool kitex -module github.com/kitex-contrib/kitex-etcd ticker.proto
//go:generate go tool kitex-etcd-gen

// Handler implements Ticker.
type Handler struct{}

// Watch sends a tick at once, and one after each interval, until the client ends the stream.
func (*Handler) Watch(req *pb.WatchRequest, stream pb.Ticker_WatchServer) error {
	if req.IntervalMs <= 0 {
		return fmt.Errorf("interval_ms is %d, want more than 0", req.IntervalMs)
	}
	ticks := time.NewTicker(time.Duration(req.IntervalMs) * time.Millisecond)
	defer ticks.Stop()
	for n := int64(1); ; n++ {
		if err := stream.Send(&pb.Tick{Number: n}); err != nil {
			return err
		}
		select {
		case <-ticks.C:
		case <-stream.Context().Done():
			return nil
		}
	}
}
