package main

import (
	"context"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cloudwego/kitex/client"
	"github.com/cloudwego/kitex/pkg/endpoint"
	"github.com/cloudwego/kitex/pkg/rpcinfo"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/kitex-contrib/kitex-etcd/golden/thrift_unary/kitex_gen/api"
	"github.com/kitex-contrib/kitex-etcd/golden/thrift_unary/kitex_gen/api/hello"
	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
	"github.com/kitex-contrib/kitex-etcd/runtime/etcdtest"
)

// traffic calls Hello 200 times a second.
type traffic struct {
	calls, failed atomic.Int64
	mu            sync.Mutex
	by            map[string]int // attempts by address
	why           string         // the last call failed
	stop          func()
}

func startTraffic(t *testing.T, cluster *etcdtest.Cluster) *traffic {
	t.Helper()
	conn, err := etcd.Connect(cluster.Endpoints())
	if err != nil {
		t.Fatal(err)
	}
	tr := &traffic{by: make(map[string]int)}
	cli, err := hello.NewHelloClientWithEtcd(conn, client.WithConnectTimeout(2*time.Second), client.WithRPCTimeout(5*time.Second),
		client.WithInstanceMW(func(next endpoint.Endpoint) endpoint.Endpoint {
			return func(ctx context.Context, req, resp any) error {
				tr.mu.Lock()
				tr.by[rpcinfo.GetRPCInfo(ctx).To().Address().String()]++
				tr.mu.Unlock()
				return next(ctx, req, resp)
			}
		}))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		var calls sync.WaitGroup
		defer calls.Wait()
		ticker := time.NewTicker(5 * time.Millisecond)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				calls.Go(func() {
					tr.calls.Add(1)
					if _, err := cli.Echo(context.Background(), &api.Request{Message: "hi"}); err != nil {
						tr.failed.Add(1)
						tr.mu.Lock()
						tr.why = err.Error()
						tr.mu.Unlock()
					}
				})
			case <-ctx.Done():
				return
			}
		}
	}()
	tr.stop = sync.OnceFunc(func() {
		cancel()
		<-done
		_ = conn.Close()
	})
	t.Cleanup(tr.stop)
	return tr
}

// next counts the attempts at addr while n calls are made.
func (tr *traffic) next(t *testing.T, addr string, n int64) (attempts int) {
	t.Helper()
	count := func() int {
		tr.mu.Lock()
		defer tr.mu.Unlock()
		return tr.by[addr]
	}
	from, before := tr.calls.Load(), count()
	for begin := time.Now(); tr.calls.Load() < from+n; time.Sleep(5 * time.Millisecond) { // polled: to tell the test of each call would slow the calls down
		if time.Since(begin) > 30*time.Second {
			t.Fatal("there is no traffic")
		}
	}
	return count() - before
}

// TestScript is what an operator does to one of three servers under traffic, in a terminal of 80 columns.
func TestScript(t *testing.T) {
	cluster := etcdtest.Start(t)
	cli := etcdClient(t, cluster)
	servers := []*helloProcess{startHello(t, cluster, ""), startHello(t, cluster, ""), startHello(t, cluster, "")}
	a := servers[0]
	tr := startTraffic(t, cluster)
	if tr.next(t, a.addr, 100) == 0 {
		t.Fatal("the server is not called before the operator comes")
	}
	env := []string{"KITEX_ETCD_ENDPOINTS=" + strings.Join(cluster.Endpoints(), ","), "NO_COLOR=1"}
	names := strings.NewReplacer(a.addr, "A", servers[1].addr, "B", servers[2].addr, "C")
	operator := func(command string, code int, want string) {
		t.Helper()
		args := strings.Split(strings.ReplaceAll(command, "A", a.addr), " ")
		shown, got := inTerminal(t, 80, env, args...)
		shown = regexp.MustCompile(`\b\d+s of 10s( !)?`).ReplaceAllString(names.Replace(shown), "LEASE")
		if got != code || squeeze(shown) != want {
			t.Errorf("$ kitex-etcd %s\n%s(exit code %d), want\n%s(exit code %d)", command, squeeze(shown), got, want, code)
		}
		for line := range strings.Lines(shown) {
			if n := cellWidth(strings.TrimSuffix(line, "\n")); strings.HasPrefix(command, "instances") && n > 80 {
				t.Errorf("a line of %d columns: %s", n, line)
			}
		}
	}
	calledNever := func() {
		t.Helper()
		tr.next(t, a.addr, 20) // calls that had begun
		if n := tr.next(t, a.addr, 200); n > 0 {
			t.Errorf("a drained server was called %d times in 200 calls", n)
		}
	}

	operator("drain Hello A --reason dump", exitDone, "Hello A drained\n")
	if line := <-a.lines; !strings.HasSuffix(line, " drained") {
		t.Errorf("the server says %q", line)
	}
	calledNever()
	operator("services", exitDone, "SERVICE  INSTANCES  DRAINED  ZONES\nHello  2  1  -\n")
	operator("drain Hello A", exitDone, "kitex-etcd: Hello A had a mark already, which is replaced: drain (dump)\nHello A drained\n")
	operator("weight Hello A 1", exitDone, "kitex-etcd: Hello A had a mark already, which is replaced: drain\nHello A weight 1\n")
	a.stop(t)
	servers[0] = startHello(t, cluster, a.addr) // restarted while it is drained
	a = servers[0]
	calledNever()
	operator("undrain Hello A", exitDone, "Hello A in service\n")
	if n := tr.next(t, a.addr, 400); n > 80 {
		t.Errorf("a server of weight 1 beside two of weight 10 was called %d times in 400 calls", n)
	}
	operator("weight Hello A default", exitDone, "Hello A as registered\n")
	operator("undrain Hello A", exitDone, "kitex-etcd: Hello A had no such mark\nHello A in service\n")

	// For a time. The end of a lease is the end of the mark: nobody has to do it.
	operator("drain Hello A --for 5s", exitDone, "Hello A drained for 5s\n")
	key := etcd.DefaultPrefix + "/Hello/" + a.addr
	resp, err := cli.Get(testContext(t), key)
	if err != nil {
		t.Fatal(err)
	}
	if back := cli.Watch(testContext(t), key, clientv3.WithRev(resp.Header.Revision+1)); resp.Count == 0 {
		select {
		case <-back: // the record is put when the mark has ended
		case <-time.After(20 * time.Second):
			t.Fatal("the server is not back")
		}
	}
	if tr.next(t, a.addr, 100) == 0 {
		t.Error("the server is not called after its mark ended")
	}
	tr.stop()
	if failed := tr.failed.Load(); failed > 0 {
		t.Errorf("%d of %d calls failed, the last by: %s", failed, tr.calls.Load(), tr.why)
	}
	t.Logf("%d calls, %d failed", tr.calls.Load(), tr.failed.Load())
}

// TestTerminal: a table is not wider than the terminal, long tags or not, and has colours unless NO_COLOR is set.
func TestTerminal(t *testing.T) {
	cluster := etcdtest.Start(t)
	cli := etcdClient(t, cluster)
	lease, err := cli.Grant(testContext(t), 600)
	if err != nil {
		t.Fatal(err)
	}
	value := `{"address":"10.0.0.1:80","tags":{"a":"` + strings.Repeat("长", 100) + `","b":"` + strings.Repeat("x", 100) + `"}}`
	must(t)(cli.Put(testContext(t), "kitex/registry-etcd/Hello/10.0.0.1:80", value, clientv3.WithLease(lease.ID)))
	must(t)(cli.Put(testContext(t), "kitex/registry-etcd-control/Hello/10.0.0.2:80", `{"drain":true}`))
	env := "KITEX_ETCD_ENDPOINTS=" + cluster.Endpoints()[0]
	for _, columns := range []int{80, 40, 200} {
		shown, code := inTerminal(t, uint16(columns), []string{env, "NO_COLOR=1"}, "instances")
		if code != exitDone || strings.Contains(shown, "\x1b") {
			t.Errorf("exit code %d: %q", code, shown)
		}
		for line := range strings.Lines(shown) {
			if n := cellWidth(strings.TrimSuffix(line, "\n")); n > columns {
				t.Errorf("%d columns in a terminal of %d: %s", n, columns, line)
			}
		}
	}
	shown, _ := inTerminal(t, 80, []string{env, "NO_COLOR="}, "instances")
	if !strings.Contains(shown, dim) {
		t.Errorf("no colours: %q", shown)
	}
}

// TestRefusedByTheSituation: what cannot be done says why, and leaves nothing behind.
func TestRefusedByTheSituation(t *testing.T) {
	cluster := etcdtest.Start(t)
	cli := etcdClient(t, cluster)
	t.Setenv("KITEX_ETCD_ENDPOINTS", cluster.Endpoints()[0])
	a := startHello(t, cluster, "")
	refused := func(command, want string) {
		t.Helper()
		stdout, stderr, code := call(strings.Fields(strings.ReplaceAll(command, "A", a.addr))...)
		if code != exitFail || stdout != "" || !strings.Contains(stderr, want) {
			t.Errorf("%s: exit code %d, stdout %q, stderr %q; want %q", command, code, stdout, stderr, want)
		}
		resp, err := cli.Get(testContext(t), etcd.DefaultPrefix+"-control/", clientv3.WithPrefix(), clientv3.WithCountOnly())
		if err != nil || resp.Count != 0 {
			t.Errorf("%s: %d marks, %v", command, resp.Count, err)
		}
	}
	refused("drain Hello A", "is the last instance")
	refused("drain helo A", "no server of helo is registered; there is Hello")
	refused("drain Hello 127.0.0.1:1", "no server of Hello is registered at 127.0.0.1:1; there is "+a.addr)

	// A server of another library, and one that nobody keeps.
	lease, err := cli.Grant(testContext(t), 600)
	if err != nil {
		t.Fatal(err)
	}
	must(t)(cli.Put(testContext(t), etcd.DefaultPrefix+"/Hello/10.0.0.1:80", `{"address":"10.0.0.1:80"}`, clientv3.WithLease(lease.ID)))
	must(t)(cli.Put(testContext(t), etcd.DefaultPrefix+"/Hello/10.0.0.2:80", `{"address":"10.0.0.2:80"}`))
	refused("drain Hello 10.0.0.1:80", "did not follow within 3s, and the mark was taken back")
	refused("weight Hello 10.0.0.2:80 1", "has no lease")

	// Without the others the last one needs force.
	must(t)(cli.Delete(testContext(t), etcd.DefaultPrefix+"/Hello/10.0.0.", clientv3.WithPrefix()))
	for _, output := range []string{"json", "yaml"} {
		stdout, stderr, code := call("drain", "Hello", a.addr, "--force", "--for", "90s", "--reason", "dump", "-o", output)
		want := `{"service":"Hello","address":"` + a.addr + `","drain":true,"reason":"dump","for":"1m30s"}` + "\n"
		if output == "yaml" {
			want = "- service: Hello\n  address: " + a.addr + "\n  drain: true\n  reason: dump\n  for: 1m30s\n"
		}
		if code != exitDone || stdout != want {
			t.Errorf("exit code %d, stdout %q, stderr %q; want %q", code, stdout, stderr, want)
		}
	}
	a.stop(t)
	stdout, stderr, code := call("undrain", "Hello", a.addr)
	if code != exitFail || stdout != "" || !strings.Contains(stderr, "it is stopped, or does not reach etcd") {
		t.Errorf("exit code %d, stdout %q, stderr %q", code, stdout, stderr)
	}
}

// TestTwoOperators: the later wins, and both are told.
func TestTwoOperators(t *testing.T) {
	cluster := etcdtest.Start(t)
	cli := etcdClient(t, cluster)
	t.Setenv("KITEX_ETCD_ENDPOINTS", cluster.Endpoints()[0])
	lease, err := cli.Grant(testContext(t), 600) // of a server that follows nothing: the first operator waits
	if err != nil {
		t.Fatal(err)
	}
	for _, addr := range []string{"10.0.0.1:80", "10.0.0.2:80"} {
		must(t)(cli.Put(testContext(t), etcd.DefaultPrefix+"/Hello/"+addr, `{"address":"`+addr+`","weight":2}`, clientv3.WithLease(lease.ID)))
	}
	marks := cli.Watch(testContext(t), etcd.DefaultPrefix+"-control/", clientv3.WithPrefix(), clientv3.WithCreatedNotify())
	<-marks
	first := make(chan string)
	go func() {
		_, stderr, code := call("drain", "Hello", "10.0.0.1:80")
		if code != exitFail {
			t.Errorf("the first operator's exit code is %d", code)
		}
		first <- stderr
	}()
	<-marks // it has written its mark
	must(t)(cli.Delete(testContext(t), etcd.DefaultPrefix+"-control/Hello/10.0.0.1:80"))
	if stderr := <-first; !strings.Contains(stderr, "another operator took the mark") {
		t.Errorf("the first operator is told %q", stderr)
	}
	go func() {
		_, stderr, _ := call("drain", "Hello", "10.0.0.1:80", "--reason", "mine")
		first <- stderr
	}()
	for resp := range marks {
		if resp.Events[0].Type == clientv3.EventTypePut {
			break
		}
	}
	_, second, _ := call("weight", "Hello", "10.0.0.1:80", "2", "--reason", "no, mine")
	if !strings.Contains(second, "had a mark already, which is replaced: drain (mine)") {
		t.Errorf("the second operator is told %q", second)
	}
	if stderr := <-first; !strings.Contains(stderr, "another operator changed the mark") {
		t.Errorf("the first operator is told %q", stderr)
	}
}
