package etcdtest_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/goleak"

	"github.com/kitex-contrib/kitex-etcd/runtime/etcdtest"
)

func TestMain(m *testing.M) {
	code := m.Run()
	if code == 0 {
		// etcd gives the connections among members five seconds to end.
		deadline := time.Now().Add(10 * time.Second)
		for {
			err := goleak.Find()
			if err == nil {
				break
			}
			if time.Now().After(deadline) {
				fmt.Fprintln(os.Stderr, err)
				code = 1
				break
			}
		}
	}
	os.Exit(code)
}

func TestStartServes(t *testing.T) {
	c := etcdtest.Start(t)
	cli := client(t, c)
	put(t, cli, "k", "v")
	if got := get(t, cli, "k"); got != "v" {
		t.Errorf("k = %q, want v", got)
	}
}

func TestRestartKeepsDataAndAddress(t *testing.T) {
	c := etcdtest.Start(t)
	cli := client(t, c)
	put(t, cli, "k", "v")
	before := c.Endpoints()[0]

	c.Stop()
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if after := c.Endpoints()[0]; after != before {
		t.Errorf("the endpoint moved from %s to %s", before, after)
	}
	// The same client, so the same address.
	if got := get(t, cli, "k"); got != "v" {
		t.Errorf("k = %q after a restart, want v", got)
	}
}

func TestWipeKeepsAddressOnly(t *testing.T) {
	c := etcdtest.Start(t, etcdtest.WithMembers(3))
	cli := client(t, c)
	put(t, cli, "k", "v")

	if err := c.Wipe(); err == nil {
		t.Error("a running cluster let itself be wiped")
	}
	c.Stop()
	if err := c.Wipe(); err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if got := get(t, cli, "k"); got != "" {
		t.Errorf("k = %q after a wipe, want none", got)
	}
}

func TestStopBreaksConnectionsAndRefusesNewOnes(t *testing.T) {
	c := etcdtest.Start(t)
	cli := client(t, c)
	conn, err := net.Dial("tcp", c.Endpoints()[0])
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	watch := cli.Watch(ctx, "k", clientv3.WithCreatedNotify())
	if r := <-watch; !r.Created {
		t.Fatalf("watch: %v", r.Err())
	}

	c.Stop()
	conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read on a connection to a stopped member: %v, want it broken", err)
	}
	if _, err := net.Dial("tcp", c.Endpoints()[0]); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dial of a stopped member: %v, want %v", err, syscall.ECONNREFUSED)
	}
	if runtime.GOOS == "linux" {
		if l, err := net.Listen("tcp", c.Endpoints()[0]); err == nil {
			l.Close()
			t.Error("somebody else got the address of a stopped member")
		}
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	put(t, cli, "k", "v")
	if r := <-watch; len(r.Events) != 1 {
		t.Errorf("watch after a restart: %+v, want one event", r)
	}
}

func TestMembersSurviveTheLeader(t *testing.T) {
	for name, stop := range map[string]func(*etcdtest.Member){
		"stopped": (*etcdtest.Member).Stop,
		"killed":  (*etcdtest.Member).Kill,
	} {
		t.Run(name, func(t *testing.T) {
			c := etcdtest.Start(t, etcdtest.WithMembers(3))
			cli := client(t, c)
			put(t, cli, "k", "1")

			old := leader(t, c)
			stop(old)
			if next := leader(t, c); next == old {
				t.Fatalf("%s leads although it was %s", old.Endpoint(), name)
			}
			put(t, cli, "k", "2")

			if err := old.Start(); err != nil {
				t.Fatal(err)
			}
			alone, err := clientv3.New(clientv3.Config{Endpoints: []string{old.Endpoint()}})
			if err != nil {
				t.Fatal(err)
			}
			defer alone.Close()
			if got := get(t, alone, "k"); got != "2" {
				t.Errorf("k = %q at the returned member, want 2", got)
			}
		})
	}
}

func TestLeaderWithoutQuorum(t *testing.T) {
	c := etcdtest.Start(t, etcdtest.WithMembers(3))
	c.Stop()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if m, err := c.Leader(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Leader = %v, %v; want %v", m, err, context.DeadlineExceeded)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	leader(t, c)
}

func TestWithConfig(t *testing.T) {
	var starts int
	c := etcdtest.Start(t, etcdtest.WithConfig(func(cfg *embed.Config) {
		starts++
		cfg.MaxTxnOps = 1
	}))
	c.Stop()
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if starts != 2 {
		t.Errorf("configured %d times for 2 starts", starts)
	}
	_, err := client(t, c).Txn(t.Context()).Then(clientv3.OpGet("a"), clientv3.OpGet("b")).Commit()
	if err == nil {
		t.Error("a transaction of two operations passed MaxTxnOps = 1")
	}
}

func TestTLS(t *testing.T) {
	certFile, keyFile, roots := selfSigned(t)
	c := etcdtest.Start(t, etcdtest.WithConfig(func(cfg *embed.Config) {
		cfg.ClientTLSInfo = transport.TLSInfo{CertFile: certFile, KeyFile: keyFile}
	}))
	cli, err := clientv3.New(clientv3.Config{Endpoints: c.Endpoints(), TLS: &tls.Config{RootCAs: roots}})
	if err != nil {
		t.Fatal(err)
	}
	defer cli.Close()
	put(t, cli, "k", "v")

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	watch := cli.Watch(ctx, "k", clientv3.WithCreatedNotify())
	if r := <-watch; !r.Created {
		t.Fatalf("watch: %v", r.Err())
	}
	c.Stop()
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if got := get(t, cli, "k"); got != "v" {
		t.Errorf("k = %q after a restart, want v", got)
	}
}

func TestNewKeepsNothing(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	c, err := etcdtest.New()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := c.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	left, err := os.ReadDir(os.Getenv("TMPDIR"))
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestNewErrors(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var starts int
	for _, test := range []struct {
		name, want string
		opts       []etcdtest.Option
	}{
		{"no members", "0 members", []etcdtest.Option{etcdtest.WithMembers(0)}},
		{"dir is a file", file, []etcdtest.Option{etcdtest.WithDir(file)}},
		{"one of three fails", "start member2 (127.0.0.1:", []etcdtest.Option{
			etcdtest.WithMembers(3),
			etcdtest.WithConfig(func(cfg *embed.Config) {
				if starts++; starts == 3 {
					cfg.ElectionMs = 0
				}
			}),
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, err := etcdtest.New(test.opts...)
			if err == nil {
				c.Close()
				t.Fatal("no error")
			}
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %q, want %q in it", err, test.want)
			}
		})
	}
}

// selfSigned makes a certificate for 127.0.0.1 that is its own authority.
func selfSigned(t *testing.T) (certFile, keyFile string, roots *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotAfter:     time.Now().Add(time.Hour),
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write := func(kind string, der []byte) (file string, block []byte) {
		file = filepath.Join(t.TempDir(), "pem")
		block = pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
		if err := os.WriteFile(file, block, 0o600); err != nil {
			t.Fatal(err)
		}
		return file, block
	}
	certFile, block := write("CERTIFICATE", cert)
	keyFile, _ = write("PRIVATE KEY", der)
	roots = x509.NewCertPool()
	roots.AppendCertsFromPEM(block)
	return certFile, keyFile, roots
}

func client(t *testing.T, c *etcdtest.Cluster) *clientv3.Client {
	t.Helper()
	cli, err := clientv3.New(clientv3.Config{Endpoints: c.Endpoints()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cli.Close() })
	return cli
}

func put(t *testing.T, cli *clientv3.Client, key, value string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	// A put that meets the end of an old connection fails without being retried.
	for {
		_, err := cli.Put(ctx, key, value)
		if err == nil {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("put: %v", err)
		}
	}
}

func get(t *testing.T, cli *clientv3.Client, key string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	r, err := cli.Get(ctx, key)
	if err != nil {
		t.Fatalf("get: %v", err)
	}
	if len(r.Kvs) == 0 {
		return ""
	}
	return string(r.Kvs[0].Value)
}

func leader(t *testing.T, c *etcdtest.Cluster) *etcdtest.Member {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	m, err := c.Leader(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return m
}
