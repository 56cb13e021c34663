package picking

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cloudwego/kitex/pkg/endpoint"
	"github.com/cloudwego/kitex/pkg/kerrors"
	"github.com/cloudwego/kitex/pkg/rpcinfo"
	"github.com/cloudwego/kitex/pkg/rpcinfo/remoteinfo"

	"github.com/kitex-contrib/kitex-etcd/runtime/internal/discovery"
)

// awaitFirst returns a client middleware that waits, until its service is known, as each caller's context has it: Kitex's own wait is
// shared by all callers, and is that of the first of them.
func (r *Resolver) awaitFirst(context.Context) endpoint.Middleware {
	var known atomic.Bool
	return func(next endpoint.Endpoint) endpoint.Endpoint {
		return func(ctx context.Context, req, resp any) error {
			if !known.Load() {
				if err := r.await(ctx); err != nil {
					return kerrors.ErrServiceDiscovery.WithCause(err)
				}
				known.Store(true)
			}
			return next(ctx, req, resp)
		}
	}
}

// await waits until the service of a call is known. A call that was given its instance needs none.
func (r *Resolver) await(ctx context.Context) error {
	info := rpcinfo.GetRPCInfo(ctx)
	if info == nil || info.To() == nil {
		return nil
	}
	if remote := remoteinfo.AsRemoteInfo(info.To()); remote != nil && remote.GetInstance() != nil {
		return nil
	}
	s, err := r.dir.Service(info.To().ServiceName())
	if err == nil && !s.Known() {
		_, err = s.Get(ctx)
	}
	return err
}

// explainEmpty is a client middleware that adds to Kitex's "no more instance" what it means here.
func (r *Resolver) explainEmpty(next endpoint.Endpoint) endpoint.Endpoint {
	return func(ctx context.Context, req, resp any) error {
		err := next(ctx, req, resp)
		if err == nil || !errors.Is(err, kerrors.ErrNoMoreInstance) {
			return err
		}
		info := rpcinfo.GetRPCInfo(ctx)
		if info == nil || info.To() == nil {
			return err
		}
		s := r.dir.Known(info.To().ServiceName())
		if s == nil {
			return err
		}
		// Kitex's text for a call that had no attempt shows a nil error in the form of a mistaken format.
		what := strings.TrimSuffix(err.Error(), ": last error: %!w(<nil>)")
		return &emptyError{what + "; " + describeEmpty(s), err}
	}
}

// emptyError is Kitex's error in other words.
type emptyError struct {
	text string
	err  error
}

func (e *emptyError) Error() string { return e.text }
func (e *emptyError) Unwrap() error { return e.err }

func describeEmpty(s *discovery.Service) string {
	state := "has no instances"
	if n := len(s.Latest()); n > 0 {
		state = fmt.Sprintf("has %d instances of which the load balancer gave none", n)
	}
	heard := s.Synced()
	if stored := s.Stored(); !stored.IsZero() { // etcd was never heard of
		heard = stored
	}
	return fmt.Sprintf("etcd: service %s %s (keys %s…, last heard of %s ago); a call succeeds as soon as a server registers",
		s.Name(), state, s.Prefix(), time.Since(heard).Round(time.Millisecond))
}
