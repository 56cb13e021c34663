// Package link is a Conn's one connection to etcd: the etcd client, the sockets beneath it, the credentials, and why it
// fails. It also owns the Conn's Life, which everything hangs on that runs in the background. registration and discovery stand
// on it; it knows neither of them.
//
// With credentials the etcd client can only be made once etcd answers, on the goroutine of Run:
//
//	no client ──etcd accepts the credentials──> client, for good
//	    │  ^
//	    └──┘ etcd refuses, or does not answer: again after a pause
//
// Beneath a client that exists, gRPC makes connections as they are needed. Each new one is told to those who wait for
// NextUp. What is slow is told apart from what is dead by a Watchdog (watchdog.go); whether etcd is there at all, by presence
// (presence.go).
//
// A mutex guards the state of a Link; it is never held over a call.
package link

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cloudwego/kitex/pkg/klog"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
)

const (
	// keepaliveTime and keepaliveTimeout bound how long a way to etcd that swallows everything goes unnoticed. It is TCP's keepalive, which
	// etcd's kernel answers. gRPC's pings would cost etcd some 90 µs each, most of what a client costs at rest; that a process behind a
	// connection hangs, requests notice, and discovery's guard.
	keepaliveTime    = 10 * time.Second
	keepaliveTimeout = 3 * time.Second
	// maxReconnectDelay replaces gRPC's 120 s: after a long outage the first attempt would come minutes late.
	maxReconnectDelay = time.Second
	// authRetryDelay is the pause between two attempts to authenticate while etcd cannot be reached; after a refusal
	// it is the repair's RetryDelay.
	authRetryDelay = time.Second
)

// Config is what a Link is made of. The Link keeps it, and completes Etcd.
type Config struct {
	Etcd       *clientv3.Config // of the client to be made; never nil
	Client     *clientv3.Client // the caller's, in place of one that is made
	TLS        *TLSFiles        // nil: as Etcd says
	RetryDelay time.Duration    // between two attempts to authenticate after etcd refused
	Notify     func(Event)      // is told when etcd is lost and found; must not block; nil: nobody is told

	// Credentials gives user and password for each authentication; nil: those of Etcd.
	Credentials func(ctx context.Context) (username, password string, err error)
}

// Link is the one connection to etcd. It owns the etcd client, knows the sockets beneath it, and tells when a new
// connection is up. Safe for concurrent use.
type Link struct {
	*Life
	cfg Config

	forget func() bool  // ends the heeding of the caller's context; nil when there is none
	stream atomic.Int64 // which of the connection's watch streams new watches use

	mu      sync.Mutex
	client  *clientv3.Client     // nil until it exists
	err     error                // why there is no client yet; nil before the first attempt ended
	changed chan struct{}        // closed and replaced when client or err is set
	up      chan struct{}        // closed and replaced when a new connection is up
	trouble error                // why the last call did not reach etcd; nil since one did
	sockets map[*socket]struct{} // those that dial made and nobody closed
	probing bool                 // a suspect socket is being probed
	resetAt time.Time            // when the next socket may be closed at the earliest
	rest    time.Duration        // between the next two
	presence

	heard atomic.Int64 // when anything last arrived from etcd, in Unix nanoseconds

	// Reads are the turns of the reads, of which a Conn has maxReads at once. Await takes one; it is given back by sending it.
	Reads chan struct{}
}

// maxReads bounds the reads of a Conn that etcd answers at once: more would wait behind each other, in the same line that
// renewals and watches take.
const maxReads = 32

// New makes the etcd client, which needs no network. With credentials it does, because the etcd client authenticates
// while it is made: then that is done in the background.
func New(cfg Config) (*Link, error) {
	l := &Link{
		Life:    newLife(),
		cfg:     cfg,
		client:  cfg.Client,
		changed: make(chan struct{}),
		up:      make(chan struct{}),
		sockets: make(map[*socket]struct{}),
		Reads:   make(chan struct{}, maxReads),
	}
	for range maxReads {
		l.Reads <- struct{}{}
	}
	if l.client == nil {
		l.completeEtcdConfig()
		if cfg.Credentials != nil {
			// The etcd client authenticates because it has some; observeCall puts the true ones in their place.
			cfg.Etcd.Username, cfg.Etcd.Password = "-", "-"
		}
		if !l.authenticates() {
			cli, err := clientv3.New(*cfg.Etcd)
			if err != nil {
				return nil, fmt.Errorf("etcd: make the client of %s: %w", l.Target(), err)
			}
			l.client = cli
		}
	}
	l.Start(l.run)
	if cfg.Client == nil && cfg.Etcd.Context != nil {
		// Its end ends the use of etcd. The etcd client itself heeds it for its watches and leases alone.
		l.forget = context.AfterFunc(cfg.Etcd.Context, func() {
			if cli := l.Current(); cli != nil {
				_ = cli.Close()
			}
		})
	}
	return l, nil
}

func (l *Link) authenticates() bool { return l.cfg.Etcd.Username != "" }

// user names the user for errors and logs.
func (l *Link) user() string {
	if l.cfg.Credentials != nil {
		return "the user of WithAuthFunc"
	}
	return strconv.Quote(l.cfg.Etcd.Username)
}

// credentials asks the caller's function. A panic of it is its error.
func (l *Link) credentials(ctx context.Context) (user, password string, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the function given to WithAuthFunc panicked: %v", p)
		}
	}()
	user, password, err = l.cfg.Credentials(ctx)
	switch {
	case err != nil:
		return "", "", fmt.Errorf("the function given to WithAuthFunc failed: %w", err)
	case user == "" || password == "":
		return "", "", errors.New("the function given to WithAuthFunc gave an empty user or password")
	}
	return user, password, nil
}

// Target names the endpoints for errors and logs.
func (l *Link) Target() string {
	if cli := l.Current(); cli != nil {
		return strings.Join(cli.Endpoints(), ",") // as they are now: the client may follow etcd's members
	}
	return strings.Join(l.cfg.Etcd.Endpoints, ",")
}

// completeEtcdConfig fills in what the caller left unset, except for DialTimeout. The caller's dial options come last and win.
func (l *Link) completeEtcdConfig() {
	e := l.cfg.Etcd
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
	if l.cfg.TLS != nil {
		opts = append(opts, grpc.WithTransportCredentials(newRotatingTLS(l.cfg.TLS, e.TLS)))
	}
	e.DialOptions = append(opts, e.DialOptions...)
}

// run makes the client where that needs the network, and follows its connections.
func (l *Link) run(ctx context.Context) {
	cli := l.Current()
	if cli == nil {
		l.authenticate(ctx)
		if cli = l.Current(); cli == nil {
			return
		}
	}
	l.follow(ctx, cli)
}

// authenticate makes the client, as often as it takes.
func (l *Link) authenticate(ctx context.Context) {
	cfg := *l.cfg.Etcd
	if cfg.Context == nil {
		cfg.Context = context.Background()
	}
	var end context.CancelFunc
	cfg.Context, end = context.WithCancel(cfg.Context) // ends with the caller's, and with the Conn
	context.AfterFunc(ctx, end)
	for begin := time.Now(); ; {
		cli, err := clientv3.New(cfg)
		if err != nil {
			err = l.Explain(err)
		}
		first := l.set(cli, err)
		if err == nil || ctx.Err() != nil {
			return
		}
		switch {
		case Unanswered(err):
			if time.Since(begin) >= lostAfter {
				l.lost(err, false)
			}
		case first:
			klog.Warnf("%v; still trying", Failed(err, fmt.Sprintf("authenticate as %s at %s", l.user(), l.Target())))
		}
		delay := authRetryDelay
		if Refused(err) {
			delay = l.cfg.RetryDelay
		}
		if !Sleep(ctx, Jitter(delay)) {
			return
		}
	}
}

// set publishes the outcome of an attempt and says whether it was the first.
func (l *Link) set(cli *clientv3.Client, err error) (first bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	first = l.err == nil
	l.client, l.err = cli, err
	close(l.changed)
	l.changed = make(chan struct{})
	return first
}

// Get returns the client, waiting for one to exist. A refusal by etcd is returned at once.
func (l *Link) Get(ctx context.Context) (*clientv3.Client, error) {
	for {
		l.mu.Lock()
		cli, err, changed := l.client, l.err, l.changed
		l.mu.Unlock()
		switch {
		case cli != nil:
			return cli, nil
		case Refused(err):
			return nil, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			if err == nil {
				err = ctx.Err()
			}
			return nil, err
		}
	}
}

// Current returns the client, nil while there is none.
func (l *Link) Current() *clientv3.Client {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.client
}

// NextUp returns a channel that is closed when the next new connection is up.
func (l *Link) NextUp() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.up
}

func (l *Link) connected() {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.up)
	l.up = make(chan struct{})
	l.trouble = nil
}

// observeCall keeps why the last call did not reach etcd. The etcd client drops it: its calls wait for a connection, and
// say only that they waited in vain.
func (l *Link) observeCall(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	if ask, ok := req.(*pb.AuthenticateRequest); ok && l.cfg.Credentials != nil {
		user, password, err := l.credentials(ctx)
		if err != nil {
			return err
		}
		ask.Name, ask.Password = user, password
	}
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

// Close closes the client, unless it is the caller's.
func (l *Link) Close() error {
	if l.forget != nil {
		l.forget()
	}
	cli := l.Current()
	if cli == nil || l.cfg.Client != nil {
		return nil
	}
	// Close reports the end of its own context as an error.
	if err := cli.Close(); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("etcd: close the client of %s: %w", l.Target(), err)
	}
	return nil
}

// connectionObserver is gRPC's hook for new connections, and for the connection that each request takes.
type connectionObserver struct{ link *Link }

func (connectionObserver) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context {
	return ctx
}
func (connectionObserver) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context {
	return ctx
}
func (o connectionObserver) HandleRPC(ctx context.Context, s stats.RPCStats) {
	if h, ok := s.(*stats.OutHeader); ok {
		o.link.observeRoute(ctx, h)
	}
}
func (o connectionObserver) HandleConn(_ context.Context, s stats.ConnStats) {
	if _, ok := s.(*stats.ConnBegin); ok {
		o.link.connected()
	}
}
