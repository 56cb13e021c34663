package picking

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/cloudwego/kitex/pkg/kerrors"
	"github.com/cloudwego/kitex/pkg/remote"
	"github.com/cloudwego/kitex/pkg/remote/codec/protobuf"
	"github.com/cloudwego/kitex/pkg/remote/trans/netpollmux"
	"github.com/cloudwego/kitex/pkg/remote/trans/nphttp2/codes"
	"github.com/cloudwego/kitex/pkg/remote/trans/nphttp2/grpc"
	"github.com/cloudwego/kitex/pkg/remote/trans/nphttp2/status"
	"github.com/cloudwego/kitex/pkg/rpcinfo"
	"github.com/cloudwego/kitex/pkg/streaming"
	"github.com/cloudwego/netpoll"

	"github.com/kitex-contrib/kitex-etcd/runtime/internal/health"
)

// attempt is what became of one attempt of a call, or of the opening of a stream.
type attempt struct {
	ctx     context.Context
	err     error
	opening bool          // of a stream
	oneway  bool          // nobody answers
	timeout time.Duration // for the call; 0 means none
	took    time.Duration // 0 where the transport itself keeps the timeout
}

func newAttempt(ctx context.Context, ri rpcinfo.RPCInfo, resp any, err error) attempt {
	_, opening := resp.(*streaming.Result)
	method := ri.Invocation().MethodInfo()
	return attempt{
		ctx:     ctx,
		err:     err,
		opening: opening,
		oneway:  method != nil && method.OneWay(),
		timeout: ri.Config().RPCTimeout(),
	}
}

// signal is what the attempt says about the instance; false means nothing: it was ended by its caller, or refused on this side.
func (a *attempt) signal() (health.Signal, bool) {
	switch {
	case a.err == nil:
		// A stream is open, or a message gone, before the other side has said anything.
		return health.Answered, !a.opening && !a.oneway
	case errors.Is(a.err, kerrors.ErrOverlimit), errors.Is(a.err, kerrors.ErrCircuitBreak):
		return 0, false
	case errors.As(a.err, new(grpc.ConnectionError)): // one that was made
		return health.Closed, true
	case isDial(a.err):
		return dialSignal(a.err)
	case isClosed(a.err):
		return health.Closed, true
	}
	var s interface{ GRPCStatus() *status.Status }
	switch {
	case errors.As(a.err, &s):
		switch s.GRPCStatus().Code() {
		case codes.Unavailable:
			return health.Closed, true
		case codes.Canceled:
			return 0, false
		case codes.DeadlineExceeded:
			return health.NoAnswer, a.timedOut()
		}
		return health.Answered, !a.opening
	case errors.Is(a.err, kerrors.ErrRPCTimeout), a.ctx.Err() != nil:
		return health.NoAnswer, a.timedOut()
	}
	return health.Answered, isAnswer(a.err)
}

// timedOut says whether it was the time for the call that ended, and not its caller's own.
func (a *attempt) timedOut() bool {
	if a.took == 0 {
		return errors.Is(a.err, kerrors.ErrRPCTimeout) // the transport goes on waiting when the caller has left
	}
	const inaccuracy = 5 * time.Millisecond // of timers
	return a.timeout > 0 && a.took >= a.timeout-inaccuracy
}

// isDial says whether an attempt ended with the making of a connection. Streams of TTHeader tell it in their own way.
func isDial(err error) bool {
	var op *net.OpError
	return errors.Is(err, kerrors.ErrGetConnection) || errors.As(err, &op) && op.Op == "dial"
}

// ownFault are the words of those errors of a dial that have their cause on this side, its caller included. Kitex's pools keep no
// more than words.
var ownFault = []string{
	"context canceled", "context deadline exceeded",
	"pool has been closed", "transports have been closed", "too many open files", "cannot assign requested address", "no buffer space", "cannot allocate memory",
	"operation not permitted", "permission denied",
}

// dialSignal is what it says that there was no connection. A refusal has no text that is only for it: netpoll calls it a connection
// that was closed. A dial goes on when its caller has left, and then tells as much.
func dialSignal(err error) (health.Signal, bool) {
	text := err.Error()
	switch {
	case slices.ContainsFunc(ownFault, func(words string) bool { return strings.Contains(text, words) }):
		return 0, false
	case strings.Contains(text, "timeout"), strings.Contains(text, "timed out"):
		return health.DialTimeout, true
	}
	return health.NoConnection, true
}

// isClosed says whether a connection ended before there was an answer.
func isClosed(err error) bool {
	for _, end := range []error{netpoll.ErrConnClosed, netpollmux.ErrConnClosed, netpoll.ErrEOF, io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.EPIPE, net.ErrClosed} {
		if errors.Is(err, end) {
			return true
		}
	}
	return false
}

// isAnswer says whether an error came from the other side: an exception, of whatever kind.
func isAnswer(err error) bool {
	var exception *remote.TransError
	var pb protobuf.PBError
	return errors.As(err, &exception) || errors.As(err, &pb) || strings.Contains(err.Error(), "biz error")
}
