package etcd

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/kitex-contrib/kitex-etcd/runtime/retry"
)

const (
	// DefaultPrefix is the first part of every key, as registry-etcd writes it.
	DefaultPrefix = "kitex/registry-etcd"
	// DefaultLeaseTTL is how long a record outlives a process that died. etcd counts leases in whole seconds.
	DefaultLeaseTTL = 10 * time.Second
	// DefaultDrainDelay is how long Deregister waits after the record is gone, so that clients have seen the removal
	// before Kitex closes the listener.
	DefaultDrainDelay = 200 * time.Millisecond
	// DefaultDialTimeout bounds the making of one connection to etcd.
	DefaultDialTimeout = 3 * time.Second

	// maxLeaseTTL is the longest that etcd grants (lease.MaxLeaseTTL in its source).
	maxLeaseTTL = 9_000_000_000 * time.Second

	// minEmptyProtection is the least default of Config.EmptyProtection; twice the lease TTL when that is more.
	minEmptyProtection = 30 * time.Second

	// The environment variables of registry-etcd, with its meaning.
	envLeaseTTL = "KITEX_ETCD_REGISTRY_LEASE_TTL"
	envIP       = "KITEX_IP_TO_REGISTRY"
	envPort     = "KITEX_PORT_TO_REGISTRY"
)

// Config collects what Options set. It is checked and completed by Connect (and the New… functions), which keep it: an
// Option is called once and must not hold on to the Config.
type Config struct {
	// EtcdConfig configures the etcd client: endpoints, TLS, credentials, limits, dial options. Connect fills in
	// DialTimeout (3 s), the keepalive (10 s, 3 s), a silent Logger and a reconnect back-off of at most 1 s where they
	// are unset. Never nil when an Option is called.
	EtcdConfig *clientv3.Config
	// Prefix is the first part of every key, DefaultPrefix by default. It is used as it is: "/a" and "a" are two
	// prefixes. The empty prefix gives keys that begin with a slash.
	Prefix string
	// DefaultWeight is the weight of an instance whose record gives none; 0 means Kitex's default, 10.
	DefaultWeight int
	// Client is an etcd client of the caller's, used in place of one made from EtcdConfig. Close leaves it open.
	Client *clientv3.Client
	// Retry says how lost registrations are repaired; nil means retry.NewRetryConfig().
	Retry *retry.Config
	// LeaseTTL is the life of the lease under which this process's records stand, in whole seconds; 0 means the
	// environment variable KITEX_ETCD_REGISTRY_LEASE_TTL (seconds), else DefaultLeaseTTL.
	LeaseTTL time.Duration
	// DrainDelay is how long Deregister waits after the record is gone. It starts out as DefaultDrainDelay; 0 means
	// no wait.
	DrainDelay time.Duration
	// AdvertiseAddr is the address to publish instead of the listen address: host:port, or a host alone, which takes
	// the listener's port. Empty means the listen address.
	AdvertiseAddr string
	// BackgroundRegister lets a server start while etcd is down and register when it is back.
	BackgroundRegister bool
	// EmptyProtection is how long instances that vanished without an explicit delete are remembered, to be served
	// when a service's list would otherwise become empty; 0 means max(2 × LeaseTTL, 30 s), negative means none.
	EmptyProtection time.Duration
	// EventHandler is told what happens to registrations and watches; nil means nobody is. See Event.
	EventHandler func(Event)

	tlsFiles *tlsFiles // WithTLSOpt
}

// Format prints a Config without its secrets, whatever the verb.
func (c Config) Format(s fmt.State, _ rune) {
	fmt.Fprintf(s, "etcd.Config(prefix %q, lease TTL %v)", c.Prefix, c.LeaseTTL)
}

// Option changes a Config. Options run in order, so that the last one wins.
type Option func(*Config)

// WithTLSOpt secures the connection to etcd. caFile names the certificate authorities that etcd's certificate is
// verified against, in PEM; empty means those of the system. certFile and keyFile name this process's certificate and
// key, for an etcd that asks for one; both empty means none. The files are read by the constructor, which fails when one
// is missing or malformed, and again at every new connection, so that rotated files need no restart.
func WithTLSOpt(certFile, keyFile, caFile string) Option {
	return func(c *Config) { c.tlsFiles = &tlsFiles{cert: certFile, key: keyFile, ca: caFile} }
}

// WithTLSConfig secures the connection to etcd with a configuration of the caller's. nil is an error of the
// constructor: it never means plaintext.
func WithTLSConfig(t *tls.Config) Option {
	return func(c *Config) {
		c.tlsFiles = nil
		if c.EtcdConfig.TLS = t; t == nil {
			c.tlsFiles = &tlsFiles{missing: true}
		}
	}
}

// WithAuthOpt sets the user that etcd is asked as. An empty username or password is an error of the constructor.
func WithAuthOpt(username, password string) Option {
	return func(c *Config) {
		c.EtcdConfig.Username, c.EtcdConfig.Password = username, password
	}
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

// WithBackgroundRegister sets Config.BackgroundRegister: a server starts although etcd is down, and is registered when it is
// back. What etcd or this package refuses for good is an error of Run nevertheless.
func WithBackgroundRegister() Option { return func(c *Config) { c.BackgroundRegister = true } }

// WithEmptyProtection sets Config.EmptyProtection: how long clients go on with instances that vanished without being
// deregistered, when there are no others. 0 means twice the lease TTL, 30 s at least; negative means not at all.
func WithEmptyProtection(d time.Duration) Option { return func(c *Config) { c.EmptyProtection = d } }

// WithEventHandler sets Config.EventHandler: h is told every [Event], one after the other. nil means nobody is.
func WithEventHandler(h func(Event)) Option { return func(c *Config) { c.EventHandler = h } }

// newConfig applies opts to the defaults, then checks and completes the result.
func newConfig(endpoints []string, opts []Option) (*Config, error) {
	c := &Config{
		EtcdConfig: &clientv3.Config{Endpoints: endpoints},
		Prefix:     DefaultPrefix,
		DrainDelay: DefaultDrainDelay,
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
	etcd := *c.EtcdConfig // an Option may have set one that the caller uses elsewhere
	etcd.Endpoints = slices.Clone(etcd.Endpoints)
	etcd.DialOptions = slices.Clone(etcd.DialOptions)
	c.EtcdConfig = &etcd
	for _, check := range []func(*Config) error{
		(*Config).checkClient, (*Config).checkPrefix, (*Config).checkDurations, (*Config).checkAdvertiseAddr,
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
		if len(e.Endpoints) > 0 || e.TLS != nil || c.tlsFiles != nil || e.Username != "" || e.Password != "" {
			return errors.New("WithClient excludes endpoints, TLS and credentials: the client brings its own")
		}
		return nil
	}
	if (e.Username == "") != (e.Password == "") {
		return errors.New("credentials need both a username and a password; one is empty")
	}
	if e.Username != "" && e.Token != "" {
		return errors.New("both a password and a token are given; etcd takes one of them")
	}
	if e.DialTimeout < 0 {
		return fmt.Errorf("dial timeout is %v; it must be positive, or 0 for %v", e.DialTimeout, DefaultDialTimeout)
	}
	if c.tlsFiles != nil {
		t, err := c.tlsFiles.load()
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
	if _, _, err := splitHostPort(hostport); err != nil {
		return "", fmt.Errorf("endpoint %q: %w", ep, err)
	}
	return scheme, nil
}

// splitHostPort is net.SplitHostPort for addresses that can be dialled: the host is not empty and holds no space, the
// port is a number from 1 to 65535.
func splitHostPort(s string) (host string, port int, err error) {
	host, p, err := net.SplitHostPort(s)
	if err != nil {
		return "", 0, fmt.Errorf("%w; write host:port", err)
	}
	if host == "" || strings.ContainsFunc(host, notPrintable) || strings.ContainsRune(host, '/') {
		return "", 0, fmt.Errorf("host %q is empty or malformed; write host:port", host)
	}
	port, err = strconv.Atoi(p)
	if err != nil || port < 1 || port > 65535 {
		return "", 0, fmt.Errorf("port %q is not a number from 1 to 65535", p)
	}
	return host, port, nil
}

func (c *Config) checkPrefix() error {
	if !utf8.ValidString(c.Prefix) || strings.ContainsFunc(c.Prefix, unicode.IsControl) {
		return fmt.Errorf("prefix %q holds control characters or is not UTF-8", c.Prefix)
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
		return fmt.Errorf("default weight is %d; it must be positive, or 0 for %d", c.DefaultWeight, kitexDefaultWeight)
	}
	if c.DefaultWeight == 0 {
		c.DefaultWeight = kitexDefaultWeight
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
	if _, _, err := parseAdvertiseAddr(c.AdvertiseAddr); err != nil {
		return fmt.Errorf("advertise address %q: %w", c.AdvertiseAddr, err)
	}
	return nil
}

// parseAdvertiseAddr splits host:port; a host alone gives port 0.
func parseAdvertiseAddr(s string) (host string, port int, err error) {
	if bare := strings.TrimSuffix(strings.TrimPrefix(s, "["), "]"); net.ParseIP(bare) != nil || !strings.Contains(s, ":") {
		_, _, err = splitHostPort(net.JoinHostPort(bare, "1"))
		return bare, 0, err
	}
	return splitHostPort(s)
}

func notPrintable(r rune) bool {
	return unicode.IsSpace(r) || unicode.IsControl(r) || r == utf8.RuneError
}
