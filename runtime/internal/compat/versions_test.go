package compat

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cloudwego/kitex/pkg/klog"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
)

// TestServerVersions lives the life of a registration against older etcd servers: the last release of each minor version
// that the module proxy has, and what is installed as "etcd" (Debian's etcd-server, for example, is a 3.4). The newest
// one, 3.7, is what all other tests run.
func TestServerVersions(t *testing.T) {
	for _, version := range []string{"v3.5.35", "v3.6.16"} {
		t.Run(version, func(t *testing.T) { live(t, buildServer(t, version)) })
	}
	t.Run("installed", func(t *testing.T) {
		binary, err := exec.LookPath("etcd")
		if err != nil {
			t.Skip("no etcd is installed; Debian's package is etcd-server")
		}
		out, err := exec.Command(binary, "--version").CombinedOutput()
		t.Logf("%s, %v", out, err)
		live(t, binary)
	})
}

// buildServer builds etcd from its module. It has a module of its own there, because an old server cannot be built with
// the new client's packages.
func buildServer(t *testing.T, version string) (binary string) {
	t.Helper()
	dir := t.TempDir()
	binary = filepath.Join(dir, "etcd")
	for _, args := range [][]string{
		{"mod", "init", "server"},
		{"get", "go.etcd.io/etcd/server/v3@" + version},
		{"build", "-o", binary, "go.etcd.io/etcd/server/v3"},
	} {
		cmd := exec.Command("go", args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	return binary
}

// server is an etcd process on addresses that stay.
type server struct {
	binary, dir, client, peer string
	cmd                       *exec.Cmd
}

func (s *server) start(t *testing.T) {
	t.Helper()
	s.cmd = exec.Command(s.binary, "--data-dir", s.dir,
		"--listen-client-urls", "http://"+s.client, "--advertise-client-urls", "http://"+s.client,
		"--listen-peer-urls", "http://"+s.peer, "--initial-advertise-peer-urls", "http://"+s.peer, "--initial-cluster", "default=http://"+s.peer)
	out := &output{changed: make(chan struct{})}
	s.cmd.Stdout, s.cmd.Stderr = out, out
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	cli, err := clientv3.New(clientv3.Config{Endpoints: []string{s.client}, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	defer cli.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if _, err := cli.Get(ctx, "x"); err != nil {
		t.Fatalf("%s does not serve: %v\n%s", s.binary, err, out.text.String())
	}
}

func (s *server) kill() {
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
}

// live registers, is found, loses its lease, its key and its etcd, comes back each time, and leaves.
func live(t *testing.T, binary string) {
	s := &server{binary: binary, dir: t.TempDir(), client: freeAddr(t), peer: freeAddr(t)}
	s.start(t)
	t.Cleanup(s.kill)

	restored := make(chan struct{}, 100)
	servers, err := etcd.Connect([]string{s.client}, etcd.WithLeaseTTL(2*time.Second), etcd.WithEventHandler(func(ev etcd.Event) {
		if ev.Type == etcd.EventRestored {
			restored <- struct{}{}
		}
	}))
	if err != nil {
		t.Fatal(err)
	}
	defer servers.Close()
	clients, err := etcd.Connect([]string{s.client})
	if err != nil {
		t.Fatal(err)
	}
	defer clients.Close()
	r, server := clients.Resolver(), info(1001, 20, map[string]string{"zone": "a"})
	const found = "tcp://127.0.0.1:1001 weight 20 zone a"

	registry := servers.Registry()
	if err := registry.Register(server); err != nil {
		t.Fatal(err)
	}
	eventually(t, r, found)

	key := prefix + "/Hello/127.0.0.1:1001"
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	resp, err := servers.Client().Get(ctx, key)
	if err != nil || len(resp.Kvs) != 1 {
		t.Fatalf("%v, %v", resp, err)
	}
	_, e1 := servers.Client().Revoke(ctx, clientv3.LeaseID(resp.Kvs[0].Lease))
	wait(ctx, t, restored)
	_, e2 := servers.Client().Delete(ctx, key)
	wait(ctx, t, restored)
	if err := errors.Join(e1, e2); err != nil {
		t.Fatal(err)
	}
	eventually(t, r, found)

	s.kill()
	eventually(t, r, found)
	if err := os.RemoveAll(s.dir); err != nil {
		t.Fatal(err)
	}
	s.start(t) // empty: everything that stood is gone
	wait(ctx, t, restored)
	// The client may not have been back yet, and would not believe that a server is gone that etcd lost before it left.
	_, e1 = servers.Client().Put(ctx, prefix+"/Hello/127.0.0.1:1002", `{"address":"127.0.0.1:1002"}`)
	eventually(t, r, found, "tcp://127.0.0.1:1002 weight 10 zone ")
	_, e2 = servers.Client().Delete(ctx, prefix+"/Hello/127.0.0.1:1002")
	if err := errors.Join(e1, e2); err != nil {
		t.Fatal(err)
	}
	eventually(t, r, found)

	if err := registry.Deregister(server); err != nil {
		t.Fatal(err)
	}
	eventually(t, r)
}

// TestMain sets the level once: what registry-etcd began logs on after its test.
func TestMain(m *testing.M) {
	klog.SetLevel(klog.LevelError)
	os.Exit(m.Run())
}

func wait(ctx context.Context, t *testing.T, ch <-chan struct{}) {
	t.Helper()
	select {
	case <-ch:
	case <-ctx.Done():
		t.Fatal(ctx.Err())
	}
}
