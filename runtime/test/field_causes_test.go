package test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"

	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
	"github.com/kitex-contrib/kitex-etcd/runtime/etcdtest"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/faultproxy"
)

// TestFieldErrorsGiveCauseAndAdvice: each error begins with its cause, without gRPC's shells, and says what to do about that cause.
func TestFieldErrorsGiveCauseAndAdvice(t *testing.T) {
	hour := time.Now().Add(time.Hour)
	ca, other := newAuthority(t), newAuthority(t)
	server := newCertFiles(t).write(t, ca, ca, hour, "")
	distrustful := newCertFiles(t).write(t, ca, other, hour, "")
	plain := etcdtest.Start(t)
	secure, mutual := secureEtcd(t, server, false), secureEtcd(t, server, true)
	users, _ := securedEtcd(t, "simple")
	full := etcdtest.Start(t, etcdtest.WithConfig(func(c *embed.Config) { c.QuotaBackendBytes = 1 << 20 }))
	fillUp(t, full)
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refused := closed.Addr().String()
	closed.Close()
	hole := faultproxy.Start(t, plain.Endpoints()[0])
	hole.BlackHole()
	gone, err := clientv3.New(clientv3.Config{Endpoints: plain.Endpoints()})
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	bare := func(c *etcdtest.Cluster) []string {
		return []string{strings.TrimPrefix(strings.TrimPrefix(c.Endpoints()[0], "https://"), "http://")}
	}
	large := strings.Repeat("x", 3<<20)

	for name, tc := range map[string]struct {
		endpoints []string
		opts      []etcd.Option
		service   string
		tags      map[string]string
		cause     string // how the error goes on after "etcd: "
		advice    string
	}{
		"refused":                  {endpoints: []string{refused}, cause: "dial tcp " + refused + ": connect: connection refused", advice: "check that etcd is up"},
		"plaintext to TLS":         {endpoints: bare(secure), cause: "etcd closed the connection before it said anything", advice: "give WithTLSOpt"},
		"TLS to plaintext":         {endpoints: bare(plain), opts: []etcd.Option{etcd.WithTLSConfig(&tls.Config{})}, cause: "etcd does not speak TLS", advice: "leave TLS out"},
		"wrong authority":          {endpoints: bare(secure), opts: []etcd.Option{etcd.WithTLSOpt("", "", distrustful.ca)}, cause: "tls: failed to verify certificate: x509: certificate signed by unknown authority", advice: "the authority that signed etcd's certificate"},
		"no client certificate":    {endpoints: bare(mutual), opts: []etcd.Option{etcd.WithTLSOpt("", "", server.ca)}, cause: "etcd ", advice: "WithTLSOpt"},
		"wrong password":           {endpoints: users.Endpoints(), opts: []etcd.Option{etcd.WithAuthOpt("server", "wr0ng")}, cause: "etcd refused user and password (authentication failed", advice: "check the credentials"},
		"no user":                  {endpoints: users.Endpoints(), cause: "etcd asks for a user, and none was given", advice: "WithAuthOpt"},
		"a role that is too small": {endpoints: users.Endpoints(), opts: []etcd.Option{etcd.WithAuthOpt("client", "clientclient")}, cause: "the user's role in etcd is too small (permission denied): register kitex/registry-etcd/Hello/127.0.0.1:1", advice: "readwrite"},
		"wrong prefix":             {endpoints: users.Endpoints(), opts: []etcd.Option{etcd.WithAuthOpt("server", "serverserver"), etcd.WithEtcdServicePrefix("other")}, cause: "the user's role in etcd is too small (permission denied): register other/Hello/127.0.0.1:1", advice: "readwrite"},
		"database full":            {endpoints: full.Endpoints(), cause: "etcd's database is full", advice: "alarm disarm"},
		"black hole":               {endpoints: []string{hole.Addr()}, cause: "etcd did not answer in time", advice: "check the way to etcd"},
		"a client that is closed":  {opts: []etcd.Option{etcd.WithClient(gone)}, cause: "the etcd client was closed", advice: "leave the client"},
		"a record of 3 MB":         {endpoints: plain.Endpoints(), tags: map[string]string{"x": large}, cause: "the record is larger than the etcd client sends", advice: "make the record smaller"},
		"a failing WithAuthFunc": {endpoints: users.Endpoints(), opts: []etcd.Option{etcd.WithAuthFunc(func(context.Context) (string, string, error) {
			return "", "", fmt.Errorf("the vault is sealed")
		})}, cause: "the function given to WithAuthFunc failed: the vault is sealed"},
		"an empty WithAuthFunc": {endpoints: users.Endpoints(), opts: []etcd.Option{etcd.WithAuthFunc(func(context.Context) (string, string, error) {
			return "", "", nil
		})}, cause: "the function given to WithAuthFunc gave an empty user"},
		"a panicking WithAuthFunc": {endpoints: users.Endpoints(), opts: []etcd.Option{etcd.WithAuthFunc(func(context.Context) (string, string, error) {
			panic("a bug")
		})}, cause: "the function given to WithAuthFunc panicked: a bug"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn, err := etcd.Connect(tc.endpoints, tc.opts...)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			info := serverInfo("Hello", "127.0.0.1:1")
			info.Tags = tc.tags
			err = conn.Registry().Register(info)
			if err == nil {
				t.Fatal("registered")
			}
			text := err.Error()
			t.Log(text)
			if !strings.HasPrefix(text, "etcd: "+tc.cause) {
				t.Errorf("the error is %q, want it to begin with %q", text, "etcd: "+tc.cause)
			}
			if !strings.Contains(text, tc.advice) {
				t.Errorf("the error is %q, want it to say %q", text, tc.advice)
			}
			for _, shell := range []string{"rpc error", "desc =", "transport:", "Error while dialing", "latest balancer error"} {
				if strings.Contains(text, shell) {
					t.Errorf("the error is %q, and shows gRPC's %q", text, shell)
				}
			}
		})
	}
}

// fillUp writes to cluster until its quota is used up.
func fillUp(t *testing.T, cluster *etcdtest.Cluster) {
	t.Helper()
	cli := etcdClient(t, cluster.Endpoints())
	for i := range 300 {
		if _, err := cli.Put(testContext(t), fmt.Sprint("fill", i), strings.Repeat("x", 1<<20)); err != nil {
			return
		}
	}
	t.Fatal("the quota was not used up")
}
