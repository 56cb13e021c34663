package link

import (
	"context"
	"slices"
	"strconv"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/metadata"
)

// WatchContext returns the context for a watch, and the stream that it uses. etcd ends the watch when its member has no leader. Watches with the same metadata
// share one stream of the connection, and a stream keeps the token it began with: after RefusedWatch the next watches
// get another stream.
func (l *Link) WatchContext(ctx context.Context) (watch context.Context, stream int64) {
	if stream = l.stream.Load(); stream > 0 {
		ctx = metadata.AppendToOutgoingContext(ctx, "kitex-etcd-stream", strconv.FormatInt(stream, 10))
	}
	return clientv3.WithRequireLeader(ctx), stream
}

// streamRefusals are what etcd says to a stream whose token is not, or no longer, good, or that has none because etcd asked for
// none when it began.
var streamRefusals = []error{rpctypes.ErrInvalidAuthToken, rpctypes.ErrAuthOldRevision, rpctypes.ErrPermissionDenied, rpctypes.ErrUserEmpty}

// RefusedWatch says whether etcd refused a watch for the token of its stream, and then has the next watches use another: one for
// all of those that the stream had. A watch's error is but text to the etcd client.
func (l *Link) RefusedWatch(err error, stream int64) bool {
	refused := err != nil && slices.ContainsFunc(streamRefusals, func(refusal error) bool { return strings.HasSuffix(err.Error(), refusal.Error()) })
	if refused {
		l.stream.CompareAndSwap(stream, stream+1)
	}
	return refused
}
