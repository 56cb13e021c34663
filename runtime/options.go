package etcd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/kitex-contrib/kitex-etcd/runtime/internal/link"
	"github.com/kitex-contrib/kitex-etcd/runtime/retry"
)

// Option changes a Config. Options run in order, so that the last one wins.
type Option func(*Config)

// WithTLSOpt secures the connection to etcd. caFile names the certificate authorities that etcd's certificate is
// verified against, in PEM; empty means those of the system. certFile and keyFile name this process's certificate and
// key, for an etcd that asks for one; both empty means none. The files are read by the constructor, which fails when one
// is missing or malformed, and again at every new connection, so that rotated files need no restart.
func WithTLSOpt(certFile, keyFile, caFile string) Option {
	return func(c *Config) { c.tlsFiles = &link.TLSFiles{Cert: certFile, Key: keyFile, CA: caFile} }
}

// WithTLSConfig secures the connection to etcd with a configuration of the caller's. nil is an error of the
// constructor: it never means plaintext.
func WithTLSConfig(t *tls.Config) Option {
	return func(c *Config) {
		c.tlsFiles = nil
		if c.EtcdConfig.TLS = t; t == nil {
			c.tlsFiles = &link.TLSFiles{Missing: true}
		}
	}
}

// WithAuthOpt sets the user that etcd is asked as. An empty username or password is an error of the constructor.
func WithAuthOpt(username, password string) Option {
	return func(c *Config) {
		c.EtcdConfig.Username, c.EtcdConfig.Password = username, password
	}
}

// WithAuthFunc sets Config.AuthFunc: the user that etcd is asked as, and its password, come from f, which is called for each
// authentication: at the start, when a token has ended, for each new stream. A password can be changed while the process
// runs. An error of f, or an empty user or password, is that of the attempt, and f is asked again at the next; a panic is
// such an error. f must be safe for concurrent use and should return soon. nil is an error of the constructor.
func WithAuthFunc(f func(ctx context.Context) (username, password string, err error)) Option {
	return func(c *Config) {
		if c.AuthFunc = f; f == nil {
			c.AuthFunc = func(context.Context) (string, string, error) { return "", "", nil }
			c.invalid = errors.New("WithAuthFunc was given nil; leave the option out for an etcd without users")
		}
	}
}

// WithEndpointSync sets EtcdConfig.AutoSyncInterval: the endpoints follow etcd's members, asked for at that interval. Without it,
// or with 0, they are those given to Connect for as long as the process lives: when all of etcd's members are replaced,
// nothing is reached any more. The members have to announce addresses that this process can reach.
func WithEndpointSync(every time.Duration) Option {
	return func(c *Config) { c.EtcdConfig.AutoSyncInterval = every }
}

// WithDialTimeoutOpt bounds the making of one connection to etcd; 0 means DefaultDialTimeout.
func WithDialTimeoutOpt(dialTimeout time.Duration) Option {
	return func(c *Config) { c.EtcdConfig.DialTimeout = dialTimeout }
}

// WithEtcdServicePrefix sets Config.Prefix, [DefaultPrefix] without it. One that is not UTF-8 or holds control characters is
// an error of the constructor.
func WithEtcdServicePrefix(prefix string) Option { return func(c *Config) { c.Prefix = prefix } }

// WithDefaultWeight sets Config.DefaultWeight: the weight of instances that have none of their own, 10 without it. A
// negative one is an error of the constructor.
func WithDefaultWeight(defaultWeight int) Option {
	return func(c *Config) { c.DefaultWeight = defaultWeight }
}

// WithClient sets Config.Client: bring your own etcd client. Its endpoints, TLS, credentials and dial options are the
// caller's business; the constructor refuses them beside it.
func WithClient(client *clientv3.Client) Option { return func(c *Config) { c.Client = client } }

// WithRetry sets Config.Retry: how lost registrations are repaired. nil means the defaults of package retry.
func WithRetry(r *retry.Config) Option { return func(c *Config) { c.Retry = r } }

// WithLeaseTTL sets Config.LeaseTTL: how long the records of a process that died stay. It is rounded up to whole seconds; 0
// means the environment variable KITEX_ETCD_REGISTRY_LEASE_TTL, else [DefaultLeaseTTL]. Less than a second is an error of
// the constructor.
func WithLeaseTTL(d time.Duration) Option { return func(c *Config) { c.LeaseTTL = d } }

// WithDrainDelay sets Config.DrainDelay: how long a server serves on after its record is gone, [DefaultDrainDelay] without
// it. 0 means not at all; a negative one is an error of the constructor.
func WithDrainDelay(d time.Duration) Option { return func(c *Config) { c.DrainDelay = d } }

// WithAdvertiseAddr sets Config.AdvertiseAddr: the address to publish, host:port or a host alone. Empty means the listen
// address; a malformed one is an error of the constructor. [Conn.ServerOptions] names what comes before it.
func WithAdvertiseAddr(addr string) Option { return func(c *Config) { c.AdvertiseAddr = addr } }

// WithAdvertiseSubnet sets Config.AdvertiseSubnet: a server that listens on every interface is registered at the host's address
// in that subnet. One that no interface has an address in is an error of Run; an invalid one of the constructor.
func WithAdvertiseSubnet(subnet netip.Prefix) Option {
	return func(c *Config) {
		if c.AdvertiseSubnet = subnet; !subnet.IsValid() {
			c.invalid = fmt.Errorf("WithAdvertiseSubnet was given the invalid subnet %v; make one with netip.ParsePrefix, such as 10.0.0.0/8", subnet)
		}
	}
}

// WithBackgroundRegister sets Config.BackgroundRegister: a server starts although etcd is down, and is registered when it is
// back. What etcd or this package refuses for good is an error of Run nevertheless.
func WithBackgroundRegister() Option { return func(c *Config) { c.BackgroundRegister = true } }

// WithEmptyProtection sets Config.EmptyProtection: how long clients go on with instances that vanished without being
// deregistered, when there are no others. 0 means twice the lease TTL, 30 s at least; negative means not at all.
func WithEmptyProtection(d time.Duration) Option { return func(c *Config) { c.EmptyProtection = d } }

// WithEventHandler sets Config.EventHandler: h is told every [Event], one after the other. nil means nobody is.
func WithEventHandler(h func(Event)) Option { return func(c *Config) { c.EventHandler = h } }

// WithEjection sets Config.Ejection: whether clients stop calling an instance that does not answer them. They do so without this
// option. An instance is ejected when connections to it are refused (two attempts) or time out (three attempts), when three calls
// in a row get no answer within the RPC timeout, or when connections end before the answer for half a second, and nothing else comes.
// Another instance of the service has to have answered meanwhile, and half of the instances, rounded up, always stay. It is called
// again when a connection can be made, or when one call, tried every 2 s, gets an answer.
//
// Without client.WithRPCTimeout nobody notices a call that hangs.
func WithEjection(on bool) Option { return func(c *Config) { c.Ejection = on } }

// WithSnapshots sets Config.SnapshotDir: the last list of each service that is called is kept in a file below dir, so that a
// process that starts while etcd is away knows whom to call. Nothing is kept without this option, nor with an empty dir.
//
// When etcd has not answered the first read of a service within 300 ms, the list in the file is used, [EventSnapshotUsed]
// says so, and etcd's first answer takes its place whole. A file counts only if this user alone could write it, if an
// earlier process of the same program wrote it for the same prefix and an etcd of which an endpoint is the same, and if it is no
// older than WithSnapshotMaxAge says; else it is as if there were none.
//
// A file is written when the list changes, once a second at most, and renewed when it has a quarter of the greatest age. dir
// is made with mode 0700 if it is missing. A disk that fails is a line in the log, never an error of a call.
func WithSnapshots(dir string) Option { return func(c *Config) { c.SnapshotDir = dir } }

// WithSnapshotMaxAge sets Config.SnapshotMaxAge: lists of WithSnapshots that are older are not used. 0 means
// [DefaultSnapshotMaxAge]; a negative one is an error of the constructor.
func WithSnapshotMaxAge(d time.Duration) Option { return func(c *Config) { c.SnapshotMaxAge = d } }
