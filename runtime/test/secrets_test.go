package test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cloudwego/kitex/client"
	"github.com/cloudwego/kitex/pkg/diagnosis"
	"github.com/cloudwego/kitex/pkg/klog"
	"github.com/cloudwego/kitex/pkg/serviceinfo"
	"github.com/cloudwego/kitex/server"
	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/server/v3/embed"

	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
	"github.com/kitex-contrib/kitex-etcd/runtime/etcdtest"
)

// transcript is everything that a program could show to somebody.
type transcript struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (tr *transcript) Write(p []byte) (int, error) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return tr.text.Write(p)
}

func (tr *transcript) String() string {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return tr.text.String()
}

// show writes values in every way that fmt and encoding/json have.
func (tr *transcript) show(values ...any) {
	for _, v := range values {
		fmt.Fprintf(tr, "%v\n%+v\n%#v\n%s\n", v, v, v, v)
		if b, err := json.Marshal(v); err == nil {
			fmt.Fprintf(tr, "%s\n", b)
		}
	}
}

// probes is Kitex's diagnosis service: what it would dump, the transcript gets.
type probes struct {
	mu    sync.Mutex
	funcs map[diagnosis.ProbeName]diagnosis.ProbeFunc
}

func (p *probes) RegisterProbeFunc(name diagnosis.ProbeName, f diagnosis.ProbeFunc) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.funcs[name] = f
}

func (p *probes) dump(tr *transcript) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	for name, f := range p.funcs {
		tr.show(name, f())
	}
	return len(p.funcs)
}

// TestNoSecretIsShown goes through what works and what fails with a password and a private key, and searches logs of
// all levels, errors, Events, printed values and what Kitex dumps for them. It runs in a process of its own: Kitex reads the log level
// without a lock, so it may change only before anything of Kitex runs.
func TestNoSecretIsShown(t *testing.T) {
	if cmd := again(t); cmd != nil {
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	const password = "s3cret-passw0rd"
	tr := new(transcript)
	klog.SetOutput(tr)
	klog.SetLevel(klog.LevelTrace)

	ca := newAuthority(t)
	hour := time.Now().Add(time.Hour)
	serverFiles, files := newCertFiles(t).write(t, ca, ca, hour, ""), newCertFiles(t).write(t, ca, ca, hour, "")
	keyPEM, err := os.ReadFile(files.key)
	if err != nil {
		t.Fatal(err)
	}
	keyLine := strings.Split(string(keyPEM), "\n")[1]

	cluster := etcdtest.Start(t, etcdtest.WithConfig(func(c *embed.Config) {
		c.ClientTLSInfo = transport.TLSInfo{CertFile: serverFiles.cert, KeyFile: serverFiles.key, TrustedCAFile: serverFiles.ca, ClientCertAuth: true}
	}))
	opts := func(more ...etcd.Option) []etcd.Option {
		return append([]etcd.Option{
			etcd.WithTLSOpt(files.cert, files.key, files.ca), etcd.WithLeaseTTL(time.Second), etcd.WithDialTimeoutOpt(time.Second),
			etcd.WithEventHandler(func(ev etcd.Event) { tr.show(ev) }),
		}, more...)
	}
	root, err := etcd.Connect(cluster.Endpoints(), opts()...)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	ctx := testContext(t)
	cli := root.Client()
	_, e1 := cli.UserAdd(ctx, "root", password)
	_, e2 := cli.UserGrantRole(ctx, "root", "root")
	_, e3 := cli.AuthEnable(ctx)
	if err := errors.Join(e1, e2, e3); err != nil {
		t.Fatal(err)
	}

	// What works, and Kitex's dumps of it.
	var cfg *etcd.Config // as Connect completes it
	keep := func(c *etcd.Config) { cfg = c }
	conn, err := etcd.Connect(cluster.Endpoints(), opts(etcd.WithAuthOpt("root", password), keep)...)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	r, info := conn.Registry(), serverInfo("Hello", "127.0.0.1:1")
	mustRegister(t, r, info)
	await(t, conn, "Hello", "127.0.0.1:1")
	diag := &probes{funcs: make(map[diagnosis.ProbeName]diagnosis.ProbeFunc)}
	if _, err := client.NewClient(&serviceinfo.ServiceInfo{}, client.WithDestService("Hello"), client.WithDiagnosisService(diag), client.WithSuite(suite{conn})); err != nil {
		t.Fatal(err)
	}
	server.NewServer(append(conn.ServerOptions("Hello"), server.WithDiagnosisService(diag))...)
	if n := diag.dump(tr); n < 3 {
		t.Errorf("Kitex registered %d probes", n)
	}
	res, err := conn.Resolver().Resolve(ctx, "Hello")
	tr.show(conn, r, conn.Resolver(), res, err, info, opts(etcd.WithAuthOpt("root", password)))
	tr.show(*cfg)

	// What fails: refused users, files that are missing or mixed up, endpoints with a password, an etcd that is down.
	for _, more := range [][]etcd.Option{
		{etcd.WithAuthOpt("root", password+"wrong")},
		{etcd.WithAuthOpt("nobody", password)},
		{etcd.WithAuthOpt("root", password), etcd.WithTLSOpt("", "", files.ca)},
		{etcd.WithAuthOpt("root", password), etcd.WithTLSOpt(files.key, files.cert, files.ca)},
		{etcd.WithAuthOpt("root", password), etcd.WithTLSOpt(files.cert, files.key, files.key)},
		{etcd.WithAuthOpt("", password)},
	} {
		c, err := etcd.Connect(cluster.Endpoints(), opts(more...)...)
		tr.show(err)
		if err != nil {
			continue
		}
		tr.show(c.Registry().Register(info))
		_, err = c.Instances(ctx, "Hello")
		tr.show(err, c, c.Close())
	}
	for _, endpoint := range []string{"https://root:" + password + "@127.0.0.1:1", "https://root:" + password + "@[", "root:" + password + "@127.0.0.1:1"} {
		_, err := etcd.Connect([]string{endpoint}, opts(etcd.WithAuthOpt("root", password))...)
		tr.show(err)
	}
	cluster.Stop()
	down, err := etcd.Connect(cluster.Endpoints(), opts(etcd.WithAuthOpt("root", password))...)
	if err != nil {
		t.Fatal(err)
	}
	tr.show(down.Registry().Register(serverInfo("Hello", "127.0.0.1:2")), down.Close(), r.Deregister(info))

	text := tr.String()
	if len(text) < 10_000 || !strings.Contains(text, "registered") {
		t.Fatalf("the transcript of %d bytes cannot be all", len(text))
	}
	for what, secret := range map[string]string{"the password": password, "the private key": keyLine} {
		if i := strings.Index(text, secret); i >= 0 {
			t.Errorf("%s is shown: …%s…", what, text[max(0, i-300):min(len(text), i+100)])
		}
	}
}

// suite is a client.Suite that holds the Conn, which Kitex prints with it.
type suite struct{ Conn *etcd.Conn }

func (s suite) Options() []client.Option { return s.Conn.ClientOptions() }
