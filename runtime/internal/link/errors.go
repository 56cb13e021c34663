package link

import (
	"context"
	"errors"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// ErrClosed is what everything returns that is asked of a closed Conn.
var ErrClosed = errors.New("etcd: the Conn is closed; nothing can be registered or discovered through it any more")

// Refused says whether etcd answered and will answer the same until somebody changes its users or roles.
func Refused(err error) bool {
	return errors.Is(err, rpctypes.ErrAuthFailed) || errors.Is(err, rpctypes.ErrPermissionDenied) || errors.Is(err, rpctypes.ErrUserEmpty)
}

// errorCode is the gRPC code of an error of the etcd client.
func errorCode(err error) codes.Code {
	var e rpctypes.EtcdError
	switch {
	case errors.As(err, &e):
		return e.Code()
	case errors.Is(err, context.DeadlineExceeded):
		return codes.DeadlineExceeded
	case errors.Is(err, context.Canceled):
		return codes.Canceled
	}
	return status.Code(err)
}

// Permanent says whether etcd answered, and will answer the same until somebody changes the request, users or roles.
func Permanent(err error) bool {
	switch errorCode(err) {
	case codes.PermissionDenied, codes.InvalidArgument:
		return true
	}
	return TooLarge(err)
}

// TooLarge says whether etcd, or the etcd client, refused a request for its size.
func TooLarge(err error) bool {
	return errors.Is(err, rpctypes.ErrRequestTooLarge) || err != nil && errorCode(err) == codes.ResourceExhausted && strings.Contains(err.Error(), "larger than max")
}

// Unanswered says whether an error comes from an etcd that cannot be reached or has no leader.
func Unanswered(err error) bool {
	switch errorCode(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled:
		return true
	}
	return false
}

// NoLeader says whether a member refused because it has no leader. The error of a watch is but text to the etcd client.
func NoLeader(err error) bool {
	for ; err != nil; err = errors.Unwrap(err) {
		if strings.HasSuffix(err.Error(), rpctypes.ErrNoLeader.Error()) {
			return true
		}
	}
	return false
}
