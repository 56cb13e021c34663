package etcd

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/cloudwego/kitex/pkg/klog"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
)

const (
	// keepaliveTime and keepaliveTimeout bound how long a connection that swallows everything goes unnoticed when
	// nobody resets it. gRPC raises a shorter time to 10 s.
	keepaliveTime    = 10 * time.Second
	keepaliveTimeout = 3 * time.Second
	// maxReconnectDelay replaces gRPC's 120 s: after a long outage the first attempt would come minutes late.
	maxReconnectDelay = time.Second
	// authRetryDelay is the pause between two attempts to authenticate while etcd cannot be reached; after a refusal
	// it is the repair's RetryDelay.
	authRetryDelay = time.Second
)

// link is the Conn's one connection to etcd. It owns the etcd client, knows the sockets beneath it, and tells when a new
// connection is up. Safe for concurrent use.
type link struct {
	cfg *Config

	mu      sync.Mutex
	client  *clientv3.Client      // nil until it exists
	err     error                 // why there is no client yet; nil before the first attempt ended
	changed chan struct{}         // closed and replaced when client or err is set
	up      chan struct{}         // closed and replaced when a new connection is up
	trouble error                 // why the last call did not reach etcd; nil since one did
	sockets map[net.Conn]struct{} // those that dial made; closed ones leave at the next dial
}

// newLink makes the etcd client, which needs no network. With credentials that is otherwise, because the etcd client
// authenticates while it is made: run makes it then.
func newLink(cfg *Config) (*link, error) {
	l := &link{
		cfg:     cfg,
		client:  cfg.Client,
		changed: make(chan struct{}),
		up:      make(chan struct{}),
		sockets: make(map[net.Conn]struct{}),
	}
	if l.client == nil {
		l.completeEtcdConfig()
		if !l.authenticates() {
			cli, err := clientv3.New(*cfg.EtcdConfig)
			if err != nil {
				return nil, fmt.Errorf("etcd: make the client of %s: %w", l.target(), err)
			}
			l.client = cli
		}
	}
	return l, nil
}

func (l *link) authenticates() bool { return l.cfg.EtcdConfig.Username != "" }

// target names the endpoints for errors and logs.
func (l *link) target() string {
	if l.cfg.Client != nil {
		return strings.Join(l.cfg.Client.Endpoints(), ",")
	}
	return strings.Join(l.cfg.EtcdConfig.Endpoints, ",")
}

// completeEtcdConfig fills in what the caller left unset. The caller's dial options come last and win.
func (l *link) completeEtcdConfig() {
	e := l.cfg.EtcdConfig
	if e.DialTimeout == 0 {
		e.DialTimeout = DefaultDialTimeout
	}
	if e.DialKeepAliveTime == 0 {
		e.DialKeepAliveTime, e.DialKeepAliveTimeout = keepaliveTime, keepaliveTimeout
	}
	if e.Logger == nil && e.LogConfig == nil {
		e.Logger = zap.NewNop() // it warns at every attempt; the Conn reports changes of state
	}
	reconnect := backoff.DefaultConfig
	reconnect.MaxDelay = maxReconnectDelay
	reconnect.BaseDelay = min(reconnect.BaseDelay, maxReconnectDelay/4)
	opts := []grpc.DialOption{
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: reconnect, MinConnectTimeout: e.DialTimeout}),
		grpc.WithContextDialer(l.dial),
		grpc.WithStatsHandler(connectionObserver{l}),
		grpc.WithChainUnaryInterceptor(l.observeCall),
	}
	if l.cfg.tlsFiles != nil {
		opts = append(opts, grpc.WithTransportCredentials(newRotatingTLS(l.cfg.tlsFiles, e.TLS)))
	}
	e.DialOptions = append(opts, e.DialOptions...)
}

// run makes the client where that needs the network, and watches a client of the caller's for new connections.
func (l *link) run(ctx context.Context) {
	switch {
	case l.cfg.Client != nil:
		conn := l.cfg.Client.ActiveConnection()
		for state := conn.GetState(); conn.WaitForStateChange(ctx, state); {
			if state = conn.GetState(); state == connectivity.Ready {
				l.connected()
			}
		}
	case l.authenticates():
		l.authenticate(ctx)
	}
}

// authenticate makes the client, as often as it takes.
func (l *link) authenticate(ctx context.Context) {
	cfg := *l.cfg.EtcdConfig
	cfg.Context = ctx
	for {
		cli, err := clientv3.New(cfg)
		if err != nil {
			err = fmt.Errorf("etcd: authenticate as %q at %s: %w", cfg.Username, l.target(), l.explain(err))
		}
		first := l.set(cli, err)
		if err == nil || ctx.Err() != nil {
			return
		}
		if first {
			klog.Warnf("%v; trying on", err)
		}
		delay := authRetryDelay
		if refused(err) {
			delay = l.cfg.Retry.RetryDelay
		}
		if !sleep(ctx, jitter(delay)) {
			return
		}
	}
}

// set publishes the outcome of an attempt and says whether it was the first.
func (l *link) set(cli *clientv3.Client, err error) (first bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	first = l.err == nil
	l.client, l.err = cli, err
	close(l.changed)
	l.changed = make(chan struct{})
	return first
}

// refused says whether etcd answered and will answer the same until somebody changes its users or roles.
func refused(err error) bool {
	return errors.Is(err, rpctypes.ErrAuthFailed) || errors.Is(err, rpctypes.ErrPermissionDenied) || errors.Is(err, rpctypes.ErrUserEmpty)
}

// get returns the client, waiting for one to exist. A refusal by etcd is returned at once.
func (l *link) get(ctx context.Context) (*clientv3.Client, error) {
	for {
		l.mu.Lock()
		cli, err, changed := l.client, l.err, l.changed
		l.mu.Unlock()
		switch {
		case cli != nil:
			return cli, nil
		case refused(err):
			return nil, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			if err == nil {
				err = ctx.Err()
			}
			return nil, fmt.Errorf("etcd: no client of %s yet: %w", l.target(), err)
		}
	}
}

// current returns the client, nil while there is none.
func (l *link) current() *clientv3.Client {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.client
}

// nextUp returns a channel that is closed when the next new connection is up.
func (l *link) nextUp() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.up
}

func (l *link) connected() {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.up)
	l.up = make(chan struct{})
}

// observeCall keeps why the last call did not reach etcd. The etcd client drops it: its calls wait for a connection, and
// say only that they waited in vain.
func (l *link) observeCall(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	err := invoker(ctx, method, req, reply, cc, opts...)
	var trouble error
	switch s := status.Convert(err); s.Code() {
	case codes.Unavailable:
		trouble = errors.New(s.Message())
	case codes.Canceled, codes.DeadlineExceeded:
		_, why, ok := strings.Cut(s.Message(), "latest balancer error: ") // gRPC's words for a call that waited
		if !ok {
			return err // says nothing about the way to etcd
		}
		trouble = errors.New(why)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.trouble = trouble
	return err
}

// explain adds to err, where it says no more than that time was up, why etcd was not reached.
func (l *link) explain(err error) error {
	l.mu.Lock()
	trouble := l.trouble
	l.mu.Unlock()
	if trouble == nil || !errors.Is(err, context.DeadlineExceeded) && status.Code(err) != codes.DeadlineExceeded {
		return err
	}
	return fmt.Errorf("%w; the last attempt: %w", err, trouble)
}

// dial opens a socket and remembers it for reset.
func (l *link) dial(ctx context.Context, addr string) (net.Conn, error) {
	network := "tcp"
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		network, addr = "unix", strings.TrimPrefix(path, "//")
	}
	// The socket itself goes to gRPC, not a wrapper: it sets TCP_USER_TIMEOUT on it.
	socket, err := (&net.Dialer{}).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for s := range l.sockets {
		if closed(s) {
			delete(l.sockets, s)
		}
	}
	l.sockets[socket] = struct{}{}
	return socket, nil
}

// closed says whether somebody closed s.
func closed(s net.Conn) bool {
	raw, err := s.(syscall.Conn).SyscallConn()
	return err != nil || raw.Control(func(uintptr) {}) != nil
}

// reset closes every socket: gRPC then connects anew at once. It is for a connection that takes everything and answers
// nothing, which gRPC's own keepalive notices late.
func (l *link) reset() {
	l.mu.Lock()
	sockets := l.sockets
	l.sockets = make(map[net.Conn]struct{})
	l.mu.Unlock()
	for s := range sockets {
		_ = s.Close()
	}
}

// close closes the client, unless it is the caller's.
func (l *link) close() error {
	l.mu.Lock()
	cli := l.client
	l.mu.Unlock()
	if cli == nil || l.cfg.Client != nil {
		return nil
	}
	// Close reports the end of its own context as an error.
	if err := cli.Close(); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("etcd: close the client of %s: %w", l.target(), err)
	}
	return nil
}

// connectionObserver is gRPC's hook for new connections.
type connectionObserver struct{ link *link }

func (connectionObserver) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context {
	return ctx
}
func (connectionObserver) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context {
	return ctx
}
func (connectionObserver) HandleRPC(context.Context, stats.RPCStats) {}
func (o connectionObserver) HandleConn(_ context.Context, s stats.ConnStats) {
	if _, ok := s.(*stats.ConnBegin); ok {
		o.link.connected()
	}
}

// jitter spreads d by a quarter to either side, so that a fleet does not act in step.
func jitter(d time.Duration) time.Duration {
	return d + time.Duration((rand.Float64()-0.5)*0.5*float64(d))
}

// randomUpTo returns a duration from 0 to d.
func randomUpTo(d time.Duration) time.Duration { return time.Duration(rand.Float64() * float64(d)) }

// sleep waits for d and says whether it did; false means that ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
