package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/cloudwego/kitex/pkg/registry"
	"github.com/cloudwego/kitex/pkg/utils"
	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
	"github.com/kitex-contrib/kitex-etcd/runtime/etcdtest"
)

// etcdClient is a client beside the command under test.
func etcdClient(t *testing.T, cluster *etcdtest.Cluster) *clientv3.Client {
	t.Helper()
	cli, err := clientv3.New(clientv3.Config{Endpoints: cluster.Endpoints(), DialTimeout: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cli.Close() })
	return cli
}

// call runs the command.
func call(args ...string) (stdout, stderr string, code int) {
	var out, errs bytes.Buffer
	code = run(args, &out, &errs)
	return out.String(), errs.String(), code
}

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// must takes the results of a call that has to succeed.
func must(t *testing.T) func(_ any, err error) {
	return func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
}

// fill registers a server of Hello under a lease of an hour, and writes what others might.
func fill(t *testing.T, cluster *etcdtest.Cluster, cli *clientv3.Client) {
	t.Helper()
	conn, err := etcd.Connect(cluster.Endpoints(), etcd.WithLeaseTTL(time.Hour), etcd.WithDrainDelay(0))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	info := &registry.Info{
		ServiceName: "Hello", Addr: utils.NewNetAddr("tcp", "10.0.0.1:80"), Weight: 20,
		Tags: map[string]string{"zone": "a", "name": "hello 1"},
	}
	if err := conn.Registry().Register(info); err != nil {
		t.Fatal(err)
	}
	for key, value := range map[string]string{
		"kitex/registry-etcd/Hello/10.0.0.2:80":  `{"address":"10.0.0.2:80"}`,
		"kitex/registry-etcd/Hello/broken":       "not JSON",
		"kitex/registry-etcd/Hello2/10.0.0.3:80": `{"address":"10.0.0.3:80","tags":{"evil":"\u001b[2J"}}`,
		"other/Hello/10.0.0.4:80":                `{"address":"10.0.0.4:80"}`,
	} {
		must(t)(cli.Put(testContext(t), key, value))
	}
}

func TestInstances(t *testing.T) {
	cluster := etcdtest.Start(t)
	fill(t, cluster, etcdClient(t, cluster))
	endpoints := strings.Join(cluster.Endpoints(), ",")
	const broken = `kitex-etcd: clients ignore the key "kitex/registry-etcd/Hello/broken": the value is not the JSON of an instance: `

	const header = "SERVICE  ADDRESS      WEIGHT  TAGS                     LEASE\n"
	const hello = `Hello    10.0.0.1:80  20      name="hello 1",zone=a    LEFT
Hello    10.0.0.2:80  10      -                        none
`
	for _, test := range []struct {
		args   []string
		stdout string
		stderr string // what it begins with
	}{
		{nil, header + hello + "Hello2   10.0.0.3:80  10      evil=\"\\x1b[2J\"           none\n", broken},
		{[]string{"-service", "Hello"}, strings.ReplaceAll(header+hello, "    LE", "  LE"), broken},
		{[]string{"-prefix", "other"}, "SERVICE  ADDRESS      WEIGHT  TAGS  LEASE\nHello    10.0.0.4:80  10      -     none\n", ""},
		{[]string{"-prefix", "nowhere"}, "", "kitex-etcd: nothing is registered below nowhere/\n"},
	} {
		t.Run(strings.Join(test.args, " "), func(t *testing.T) {
			stdout, stderr, code := call(append([]string{"instances", "-etcd", endpoints}, test.args...)...)
			stdout = regexp.MustCompile(`1h0m0s|59m\d+s`).ReplaceAllString(stdout, "LEFT")
			if columns(stdout) != columns(test.stdout) || !strings.HasPrefix(stderr, test.stderr) || (stderr == "") != (test.stderr == "") || code != exitDone {
				t.Errorf("exit code %d, stdout:\n%sstderr:\n%swant stdout:\n%sand stderr:\n%s…", code, stdout, stderr, test.stdout, test.stderr)
			}
			if strings.Contains(stdout+stderr, "\x1b") {
				t.Error("a control character went to the terminal")
			}
		})
	}
}

// columns makes all distances between columns the same.
func columns(table string) string {
	return regexp.MustCompile(`  +`).ReplaceAllString(table, "  ")
}

func TestInstancesJSON(t *testing.T) {
	cluster := etcdtest.Start(t)
	fill(t, cluster, etcdClient(t, cluster))
	stdout, stderr, code := call("instances", "-etcd", cluster.Endpoints()[0], "-json", "-service", "Hello")
	if code != exitDone || stderr != "" {
		t.Fatalf("exit code %d, stderr %q", code, stderr)
	}
	var lines []line
	for text := range strings.Lines(stdout) {
		var l line
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		lines = append(lines, l)
	}
	if len(lines) != 3 {
		t.Fatalf("%d lines, want 3:\n%s", len(lines), stdout)
	}
	leased, bare, broken := lines[0], lines[1], lines[2]
	if leased.Service != "Hello" || leased.Address != "10.0.0.1:80" || leased.Network != "tcp" || leased.Weight != 20 ||
		leased.Tags["name"] != "hello 1" || leased.Key != "kitex/registry-etcd/Hello/10.0.0.1:80" ||
		leased.Lease == "" || leased.TTL == nil || *leased.TTL < 3500 || *leased.TTL > 3600 {
		t.Errorf("%+v", leased)
	}
	if bare.Lease != "" || bare.TTL != nil || bare.Weight != 10 || bare.Error != "" {
		t.Errorf("%+v", bare)
	}
	if broken.Error == "" || broken.Address != "" || broken.Key != "kitex/registry-etcd/Hello/broken" {
		t.Errorf("%+v", broken)
	}
}

// watching is a running instances -watch.
type watching struct {
	*testing.T
	lines <-chan string
	said  <-chan string // on stderr
	code  chan int
}

func watch(t *testing.T, args ...string) *watching {
	t.Helper()
	w := &watching{T: t, code: make(chan int, 1)}
	out, stdout := io.Pipe()
	errs, stderr := io.Pipe()
	w.lines, w.said = lines(out), lines(errs)
	go func() {
		w.code <- run(append([]string{"instances", "-watch"}, args...), stdout, stderr)
		stdout.Close()
		stderr.Close()
	}()
	return w
}

// lines returns the lines of r as they come, and is closed after the last.
func lines(r io.Reader) <-chan string {
	lines := make(chan string, 100)
	go func() {
		defer close(lines)
		for scanner := bufio.NewScanner(r); scanner.Scan(); {
			lines <- scanner.Text()
		}
	}()
	return lines
}

// want waits for a line that matches the pattern; the next line has to.
func (w *watching) want(pattern string) {
	w.Helper()
	w.wantOf(w.lines, pattern)
}

func (w *watching) wantOf(lines <-chan string, pattern string) {
	w.Helper()
	select {
	case line := <-lines:
		if !regexp.MustCompile(pattern).MatchString(line) {
			w.Fatalf("got %q, want %s", line, pattern)
		}
	case <-testContext(w.T).Done():
		w.Fatalf("no line, want %s", pattern)
	}
}

// interrupt ends it as ^C does, and wants no more lines.
func (w *watching) interrupt() {
	w.Helper()
	self, err := os.FindProcess(os.Getpid())
	if err != nil {
		w.Fatal(err)
	}
	if err := self.Signal(os.Interrupt); err != nil {
		w.Fatal(err)
	}
	for line := range w.lines {
		w.Errorf("unexpected line %q", line)
	}
	for line := range w.said {
		w.Errorf("unexpected line %q on stderr", line)
	}
	if code := <-w.code; code != exitDone {
		w.Errorf("exit code %d", code)
	}
}

// TestInstancesWatch sees changes as they come, and those of the time when etcd was away, once each.
func TestInstancesWatch(t *testing.T) {
	cluster := etcdtest.Start(t)
	cli := etcdClient(t, cluster)
	put := func(key, value string) {
		t.Helper()
		must(t)(cli.Put(testContext(t), "kitex/registry-etcd/"+key, value))
	}
	const stamp = `^\d\d:\d\d:\d\d `
	put("Hello/10.0.0.1:80", `{"address":"10.0.0.1:80"}`)
	w := watch(t, "-etcd", cluster.Endpoints()[0])
	w.want(`^SERVICE`)
	w.want(`^Hello +10\.0\.0\.1:80 `)
	put("Hello/10.0.0.2:80", `{"address":"10.0.0.2:80","tags":{"zone":"b"}}`)
	w.want(stamp + `added   Hello 10\.0\.0\.2:80 weight 10 zone=b$`)
	put("Hello/10.0.0.2:80", `{"address":"10.0.0.2:80","weight":3}`)
	w.want(stamp + `changed Hello 10\.0\.0\.2:80 weight 3$`)
	put("Hello/bad", `no`)
	w.want(stamp + `added   "kitex/registry-etcd/Hello/bad", which clients ignore: `)
	must(t)(cli.Delete(testContext(t), "kitex/registry-etcd/Hello/10.0.0.1:80"))
	w.want(stamp + `removed Hello 10\.0\.0\.1:80 weight 10$`)

	// Away, and back.
	cluster.Stop()
	if err := cluster.Start(); err != nil {
		t.Fatal(err)
	}
	put("Hello/10.0.0.3:80", `{"address":"10.0.0.3:80"}`)
	w.want(stamp + `added   Hello 10\.0\.0\.3:80 weight 10$`)
	w.interrupt()
}

// TestInstancesOutage: -watch says once that etcd is away, and once that it is back.
func TestInstancesOutage(t *testing.T) {
	cluster := etcdtest.Start(t)
	w := watch(t, "-etcd", cluster.Endpoints()[0])
	w.wantOf(w.said, "nothing is registered")
	cluster.Stop()
	w.wantOf(w.said, regexp.QuoteMeta(cluster.Endpoints()[0])+".*; trying on$")
	if err := cluster.Start(); err != nil {
		t.Fatal(err)
	}
	w.wantOf(w.said, "^kitex-etcd: etcd answers again$")
	w.interrupt()
}

func TestInstancesWatchJSON(t *testing.T) {
	cluster := etcdtest.Start(t)
	cli := etcdClient(t, cluster)
	key := "kitex/registry-etcd/Hello/10.0.0.1:80"
	must(t)(cli.Put(testContext(t), key, `{"address":"10.0.0.1:80"}`))
	w := watch(t, "-etcd", cluster.Endpoints()[0], "-json", "-service", "Hello")
	w.want(`^\{"event":"present","time":"[^"]+","service":"Hello","network":"tcp","address":"10\.0\.0\.1:80","weight":10,"key":"` + key + `"\}$`)
	must(t)(cli.Delete(testContext(t), key))
	w.want(`^\{"event":"removed",`)
	w.interrupt()
}

func TestInstancesRefusals(t *testing.T) {
	t.Setenv(envPassword, "")
	empty := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(empty, []byte("\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for args, want := range map[string]string{
		"-nonsense":                      "kitex-etcd instances -h lists the flags",
		"Hello":                          "everything is given by flags",
		"-etcd localhost":                `endpoint "localhost"`,
		"-etcd http://h:1 -cacert x":     "x",
		"-service a/b":                   "'/'",
		"-cert nowhere.pem":              "nowhere.pem",
		"-user me":                       envPassword,
		"-user me:secret":                "takes the name only",
		"-password-file x":               "-user",
		"-user me -password-file absent": "absent",
		"-user me -password-file EMPTY":  "is empty",
	} {
		words := strings.Fields(strings.ReplaceAll(args, "EMPTY", empty))
		stdout, stderr, code := call(append([]string{"instances"}, words...)...)
		if code != exitFail || stdout != "" || !strings.HasPrefix(stderr, "kitex-etcd: ") || !strings.Contains(stderr, want) || strings.Contains(stderr, "secret") {
			t.Errorf("%s: exit code %d, stdout %q, stderr %q; want %q in it", args, code, stdout, stderr, want)
		}
	}
	if stdout, stderr, code := call("instances", "-h"); code != exitDone || stdout != instancesUsage || stderr != "" {
		t.Errorf("-h: exit code %d, stdout %q, stderr %q", code, stdout, stderr)
	}
}

// TestInstancesUnreachable: an etcd that is down is an error that names it and says why.
func TestInstancesUnreachable(t *testing.T) {
	cluster := etcdtest.Start(t)
	cluster.Stop()
	for _, args := range [][]string{nil, {"-watch"}} {
		stdout, stderr, code := call(append([]string{"instances", "-etcd", cluster.Endpoints()[0]}, args...)...)
		if code != exitFail || stdout != "" || !strings.Contains(stderr, cluster.Endpoints()[0]) || !strings.Contains(stderr, "refused") {
			t.Errorf("%v: exit code %d, stdout %q, stderr %q", args, code, stdout, stderr)
		}
	}
}

func TestInstancesAuth(t *testing.T) {
	cluster := etcdtest.Start(t)
	cli, ctx := etcdClient(t, cluster), testContext(t)
	fill(t, cluster, cli)
	must(t)(cli.RoleAdd(ctx, "reader"))
	must(t)(cli.RoleGrantPermission(ctx, "reader", "kitex/registry-etcd/Hello/", "kitex/registry-etcd/Hello0", clientv3.PermissionType(clientv3.PermRead)))
	for _, user := range []string{"root", "reader"} {
		must(t)(cli.UserAdd(ctx, user, "secret"))
		must(t)(cli.UserGrantRole(ctx, user, user))
	}
	must(t)(cli.AuthEnable(ctx))
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		env, args string
		code      int
		stderr    string
	}{
		{"secret", "-user reader -service Hello", exitDone, ""},
		{"", "-user reader -service Hello -password-file " + file, exitDone, ""},
		{"secret", "-user reader", exitFail, "permission denied"},
		{"wrong", "-user reader -service Hello", exitFail, "authentication failed"},
		{"", "-service Hello", exitFail, "user name is empty"},
	} {
		t.Setenv(envPassword, test.env)
		args := append([]string{"instances", "-json", "-etcd", cluster.Endpoints()[0]}, strings.Fields(test.args)...)
		stdout, stderr, code := call(args...)
		if code != test.code || (code == exitDone) != strings.Contains(stdout, "10.0.0.1:80") || !strings.Contains(stderr, test.stderr) || strings.Contains(stderr, "secret") {
			t.Errorf("%s: exit code %d, stdout %q, stderr %q", test.args, code, stdout, stderr)
		}
		if code == exitDone && !strings.Contains(stdout, `"ttl":`) {
			t.Errorf("%s: a reader was not told how long the lease lasts: %s", test.args, stdout)
		}
	}
}

// TestInstancesTLS has an etcd that wants a certificate too.
func TestInstancesTLS(t *testing.T) {
	info, err := transport.SelfCert(zap.NewNop(), t.TempDir(), []string{"127.0.0.1:0"}, 1, x509.ExtKeyUsageClientAuth)
	if err != nil {
		t.Fatal(err)
	}
	info.TrustedCAFile, info.ClientCertAuth = info.CertFile, true
	cluster := etcdtest.Start(t, etcdtest.WithConfig(func(c *embed.Config) { c.ClientTLSInfo = info }))
	stdout, stderr, code := call("instances", "-etcd", cluster.Endpoints()[0], "-cacert", info.CertFile, "-cert", info.CertFile, "-key", info.KeyFile)
	if want := "nothing is registered"; code != exitDone || stdout != "" || !strings.Contains(stderr, want) {
		t.Errorf("exit code %d, stdout %q, stderr %q; want %q", code, stdout, stderr, want)
	}
	stdout, stderr, code = call("instances", "-etcd", "https://"+cluster.Endpoints()[0])
	if want := "certificate"; code != exitFail || stdout != "" || !strings.Contains(stderr, want) {
		t.Errorf("exit code %d, stdout %q, stderr %q; want %q", code, stdout, stderr, want)
	}
}
