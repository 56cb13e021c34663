package main

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cloudwego/kitex/pkg/registry"
	"github.com/cloudwego/kitex/pkg/utils"
	clientv3 "go.etcd.io/etcd/client/v3"

	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
	"github.com/kitex-contrib/kitex-etcd/runtime/etcdtest"
)

// putOthers registers servers of another library, which follow no mark.
func putOthers(t *testing.T, cli *clientv3.Client, addrs ...string) {
	t.Helper()
	lease, err := cli.Grant(testContext(t), 600)
	if err != nil {
		t.Fatal(err)
	}
	for _, addr := range addrs {
		must(t)(cli.Put(testContext(t), etcd.DefaultPrefix+"/Hello/"+addr, `{"address":"`+addr+`","weight":2}`, clientv3.WithLease(lease.ID)))
	}
}

// TestMarkMayNotBeWritten: an operator whose role reads records and marks, and writes none, is told so, and nothing has changed.
func TestMarkMayNotBeWritten(t *testing.T) {
	cluster := etcdtest.Start(t)
	cli, ctx := etcdClient(t, cluster), testContext(t)
	putOthers(t, cli, "10.0.0.1:80", "10.0.0.2:80")
	must(t)(cli.Put(ctx, etcd.DefaultPrefix+"-control/Hello/10.0.0.2:80", `{"drain":true}`))
	must(t)(cli.RoleAdd(ctx, "reader"))
	must(t)(cli.RoleGrantPermission(ctx, "reader", "kitex/", clientv3.GetPrefixRangeEnd("kitex/"), clientv3.PermissionType(clientv3.PermRead)))
	for _, user := range []string{"root", "reader"} {
		must(t)(cli.UserAdd(ctx, user, "secret"))
		must(t)(cli.UserGrantRole(ctx, user, user))
	}
	must(t)(cli.AuthEnable(ctx))
	root, err := clientv3.New(clientv3.Config{Endpoints: cluster.Endpoints(), DialTimeout: 10 * time.Second, Username: "root", Password: "secret"})
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	// held is the revision of etcd, and how many leases it holds.
	held := func() (revision int64, leases int) {
		t.Helper()
		keys, err := root.Get(ctx, "x")
		if err != nil {
			t.Fatal(err)
		}
		all, err := root.Leases(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return keys.Header.Revision, len(all.Leases)
	}
	revision, leases := held()
	t.Setenv(envPassword, "secret")
	for command, does := range map[string]string{
		"drain Hello 10.0.0.1:80 --force":          "write",
		"drain Hello 10.0.0.1:80 --force --for 1m": "write",
		"weight Hello 10.0.0.1:80 1":               "write",
		"undrain Hello 10.0.0.2:80":                "delete",
	} {
		stdout, stderr, code := call(append(strings.Fields(command), "--endpoints", cluster.Endpoints()[0], "--user", "reader")...)
		if code != exitFail || stdout != "" {
			t.Errorf("%s: exit code %d, stdout %q", command, code, stdout)
		}
		for _, want := range []string{"permission denied", does + " the mark kitex/registry-etcd-control/Hello/10.0.0.", "operators readwrite on that of the marks"} {
			if !strings.Contains(stderr, want) {
				t.Errorf("%s: stderr %q, want %q in it", command, stderr, want)
			}
		}
	}
	if r, l := held(); r != revision || l != leases {
		t.Errorf("etcd is at revision %d with %d leases, and was at %d with %d", r, l, revision, leases)
	}
}

// TestMarkWhenEtcdGoesAway: etcd is lost while an operator waits for the server. He is told why, and that the mark stands.
func TestMarkWhenEtcdGoesAway(t *testing.T) {
	cluster := etcdtest.Start(t)
	cli := etcdClient(t, cluster)
	putOthers(t, cli, "10.0.0.1:80", "10.0.0.2:80")
	marks := cli.Watch(testContext(t), etcd.DefaultPrefix+"-control/", clientv3.WithPrefix(), clientv3.WithCreatedNotify())
	<-marks
	told := make(chan string)
	go func() {
		stdout, stderr, code := call("drain", "Hello", "10.0.0.1:80", "--endpoints", cluster.Endpoints()[0])
		if code != exitFail || stdout != "" {
			t.Errorf("exit code %d, stdout %q", code, stdout)
		}
		told <- stderr
	}()
	<-marks // the mark is written
	cluster.Stop()
	stderr := <-told
	for _, want := range []string{"connection refused: ", "the mark of Hello 10.0.0.1:80 stands", "it is not known whether the server follows it"} {
		if !strings.Contains(stderr, want) {
			t.Errorf("stderr %q, want %q in it", stderr, want)
		}
	}
}

// TestTwoOperatorsDrainTheLastTwo: each of two drains one of a service's two servers at the same time. One of them is refused.
func TestTwoOperatorsDrainTheLastTwo(t *testing.T) {
	cluster := etcdtest.Start(t)
	t.Setenv("KITEX_ETCD_ENDPOINTS", cluster.Endpoints()[0])
	conn, err := etcd.Connect(cluster.Endpoints(), etcd.WithDrainDelay(0))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	addrs := []string{"10.0.0.1:80", "10.0.0.2:80"}
	for _, addr := range addrs {
		if err := conn.Registry().Register(&registry.Info{ServiceName: "Hello", Addr: utils.NewNetAddr("tcp", addr), Weight: 10}); err != nil {
			t.Fatal(err)
		}
	}
	for range 20 {
		var operators sync.WaitGroup
		var codes [2]int
		for i, addr := range addrs {
			operators.Go(func() { _, _, codes[i] = call("drain", "Hello", addr) })
		}
		operators.Wait()
		if codes[0]+codes[1] != exitFail {
			t.Fatalf("the exit codes are %v, want one %d", codes, exitFail)
		}
		for _, addr := range addrs {
			if _, stderr, code := call("undrain", "Hello", addr); code != exitDone {
				t.Fatal(stderr)
			}
		}
	}
}
