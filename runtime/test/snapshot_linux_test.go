package test

import (
	"syscall"
	"testing"

	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
	"github.com/kitex-contrib/kitex-etcd/runtime/etcdtest"
)

// TestFaultFullDisk: what cannot be stored is nobody's error, and changes come as ever.
func TestFaultFullDisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64k,nr_inodes=1"); err != nil { // the one is the directory
		t.Skipf("a small file system cannot be mounted here, which takes root: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	cluster := etcdtest.Start(t)
	raw := etcdClient(t, cluster.Endpoints())
	put(t, raw, "Hello", "10.0.0.1:80")
	c := connect(t, cluster, etcd.WithSnapshots(dir))
	await(t, c, "Hello", "10.0.0.1:80")
	put(t, raw, "Hello", "10.0.0.2:80")
	await(t, c, "Hello", "10.0.0.1:80", "10.0.0.2:80")
}
