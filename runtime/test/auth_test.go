package test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"

	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
	"github.com/kitex-contrib/kitex-etcd/runtime/etcdtest"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/record"
)

// tokenTTL is the life of the tokens of these tests; etcd counts it in seconds.
const tokenTTL = time.Second

// securedEtcd runs an etcd with authentication, tokens of a kind (an --auth-token value), and the users "server" and
// "client", whose passwords are their names twice. Their roles are the least that servers and clients of the service
// Hello need, as the documentation gives them. The client that is returned is root's.
func securedEtcd(t *testing.T, tokens string) (*etcdtest.Cluster, *clientv3.Client) {
	t.Helper()
	cluster := etcdtest.Start(t, etcdtest.WithConfig(func(c *embed.Config) {
		c.AuthToken = tokens
		c.AuthTokenTTL = uint(tokenTTL / time.Second)
	}))
	cli := etcdClient(t, cluster.Endpoints())
	ctx := testContext(t)
	from, to := record.ServicePrefix(etcd.DefaultPrefix, "Hello"), clientv3.GetPrefixRangeEnd(record.ServicePrefix(etcd.DefaultPrefix, "Hello"))
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for role, access := range map[string]clientv3.PermissionType{
		"server": clientv3.PermissionType(clientv3.PermReadWrite),
		"client": clientv3.PermissionType(clientv3.PermRead),
	} {
		must(cli.RoleAdd(ctx, role))
		must(cli.RoleGrantPermission(ctx, role, from, to, access))
		must(cli.UserAdd(ctx, role, role+role))
		must(cli.UserGrantRole(ctx, role, role))
	}
	must(cli.UserAdd(ctx, "root", "rootroot"))
	must(cli.UserGrantRole(ctx, "root", "root"))
	must(cli.AuthEnable(ctx))

	root, err := clientv3.New(clientv3.Config{Endpoints: cluster.Endpoints(), Username: "root", Password: "rootroot", DialTimeout: patience})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = root.Close() })
	return cluster, root
}

// jwtTokens returns the --auth-token value of JSON web tokens signed with a key of this test.
func jwtTokens(t *testing.T) string {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	priv, pub := filepath.Join(dir, "jwt.key"), filepath.Join(dir, "jwt.pub")
	for name, block := range map[string]*pem.Block{
		priv: {Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)},
		pub:  {Type: "PUBLIC KEY", Bytes: public},
	} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return fmt.Sprintf("jwt,pub-key=%s,priv-key=%s,sign-method=RS256,ttl=%s", pub, priv, tokenTTL)
}

// TestFaultAuthTokensExpire lives through many tokens: the registration stands, and the watch misses no change.
func TestFaultAuthTokensExpire(t *testing.T) {
	lives := 6
	if long := os.Getenv("KITEX_ETCD_LONG"); long != "" {
		lives = 600
	}
	for name, tokens := range map[string]func(*testing.T) string{
		"simple": func(*testing.T) string { return "simple" },
		"JWT":    jwtTokens,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cluster, root := securedEtcd(t, tokens(t))
			servers, journal := connectRegistry(t, cluster.Endpoints(), etcd.WithAuthOpt("server", "serverserver"))
			clients := connect(t, cluster, etcd.WithAuthOpt("client", "clientclient"))
			mustRegister(t, servers.Registry(), serverInfo("Hello", "127.0.0.1:1"))
			await(t, clients, "Hello", "127.0.0.1:1")
			for i := range lives {
				time.Sleep(tokenTTL + 200*time.Millisecond) // nobody tells that a token expired: only time does
				put(t, root, "Hello", "127.0.0.1:2")
				await(t, clients, "Hello", "127.0.0.1:1", "127.0.0.1:2")
				remove(t, root, "Hello", "127.0.0.1:2")
				await(t, clients, "Hello", "127.0.0.1:1")
				if lost := journal.count(etcd.EventLeaseLost) + journal.count(etcd.EventRecordLost); lost > 0 {
					t.Fatalf("the registration was lost after %d tokens", i+1)
				}
			}
			mustDeregister(t, servers.Registry(), serverInfo("Hello", "127.0.0.1:1"))
			await(t, clients, "Hello")
		})
	}
}

// TestLeastPrivilege: the documented roles are enough for all that servers and clients do (TestFaultAuthTokensExpire),
// and keep them from more, which is said at once and not waited for.
func TestLeastPrivilege(t *testing.T) {
	cluster, _ := securedEtcd(t, "simple")
	servers, _ := connectRegistry(t, cluster.Endpoints(), etcd.WithAuthOpt("server", "serverserver"), etcd.WithBackgroundRegister())
	clients, _ := connectRegistry(t, cluster.Endpoints(), etcd.WithAuthOpt("client", "clientclient"))
	strangers, _ := connectRegistry(t, cluster.Endpoints(), etcd.WithAuthOpt("client", "wr0ng"))

	for name, f := range map[string]func() error{
		"a server of another service": func() error { return servers.Registry().Register(serverInfo("Echo", "127.0.0.1:1")) },
		"a client that registers":     func() error { return clients.Registry().Register(serverInfo("Hello", "127.0.0.1:1")) },
		"a client of another service": func() error { _, err := clients.Instances(t.Context(), "Echo"); return err },
		"a stranger that registers":   func() error { return strangers.Registry().Register(serverInfo("Hello", "127.0.0.1:1")) },
		"a stranger that looks":       func() error { _, err := strangers.Instances(t.Context(), "Hello"); return err },
	} {
		err := f()
		want := rpctypes.ErrPermissionDenied
		if strings.Contains(name, "stranger") {
			want = rpctypes.ErrAuthFailed
		}
		if !errors.Is(err, want) || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: got %v, want %v", name, err, want)
		} else if strings.Contains(err.Error(), "wr0ng") {
			t.Errorf("%s: the error gives away the password: %v", name, err)
		}
	}
}

// TestCredentialsOfAnEtcdThatIsDown: Connect does not wait for etcd, and what needs it works when etcd comes up.
func TestCredentialsOfAnEtcdThatIsDown(t *testing.T) {
	cluster, _ := securedEtcd(t, "simple")
	cluster.Stop()
	servers, journal := connectRegistry(t, cluster.Endpoints(), etcd.WithAuthOpt("server", "serverserver"), etcd.WithBackgroundRegister())
	clients := connect(t, cluster, etcd.WithAuthOpt("client", "clientclient"), etcd.WithDialTimeoutOpt(time.Second))
	if servers.Client() != nil {
		t.Error("there is an etcd client that nobody let in")
	}
	mustRegister(t, servers.Registry(), serverInfo("Hello", "127.0.0.1:1"))
	if _, err := clients.Instances(t.Context(), "Hello"); err == nil || !strings.Contains(err.Error(), cluster.Endpoints()[0]) {
		t.Errorf("Instances says %v", err)
	}
	if err := cluster.Start(); err != nil {
		t.Fatal(err)
	}
	journal.wait(t, etcd.EventRegistered, 1)
	await(t, clients, "Hello", "127.0.0.1:1")
	if servers.Client() == nil {
		t.Error("there is no etcd client")
	}
}
