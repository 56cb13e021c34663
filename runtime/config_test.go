package etcd

import (
	"crypto/tls"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/kitex-contrib/kitex-etcd/runtime/retry"
)

var local = []string{"127.0.0.1:2379"}

func TestConnectRefuses(t *testing.T) {
	garbage := filepath.Join(t.TempDir(), "garbage.pem")
	if err := os.WriteFile(garbage, []byte("not a certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	missing := filepath.Join(t.TempDir(), "missing.pem")
	cli, err := clientv3.New(clientv3.Config{Endpoints: local})
	if err != nil {
		t.Fatal(err)
	}
	defer cli.Close()

	for _, tc := range []struct {
		name      string
		endpoints []string
		opts      []Option
		env       string
		want      []string // what the error must say
	}{
		{name: "no endpoints", want: []string{"no endpoints", "127.0.0.1:2379"}},
		{name: "empty endpoint", endpoints: []string{""}, want: []string{`endpoint ""`, "host:port"}},
		{name: "no port", endpoints: []string{"localhost"}, want: []string{`"localhost"`, "missing port"}},
		{name: "no host", endpoints: []string{":2379"}, want: []string{`":2379"`, "host"}},
		{name: "port name", endpoints: []string{"a:etcd"}, want: []string{`"etcd"`, "65535"}},
		{name: "port zero", endpoints: []string{"a:0"}, want: []string{`"0"`}},
		{name: "port too large", endpoints: []string{"a:65536"}, want: []string{`"65536"`}},
		{name: "two in one", endpoints: []string{"a:1,b:2"}, want: []string{`"a:1,b:2"`, "host:port"}},
		{name: "space", endpoints: []string{" a:1"}, want: []string{`" a:1"`, "malformed"}},
		{name: "bare IPv6", endpoints: []string{"::1:2379"}, want: []string{`"::1:2379"`, "host:port"}},
		{name: "path", endpoints: []string{"http://a:1/v3"}, want: []string{"http://a:1/v3", "write http://a:1"}},
		{name: "scheme", endpoints: []string{"ftp://a:1"}, want: []string{`"ftp"`, "http or https"}},
		{name: "mixed schemes", endpoints: []string{"https://a:1", "http://b:1"}, want: []string{"scheme", "https://a:1", "http://b:1"}},
		{name: "credentials in the endpoint", endpoints: []string{"http://root:s3cret@a:1"}, want: []string{"WithAuthOpt"}},
		{name: "credentials without a scheme", endpoints: []string{"root:s3cret@a:1"}, want: []string{"@a:1", "WithAuthOpt"}},
		{name: "malformed URL", endpoints: []string{"http://[a:1"}, want: []string{"http://[a:1", "URL"}},
		{name: "TLS over http", endpoints: []string{"http://a:1"}, opts: []Option{WithTLSConfig(&tls.Config{})}, want: []string{"http://a:1", "plaintext", "https"}},
		{name: "nil TLS", endpoints: local, opts: []Option{WithTLSConfig(nil)}, want: []string{"WithTLSConfig", "nil"}},
		{name: "no TLS files", endpoints: local, opts: []Option{WithTLSOpt("", "", "")}, want: []string{"WithTLSOpt", "no file"}},
		{name: "missing CA", endpoints: local, opts: []Option{WithTLSOpt("", "", missing)}, want: []string{missing}},
		{name: "garbage CA", endpoints: local, opts: []Option{WithTLSOpt("", "", garbage)}, want: []string{garbage, "PEM"}},
		{name: "missing certificate", endpoints: local, opts: []Option{WithTLSOpt(missing, missing, "")}, want: []string{missing}},
		{name: "garbage certificate", endpoints: local, opts: []Option{WithTLSOpt(garbage, garbage, "")}, want: []string{garbage}},
		{name: "certificate without key", endpoints: local, opts: []Option{WithTLSOpt(garbage, "", "")}, want: []string{garbage}},
		{name: "username alone", endpoints: local, opts: []Option{WithAuthOpt("root", "")}, want: []string{"password"}},
		{name: "password alone", endpoints: local, opts: []Option{WithAuthOpt("", "s3cret")}, want: []string{"username"}},
		{name: "password and token", endpoints: local, opts: []Option{WithAuthOpt("root", "s3cret"), func(c *Config) { c.EtcdConfig.Token = "t0ken" }}, want: []string{"token"}},
		{name: "negative dial timeout", endpoints: local, opts: []Option{WithDialTimeoutOpt(-1)}, want: []string{"dial timeout", "3s"}},
		{name: "control character in the prefix", endpoints: local, opts: []Option{WithEtcdServicePrefix("a\nb")}, want: []string{`"a\nb"`}},
		{name: "prefix is not UTF-8", endpoints: local, opts: []Option{WithEtcdServicePrefix("a\xff")}, want: []string{"UTF-8"}},
		{name: "negative weight", endpoints: local, opts: []Option{WithDefaultWeight(-1)}, want: []string{"weight", "10"}},
		{name: "short TTL", endpoints: local, opts: []Option{WithLeaseTTL(time.Millisecond)}, want: []string{"TTL", "1s"}},
		{name: "endless TTL", endpoints: local, opts: []Option{WithLeaseTTL(math.MaxInt64)}, want: []string{"TTL"}},
		{name: "TTL from the environment is no number", endpoints: local, env: "10s", want: []string{envLeaseTTL, `"10s"`, "seconds"}},
		{name: "TTL from the environment is zero", endpoints: local, env: "0", want: []string{envLeaseTTL, `"0"`}},
		{name: "negative drain delay", endpoints: local, opts: []Option{WithDrainDelay(-1)}, want: []string{"drain delay"}},
		{name: "no retry delay", endpoints: local, opts: []Option{WithRetry(&retry.Config{ObserveDelay: 1})}, want: []string{"RetryDelay"}},
		{name: "no observe delay", endpoints: local, opts: []Option{WithRetry(&retry.Config{RetryDelay: 1})}, want: []string{"ObserveDelay"}},
		{name: "advertised port", endpoints: local, opts: []Option{WithAdvertiseAddr("a:b")}, want: []string{`"a:b"`}},
		{name: "advertised space", endpoints: local, opts: []Option{WithAdvertiseAddr("a b")}, want: []string{`"a b"`}},
		{name: "nil option", endpoints: local, opts: []Option{nil}, want: []string{"nil"}},
		{name: "nil EtcdConfig", endpoints: local, opts: []Option{func(c *Config) { c.EtcdConfig = nil }}, want: []string{"EtcdConfig"}},
		{name: "client and endpoints", endpoints: local, opts: []Option{WithClient(cli)}, want: []string{"WithClient", "endpoints"}},
		{name: "client and credentials", opts: []Option{WithClient(cli), WithAuthOpt("root", "s3cret")}, want: []string{"WithClient"}},
		{name: "client and TLS", opts: []Option{WithClient(cli), WithTLSOpt("", "", garbage)}, want: []string{"WithClient", "TLS"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Setenv(envLeaseTTL, tc.env)
			conn, err := Connect(tc.endpoints, tc.opts...)
			if err == nil {
				conn.Close()
				t.Fatal("Connect accepted it")
			}
			for _, want := range append(tc.want, "etcd: ") {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not say %q", err, want)
				}
			}
			for _, secret := range []string{"s3cret", "t0ken", "not a certificate"} {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("error %q gives away %q", err, secret)
				}
			}
		})
	}
}

func TestConnectCompletes(t *testing.T) {
	t.Setenv(envLeaseTTL, "7")
	for _, tc := range []struct {
		name      string
		endpoints []string
		opts      []Option
		check     func(*Config) bool
	}{
		{"prefix", local, nil, func(c *Config) bool { return c.Prefix == "kitex/registry-etcd" }},
		{"prefix as given", local, []Option{WithEtcdServicePrefix("/100%/")}, func(c *Config) bool { return c.Prefix == "/100%/" }},
		{"empty prefix", local, []Option{WithEtcdServicePrefix("")}, func(c *Config) bool { return c.Prefix == "" }},
		{"weight", local, nil, func(c *Config) bool { return c.DefaultWeight == 10 }},
		{"retry", local, nil, func(c *Config) bool { return *c.Retry == *retry.NewRetryConfig() }},
		{"retry's spec", local, nil, func(c *Config) bool {
			return *c.Retry == retry.Config{MaxAttemptTimes: 5, ObserveDelay: 30e9, RetryDelay: 10e9}
		}},
		{"TTL from the environment", local, nil, func(c *Config) bool { return c.LeaseTTL == 7*time.Second }},
		{"TTL given", local, []Option{WithLeaseTTL(1500 * time.Millisecond)}, func(c *Config) bool { return c.LeaseTTL == 2*time.Second }},
		{"protection by the minimum", local, nil, func(c *Config) bool { return c.EmptyProtection == 30*time.Second }},
		{"protection by the TTL", local, []Option{WithLeaseTTL(time.Minute)}, func(c *Config) bool { return c.EmptyProtection == 2*time.Minute }},
		{"drain", local, nil, func(c *Config) bool { return c.DrainDelay == 200*time.Millisecond }},
		{"no drain", local, []Option{WithDrainDelay(0)}, func(c *Config) bool { return c.DrainDelay == 0 }},
		{"dial timeout", local, []Option{WithDialTimeoutOpt(0)}, func(c *Config) bool { return c.EtcdConfig.DialTimeout == 3*time.Second }},
		{"IPv6", []string{"[::1]:2379", "https.example:1"}, nil, func(c *Config) bool { return len(c.EtcdConfig.Endpoints) == 2 }},
		{"https", []string{"https://a:1/", "https://b:1"}, nil, func(c *Config) bool { return len(c.EtcdConfig.Endpoints) == 2 }},
		{"last option wins", local, []Option{WithTLSConfig(nil), WithTLSConfig(&tls.Config{ServerName: "x"})}, func(c *Config) bool { return c.EtcdConfig.TLS.ServerName == "x" }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			conn, err := Connect(tc.endpoints, tc.opts...)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if !tc.check(conn.cfg) {
				t.Errorf("config is %+v", conn.cfg)
			}
		})
	}
}
