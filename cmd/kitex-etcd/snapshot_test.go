package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
	"github.com/kitex-contrib/kitex-etcd/runtime/etcdtest"
)

// TestSnapshot prints the file that a client left, while no etcd is there.
func TestSnapshot(t *testing.T) {
	cluster := etcdtest.Start(t)
	cli := etcdClient(t, cluster)
	fill(t, cluster, cli)
	dir := t.TempDir()
	conn, err := etcd.Connect(cluster.Endpoints(), etcd.WithSnapshots(dir))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	must(t)(conn.Instances(testContext(t), "Hello"))
	var files []string
	for deadline := time.Now().Add(20 * time.Second); len(files) == 0; time.Sleep(10 * time.Millisecond) { // polled: no event tells of a file that was written
		if time.Now().After(deadline) {
			t.Fatal("no file was written")
		}
		if files, err = filepath.Glob(filepath.Join(dir, "*", "*.json")); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("KITEX_ETCD_ENDPOINTS", "127.0.0.1:1")
	for _, output := range outputs {
		stdout, stderr, code := call("instances", "--snapshot", files[0], "-o", output)
		if code != exitDone || !strings.Contains(stderr, "confirmed") || !strings.Contains(stderr, cluster.Endpoints()[0]) {
			t.Errorf("-o %s: exit code %d, %s", output, code, stderr)
		}
		golden(t, "snapshot."+output, stdout)
	}
	if stdout, _, code := call("instances", "--snapshot", files[0], "-l", "zone=b", "Hel*"); code != exitDone ||
		!strings.Contains(stdout, "10.0.0.2:80") || strings.Contains(stdout, "10.0.0.1:80") {
		t.Errorf("-l zone=b: exit code %d\n%s", code, stdout)
	}

	broken := filepath.Join(t.TempDir(), "broken.json")
	if err := os.WriteFile(broken, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"instances", "--snapshot", broken},
		{"instances", "--snapshot", broken + ".missing"},
		{"instances", "--snapshot", files[0], "-o", "xml"},
		{"instances", "--snapshot", files[0], "-l", "zone"},
	} {
		if stdout, stderr, code := call(args...); code != exitFail || stdout != "" || stderr == "" {
			t.Errorf("%q: exit code %d, %q, %q", args, code, stdout, stderr)
		}
	}
}
