package compat

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/kitex-contrib/kitex-etcd/runtime/etcdtest"
)

// TestSamples runs the programs that registry-etcd's documentation prints, as they stand in samples/: but for the import
// paths, word for word. Only here, for the run, do they get the address of the test's etcd and a free port to listen on.
func TestSamples(t *testing.T) {
	for _, tc := range []struct{ server, client, username, password string }{
		{"registry", "resolver", "", ""},
		{"registry_retry", "resolver", "", ""},
		{"registry_auth", "resolver_auth", "username", "password"},
	} {
		t.Run(tc.server+" and "+tc.client, func(t *testing.T) {
			cluster := etcdtest.Start(t)
			if tc.username != "" {
				enableAuth(t, cluster, tc.username, tc.password)
			}
			endpoint := cluster.Endpoints()[0]
			run(t, build(t, tc.server, endpoint))
			waitForRecord(t, newClient(t, cluster, tc.username, tc.password), "kitex/registry-etcd/Hello/")
			run(t, build(t, tc.client, endpoint)).waitFor(t, "Message:Hello")
		})
	}
}

// build compiles a sample for this test and returns the binary.
func build(t *testing.T, sample, endpoint string) string {
	t.Helper()
	source := filepath.Join("samples", sample, "main.go")
	text, err := os.ReadFile(source)
	if err != nil {
		t.Fatal(err)
	}
	replaced := strings.NewReplacer(
		"127.0.0.1:2379", endpoint,
		"server.WithRegistry(r)", `server.WithRegistry(r), server.WithServiceAddr(utils.NewNetAddr("tcp", "`+freeAddr(t)+`"))`,
		`"github.com/cloudwego/kitex/pkg/rpcinfo"`, `"github.com/cloudwego/kitex/pkg/rpcinfo"; "github.com/cloudwego/kitex/pkg/utils"`,
	).Replace(string(text))
	dir := t.TempDir()
	changed, overlay, binary := filepath.Join(dir, "main.go"), filepath.Join(dir, "overlay.json"), filepath.Join(dir, sample)
	abs, err := filepath.Abs(source)
	if err != nil {
		t.Fatal(err)
	}
	mapping, err := json.Marshal(map[string]any{"Replace": map[string]string{abs: changed}})
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{changed: []byte(replaced), overlay: mapping} {
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("go", "build", "-overlay", overlay, "-o", binary, "./"+filepath.Dir(source)).CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", sample, err, out)
	}
	return binary
}

// freeAddr returns a loopback address that nothing listens on at the moment.
func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// output is what a running program printed so far.
type output struct {
	mu      sync.Mutex
	text    bytes.Buffer
	changed chan struct{}
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	close(o.changed)
	o.changed = make(chan struct{})
	return o.text.Write(p)
}

func (o *output) waitFor(t *testing.T, want string) {
	t.Helper()
	timeout := time.After(30 * time.Second)
	for {
		o.mu.Lock()
		text, changed := o.text.String(), o.changed
		o.mu.Unlock()
		if strings.Contains(text, want) {
			return
		}
		select {
		case <-changed:
		case <-timeout:
			t.Fatalf("the program did not print %q in 30 s, but\n%s", want, text)
		}
	}
}

// run starts binary for as long as the test.
func run(t *testing.T, binary string) *output {
	t.Helper()
	out := &output{changed: make(chan struct{})}
	cmd := exec.Command(binary)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		kill := time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait()
		kill.Stop()
		if t.Failed() {
			t.Logf("%s printed\n%s", filepath.Base(binary), out.text.String())
		}
	})
	return out
}

func enableAuth(t *testing.T, cluster *etcdtest.Cluster, username, password string) {
	t.Helper()
	cli := newClient(t, cluster, "", "")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	steps := []func() error{
		func() error { _, err := cli.UserAdd(ctx, "root", "root"); return err },
		func() error { _, err := cli.UserGrantRole(ctx, "root", "root"); return err },
		func() error { _, err := cli.UserAdd(ctx, username, password); return err },
		func() error { _, err := cli.UserGrantRole(ctx, username, "root"); return err },
		func() error { _, err := cli.AuthEnable(ctx); return err },
	}
	for i, step := range steps {
		if err := step(); err != nil {
			t.Fatalf("step %d of enabling authentication: %v", i, err)
		}
	}
}

func newClient(t *testing.T, cluster *etcdtest.Cluster, username, password string) *clientv3.Client {
	t.Helper()
	cli, err := clientv3.New(clientv3.Config{Endpoints: cluster.Endpoints(), Username: username, Password: password, DialTimeout: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cli.Close() })
	return cli
}

// waitForRecord waits until something was put under prefix.
func waitForRecord(t *testing.T, cli *clientv3.Client, prefix string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for resp := range cli.Watch(ctx, prefix, clientv3.WithPrefix(), clientv3.WithRev(1), clientv3.WithFilterDelete()) {
		if len(resp.Events) > 0 {
			return
		}
	}
	t.Fatalf("nothing was registered under %s in 30 s", prefix)
}
