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

// Option changes a Config. Options run in order: a later one overrides an earlier one.
type Option func(*Config)

// WithTLSOpt uses TLS for the connection to etcd. caFile is a PEM file with the certificate authorities that verify etcd's
// certificate; empty means those of the system. certFile and keyFile are this process's certificate and key, for an etcd that asks
// for a client certificate; both empty means none. The constructor reads the files, and fails if one is missing or malformed.
// They are read again for each new connection, so that replaced files need no restart.
func WithTLSOpt(certFile, keyFile, caFile string) Option {
	return func(c *Config) { c.tlsFiles = &link.TLSFiles{Cert: certFile, Key: keyFile, CA: caFile} }
}

// WithTLSConfig uses TLS for the connection to etcd, with the configuration t. nil is an error of the constructor; it never means
// plaintext.
func WithTLSConfig(t *tls.Config) Option {
	return func(c *Config) {
		c.tlsFiles = nil
		if c.EtcdConfig.TLS = t; t == nil {
			c.tlsFiles = &link.TLSFiles{Missing: true}
		}
	}
}

// WithAuthOpt sets the user and the password for etcd. If one of them is empty, that is an error of the constructor. If the password
// may change while the process runs, use [WithAuthFunc].
func WithAuthOpt(username, password string) Option {
	return func(c *Config) {
		c.EtcdConfig.Username, c.EtcdConfig.Password = username, password
	}
}

// WithAuthFunc sets Config.AuthFunc: f returns the user and the password for etcd. It is called for each authentication: at the
// start, when a token has expired, and for each new stream. So the password can change while the process runs.
//
// If f returns an error, an empty user or an empty password, or panics, the attempt fails, and f is called again for the next one.
// f must be safe for concurrent use and should return soon. A nil f is an error of the constructor.
func WithAuthFunc(f func(ctx context.Context) (username, password string, err error)) Option {
	return func(c *Config) {
		if c.AuthFunc = f; f == nil {
			c.AuthFunc = func(context.Context) (string, string, error) { return "", "", nil }
			c.invalid = errors.New("WithAuthFunc was given nil; leave the option out for an etcd without users")
		}
	}
}

// WithEndpointSync sets EtcdConfig.AutoSyncInterval: at this interval, the endpoints are replaced by the addresses that etcd's members
// announce. Without it, or with 0, the endpoints are those given to Connect as long as the process lives; if all members are
// replaced, etcd cannot be reached any more. The members have to announce addresses that this process can reach. A negative interval
// is an error of the constructor.
func WithEndpointSync(every time.Duration) Option {
	return func(c *Config) { c.EtcdConfig.AutoSyncInterval = every }
}

// WithDialTimeoutOpt limits the time to make one connection to etcd. 0 means [DefaultDialTimeout]; a negative time is an error of the
// constructor.
func WithDialTimeoutOpt(dialTimeout time.Duration) Option {
	return func(c *Config) { c.EtcdConfig.DialTimeout = dialTimeout }
}

// WithEtcdServicePrefix sets Config.Prefix, the first part of all keys. The default is [DefaultPrefix]. A prefix that is not UTF-8 or
// has control characters is an error of the constructor.
func WithEtcdServicePrefix(prefix string) Option { return func(c *Config) { c.Prefix = prefix } }

// WithDefaultWeight sets Config.DefaultWeight: the weight of instances whose server gave none. The default is 10; a negative weight is
// an error of the constructor.
func WithDefaultWeight(defaultWeight int) Option {
	return func(c *Config) { c.DefaultWeight = defaultWeight }
}

// WithClient sets Config.Client: the Conn uses this etcd client and does not make one. The client has its own endpoints, TLS,
// credentials and dial options; to give these to the constructor as well is an error. Close of the Conn does not close the client.
func WithClient(client *clientv3.Client) Option { return func(c *Config) { c.Client = client } }

// WithRetry sets Config.Retry: how lost registrations are repaired. nil means the defaults of package retry.
func WithRetry(r *retry.Config) Option { return func(c *Config) { c.Retry = r } }

// WithLeaseTTL sets Config.LeaseTTL: how long the records of a process stay in etcd after it died. It is rounded up to whole seconds. 0
// means the environment variable KITEX_ETCD_REGISTRY_LEASE_TTL, or [DefaultLeaseTTL] if that is not set. Less than a second is an
// error of the constructor.
func WithLeaseTTL(d time.Duration) Option { return func(c *Config) { c.LeaseTTL = d } }

// WithDrainDelay sets Config.DrainDelay: how long a server that stops goes on serving after its record was deleted. The default is
// [DefaultDrainDelay]. 0 means not at all; a negative delay is an error of the constructor.
func WithDrainDelay(d time.Duration) Option { return func(c *Config) { c.DrainDelay = d } }

// WithAdvertiseAddr sets Config.AdvertiseAddr: the address to publish, host:port, or a host alone with the listener's port. Empty means
// the address on which the server listens. A malformed address is an error of the constructor. [Conn.ServerOptions] says which
// settings have priority over this one.
func WithAdvertiseAddr(addr string) Option { return func(c *Config) { c.AdvertiseAddr = addr } }

// WithAdvertiseSubnet sets Config.AdvertiseSubnet: a server that listens on every interface publishes the host's address in this
// subnet. If the host has no address in it, that is an error of Run. An invalid subnet is an error of the constructor.
func WithAdvertiseSubnet(subnet netip.Prefix) Option {
	return func(c *Config) {
		if c.AdvertiseSubnet = subnet; !subnet.IsValid() {
			c.invalid = fmt.Errorf("WithAdvertiseSubnet was given the invalid subnet %v; make one with netip.ParsePrefix, such as 10.0.0.0/8", subnet)
		}
	}
}

// WithBackgroundRegister sets Config.BackgroundRegister: a server starts also when etcd is down, and is registered when etcd answers.
// What etcd or this package refuses is still an error of Run.
func WithBackgroundRegister() Option { return func(c *Config) { c.BackgroundRegister = true } }

// WithEmptyProtection sets Config.EmptyProtection: how long clients use instances that vanished without being deregistered, if there
// are no others. It keeps calls working when etcd lost all leases. 0 means twice the lease TTL, at least 30 s; negative means not at
// all.
func WithEmptyProtection(d time.Duration) Option { return func(c *Config) { c.EmptyProtection = d } }

// WithEventHandler sets Config.EventHandler: h gets each [Event], one after the other. nil means that there is no handler.
func WithEventHandler(h func(Event)) Option { return func(c *Config) { c.EventHandler = h } }

// WithEjection sets Config.Ejection: whether instances that do not answer get no calls. The default is true.
//
// An instance is ejected after two attempts in a row that could not connect to it (three, if they timed out), after three calls in a
// row without an answer, or when its connections end before the answer for half a second and nothing else comes. Another instance of
// the service has to have answered meanwhile. It gets calls again when a connection succeeds, or when one call, tried every 2 s, gets
// an answer. At least half of the instances, rounded up, stay.
//
// That a call gets no answer is noticed when its time is up. So without client.WithRPCTimeout nobody notices an instance that hangs.
func WithEjection(on bool) Option { return func(c *Config) { c.Ejection = on } }

// WithSnapshots sets Config.SnapshotDir: the last list of each service that is called is stored in a file below dir. A process that
// starts while etcd is down uses it. Without this option, or with an empty dir, nothing is stored.
//
// If etcd has not answered the first read of a service within 300 ms, the list in the file is used, and [EventSnapshotUsed] says so.
// The first answer of etcd replaces the whole list. A file is used only if no other user could write it, if an earlier process of the
// same program wrote it for the same prefix and for an etcd with a common endpoint, and if it is not older than [WithSnapshotMaxAge]
// allows. Otherwise the process starts as without a file, and a log line says why.
//
// A file is written when the list changes, at most once a second, and again after a quarter of the maximum age. dir is created with
// mode 0700. An error of the disk is a log line, never an error of a call.
func WithSnapshots(dir string) Option { return func(c *Config) { c.SnapshotDir = dir } }

// WithSnapshotMaxAge sets Config.SnapshotMaxAge: older lists of [WithSnapshots] are not used. 0 means [DefaultSnapshotMaxAge]; a negative
// age is an error of the constructor.
func WithSnapshotMaxAge(d time.Duration) Option { return func(c *Config) { c.SnapshotMaxAge = d } }
