package etcd

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/cloudwego/kitex/pkg/klog"

	"github.com/kitex-contrib/kitex-etcd/runtime/internal/link"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/record"
	"github.com/kitex-contrib/kitex-etcd/runtime/retry"
)

const (
	// DefaultPrefix is the first part of every key, as registry-etcd writes it.
	DefaultPrefix = "kitex/registry-etcd"
	// DefaultLeaseTTL is how long a record stays after its process died. etcd counts leases in whole seconds.
	DefaultLeaseTTL = 10 * time.Second
	// DefaultDrainDelay is how long Deregister waits after the record was deleted, so that clients have seen this before Kitex
	// closes the listener.
	DefaultDrainDelay = 200 * time.Millisecond
	// DefaultDialTimeout limits the time to make one connection to etcd.
	DefaultDialTimeout = 3 * time.Second

	// DefaultSnapshotMaxAge is the maximum age of a stored list of instances that is used.
	DefaultSnapshotMaxAge = 24 * time.Hour

	// maxLeaseTTL is the longest that etcd grants (lease.MaxLeaseTTL in its source).
	maxLeaseTTL = 9_000_000_000 * time.Second

	// minEmptyProtection is the least default of Config.EmptyProtection; twice the lease TTL when that is more.
	minEmptyProtection = 30 * time.Second

	// envLeaseTTL is the environment variable of registry-etcd, with its meaning.
	envLeaseTTL = "KITEX_ETCD_REGISTRY_LEASE_TTL"
)

// Config is what Options set. Connect (and the New… functions) check it, complete it and keep it. An Option is called once and must not
// keep the Config.
type Config struct {
	// EtcdConfig configures the etcd client: endpoints, TLS, credentials, limits, dial options. Connect fills in
	// DialTimeout (3 s), a silent Logger and a reconnect back-off of at most 1 s where they are unset, and uses TCP's keepalive
	// (10 s, 3 s) in place of gRPC's, which DialKeepAliveTime turns on. Never nil when an Option is called.
	EtcdConfig *clientv3.Config
	// Prefix is the first part of every key, DefaultPrefix by default. It is not changed in any way: "/a" and "a" are two prefixes.
	// With the empty prefix, keys begin with a slash.
	Prefix string
	// DefaultWeight is the weight of an instance whose record has none; 0 means Kitex's default, 10.
	DefaultWeight int
	// Client is the caller's etcd client. It is used instead of one made from EtcdConfig. Close does not close it.
	Client *clientv3.Client
	// AuthFunc returns user and password for each authentication; nil means those of EtcdConfig. See WithAuthFunc.
	AuthFunc func(ctx context.Context) (username, password string, err error)
	// Retry says how lost registrations are repaired; nil means retry.NewRetryConfig().
	Retry *retry.Config
	// LeaseTTL is the TTL of the lease of this process's records, in whole seconds; 0 means the environment variable
	// KITEX_ETCD_REGISTRY_LEASE_TTL (seconds), or DefaultLeaseTTL if that is not set.
	LeaseTTL time.Duration
	// DrainDelay is how long Deregister waits after the record was deleted. It is DefaultDrainDelay when Options are called; 0
	// means no wait.
	DrainDelay time.Duration
	// AdvertiseAddr is the address to publish: host:port, or a host alone with the listener's port. Empty means the address on
	// which the server listens.
	AdvertiseAddr string
	// AdvertiseSubnet chooses among the host's addresses if a server listens on all of them. The zero value means: the address from
	// which etcd is reached, otherwise that of the default route, otherwise the first.
	AdvertiseSubnet netip.Prefix
	// BackgroundRegister lets a server start while etcd is down, and register when etcd answers.
	BackgroundRegister bool
	// EmptyProtection is how long instances that vanished without being deregistered are used, if the list of the service would
	// otherwise become empty; 0 means max(2 × LeaseTTL, 30 s), negative means not at all.
	EmptyProtection time.Duration
	// Ejection says that instances that do not answer get no calls. It is true when Options are called. See WithEjection.
	Ejection bool
	// SnapshotDir is the directory where the last list of each service is stored, for a start while etcd is down. Empty means that
	// none is stored. See WithSnapshots.
	SnapshotDir string
	// SnapshotMaxAge is the maximum age of such a list; 0 means DefaultSnapshotMaxAge.
	SnapshotMaxAge time.Duration
	// EventHandler gets the events of registrations and watches; nil means that there is none. See Event.
	EventHandler func(Event)

	tlsFiles *link.TLSFiles // WithTLSOpt
	invalid  error          // what an Option found wrong with its arguments
}

// Format prints a Config without its secrets, whatever the verb.
func (c Config) Format(s fmt.State, _ rune) {
	fmt.Fprintf(s, "etcd.Config(prefix %q, lease TTL %v)", c.Prefix, c.LeaseTTL)
}

// newConfig applies opts to the defaults, then checks and completes the result.
func newConfig(endpoints []string, opts []Option) (*Config, error) {
	c := &Config{
		EtcdConfig: &clientv3.Config{Endpoints: endpoints},
		Prefix:     DefaultPrefix,
		DrainDelay: DefaultDrainDelay, Ejection: true,
	}
	for _, opt := range opts {
		if opt == nil {
			return nil, errors.New("etcd: an Option is nil; leave it out")
		}
		opt(c)
		if c.EtcdConfig == nil {
			return nil, errors.New("etcd: an Option set Config.EtcdConfig to nil; change its fields instead")
		}
	}
	if c.invalid != nil {
		return nil, fmt.Errorf("etcd: %w", c.invalid)
	}
	etcd := *c.EtcdConfig // an Option may have set one that the caller uses elsewhere
	etcd.Endpoints = slices.Clone(etcd.Endpoints)
	etcd.DialOptions = slices.Clone(etcd.DialOptions)
	c.EtcdConfig = &etcd
	for _, check := range []func(*Config) error{
		(*Config).checkClient, (*Config).checkPrefix, (*Config).checkDurations, (*Config).checkAdvertiseAddr, (*Config).checkSnapshots,
	} {
		if err := check(c); err != nil {
			return nil, fmt.Errorf("etcd: %w", err)
		}
	}
	return c, nil
}

// checkClient makes sure that there is one way to reach etcd, and that it is as safe as it was meant to be.
func (c *Config) checkClient() error {
	e := c.EtcdConfig
	if c.Client != nil {
		if len(e.Endpoints) > 0 || e.TLS != nil || c.tlsFiles != nil || e.Username != "" || e.Password != "" || c.AuthFunc != nil {
			return errors.New("WithClient excludes endpoints, TLS and credentials: the client brings its own")
		}
		return nil
	}
	if (e.Username == "") != (e.Password == "") {
		return errors.New("credentials need both a username and a password; one is empty")
	}
	if c.AuthFunc != nil && (e.Username != "" || e.Token != "") {
		return errors.New("both WithAuthFunc and a password or token are given; leave one out")
	}
	if e.Username != "" && e.Token != "" {
		return errors.New("both a password and a token are given; etcd takes one of them")
	}
	if e.AutoSyncInterval < 0 {
		return fmt.Errorf("endpoint sync every %v; it must be positive, or 0 for never", e.AutoSyncInterval)
	}
	if e.DialTimeout < 0 {
		return fmt.Errorf("dial timeout is %v; it must be positive, or 0 for %v", e.DialTimeout, DefaultDialTimeout)
	}
	if e.DialTimeout == 0 {
		e.DialTimeout = DefaultDialTimeout
	}
	if c.tlsFiles != nil {
		t, err := c.tlsFiles.Load()
		if err != nil {
			return err
		}
		e.TLS = t
	}
	return checkEndpoints(e.Endpoints, e.TLS != nil)
}

// checkEndpoints accepts host:port, http(s)://host:port and unix(s)://path. The etcd client takes the first endpoint's
// scheme for all of them, and drops TLS for http: both would send in plaintext what was meant to be secret.
func checkEndpoints(endpoints []string, secure bool) error {
	if len(endpoints) == 0 {
		return errors.New(`no endpoints; give the addresses of etcd, such as "127.0.0.1:2379"`)
	}
	schemes := make(map[string]string, 1)
	for _, ep := range endpoints {
		scheme, err := checkEndpoint(ep)
		if err != nil {
			return err
		}
		if secure && (scheme == "http" || scheme == "unix") {
			return fmt.Errorf("endpoint %q is plaintext, but TLS is configured; write https:// or leave the scheme out", ep)
		}
		schemes[scheme] = ep
	}
	if len(schemes) > 1 {
		return fmt.Errorf("endpoints %q differ in their scheme; give all of them the same", endpoints)
	}
	return nil
}

func checkEndpoint(ep string) (scheme string, err error) {
	if i := strings.LastIndexByte(ep, '@'); i >= 0 {
		return "", fmt.Errorf("endpoint \"…%s\" carries credentials; give them to WithAuthOpt", ep[i:])
	}
	hostport := ep
	if i := strings.Index(ep, "://"); i >= 0 {
		u, err := url.Parse(ep)
		switch {
		case err != nil:
			return "", fmt.Errorf("endpoint %q is not a valid URL; write host:port or https://host:port: %w", ep, err)
		case u.Scheme == "unix" || u.Scheme == "unixs":
			return u.Scheme, nil
		case u.Scheme != "http" && u.Scheme != "https":
			return "", fmt.Errorf("endpoint %q: scheme %q is unknown; use http or https", ep, u.Scheme)
		case u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "":
			return "", fmt.Errorf("endpoint %q has more than host and port; write %s://%s", ep, u.Scheme, u.Host)
		}
		scheme, hostport = u.Scheme, u.Host
	}
	if _, _, err := record.SplitHostPort(hostport); err != nil {
		return "", fmt.Errorf("endpoint %q: %w", ep, err)
	}
	return scheme, nil
}

func (c *Config) checkPrefix() error {
	if !utf8.ValidString(c.Prefix) || strings.ContainsFunc(c.Prefix, unicode.IsControl) {
		return fmt.Errorf("prefix %q holds control characters or is not UTF-8", c.Prefix)
	}
	if strings.HasSuffix(c.Prefix, "/") {
		klog.Warnf("etcd: the prefix %q ends with a slash: keys begin with %q, and programs with the prefix %q do not see them",
			c.Prefix, c.Prefix+"/", strings.TrimRight(c.Prefix, "/"))
	}
	return nil
}

func (c *Config) checkDurations() error {
	if c.LeaseTTL == 0 {
		c.LeaseTTL = DefaultLeaseTTL
		if s := os.Getenv(envLeaseTTL); s != "" {
			n, err := strconv.Atoi(s)
			if err != nil || n < 1 {
				return fmt.Errorf("environment variable %s is %q; it must be a whole number of seconds, 1 or more", envLeaseTTL, s)
			}
			c.LeaseTTL = time.Duration(n) * time.Second
		}
	}
	if c.LeaseTTL < time.Second || c.LeaseTTL > maxLeaseTTL {
		return fmt.Errorf("lease TTL is %v; it must be from 1s to %v", c.LeaseTTL, maxLeaseTTL)
	}
	c.LeaseTTL = (c.LeaseTTL + time.Second - 1).Truncate(time.Second)
	if c.DrainDelay < 0 {
		return fmt.Errorf("drain delay is %v; it must be 0 or positive", c.DrainDelay)
	}
	if c.EmptyProtection == 0 {
		c.EmptyProtection = max(2*c.LeaseTTL, minEmptyProtection)
	}
	if c.DefaultWeight < 0 {
		return fmt.Errorf("default weight is %d; it must be positive, or 0 for %d", c.DefaultWeight, record.DefaultWeight)
	}
	if c.DefaultWeight == 0 {
		c.DefaultWeight = record.DefaultWeight
	}
	if c.Retry == nil {
		c.Retry = retry.NewRetryConfig()
	}
	return c.Retry.Validate()
}

// checkAdvertiseAddr accepts host:port or a host alone, IPv6 with or without brackets.
func (c *Config) checkAdvertiseAddr() error {
	if c.AdvertiseAddr == "" {
		return nil
	}
	if _, _, err := record.ParseAddr(c.AdvertiseAddr); err != nil {
		return fmt.Errorf("advertise address %q: %w", c.AdvertiseAddr, err)
	}
	return nil
}

func (c *Config) checkSnapshots() error {
	if c.SnapshotMaxAge < 0 {
		return fmt.Errorf("greatest age of snapshots is %v; it must be positive, or 0 for %v", c.SnapshotMaxAge, DefaultSnapshotMaxAge)
	}
	if c.SnapshotMaxAge == 0 {
		c.SnapshotMaxAge = DefaultSnapshotMaxAge
	}
	if c.SnapshotDir == "" {
		return nil
	}
	dir, err := filepath.Abs(c.SnapshotDir) // the program may change its working directory
	if err != nil {
		return fmt.Errorf("directory of snapshots %q: %w", c.SnapshotDir, err)
	}
	c.SnapshotDir = dir
	return nil
}
