package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"flag"
	"fmt"
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

var update = flag.Bool("update", false, "write the golden files in testdata")

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
	for _, kv := range [][2]string{
		{"kitex/registry-etcd/Hello/10.0.0.2:80", `{"address":"10.0.0.2:80","tags":{"zone":"b","lane":"x"}}`},
		{"kitex/registry-etcd/Hello/broken", "not JSON"},
		{"kitex/registry-etcd/Hello2/10.0.0.3:80", `{"address":"10.0.0.3:80","tags":{"evil":"\u001b[2J"}}`},
		{"other/Hello/10.0.0.4:80", `{"address":"10.0.0.4:80"}`},
		{"kitex/registry-etcd-control/Hello/10.0.0.2:80", `{"weight":10,"reason":"canary"}`},
		{"kitex/registry-etcd-control/Hello/10.0.0.5:80", `{"drain":true,"reason":"slow \u001b disk"}`},
		{"kitex/registry-etcd-control/Hello2/10.0.0.6:80", `{"drian":true}`},
	} {
		must(t)(cli.Put(testContext(t), kv[0], kv[1]))
	}
}

// golden compares what a command printed with testdata/name, from which ids and times are taken out.
func golden(t *testing.T, name, got string) {
	t.Helper()
	for pattern, with := range map[string]string{
		`("?lease"?: ?"?)[0-9a-f]{10,16}\b`:                 "${1}ID",
		`(since"?: ?"?)[^",\n]+`:                            "${1}TIME",
		`of 1h( +)\d+s `:                                    "of 1h${1}0s ",
		`(granted"?: ?)\d+`:                                 "${1}N",
		`(ttl"?: ?)\d+`:                                     "${1}N",
		`(59m\d+s|1h) of 1h`:                                "NN of 1h",
		`("?(?:time)"?: ?"?)\d{4}-[^",\n]*`:                 "${1}TIME",
		`(the value is not the JSON of an instance: )[^"]*`: "${1}…",
	} {
		got = regexp.MustCompile(pattern).ReplaceAllString(got, with)
	}
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	// How long a lease has left changes the distance to the next column.
	if squeeze(got) != squeeze(string(want)) {
		t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
	}
	if strings.Contains(got, "\x1b") {
		t.Errorf("%s: a control character went to the terminal", name)
	}
}

func squeeze(table string) string { return regexp.MustCompile(`  +`).ReplaceAllString(table, "  ") }

// TestGolden has every output of the commands that list.
func TestGolden(t *testing.T) {
	cluster := etcdtest.Start(t)
	fill(t, cluster, etcdClient(t, cluster))
	t.Setenv("KITEX_ETCD_ENDPOINTS", cluster.Endpoints()[0])
	for _, command := range []string{"services", "instances"} {
		for _, output := range outputs {
			stdout, stderr, code := call(command, "-o", output)
			if code != exitDone {
				t.Errorf("%s -o %s: exit code %d, %s", command, output, code, stderr)
			}
			golden(t, command+"."+output, stdout)
		}
	}
}

func TestSelection(t *testing.T) {
	cluster := etcdtest.Start(t)
	fill(t, cluster, etcdClient(t, cluster))
	t.Setenv("KITEX_ETCD_ENDPOINTS", cluster.Endpoints()[0])
	for _, test := range []struct {
		args   string
		code   int
		addrs  string // of the instances that are printed
		stderr string // a part of it
	}{
		{"", exitDone, "10.0.0.1:80 10.0.0.2:80 10.0.0.3:80 10.0.0.5:80 10.0.0.6:80", "clients ignore the key"},
		{"Hello", exitDone, "10.0.0.1:80 10.0.0.2:80 10.0.0.5:80", "clients ignore the key"},
		{"Hello?", exitDone, "10.0.0.3:80 10.0.0.6:80", ""},
		{"Hel* -l zone=b -l lane=x", exitDone, "10.0.0.2:80", ""},
		{"-l zone=c", exitDone, "", "nothing is registered"},
		{"Hello Hello2 -l zone=a", exitDone, "10.0.0.1:80", ""},
		{"--prefix other", exitDone, "10.0.0.4:80", ""},
		{"--prefix nowhere", exitDone, "", "nothing is registered below nowhere/"},
		{"helo", exitFail, "", "no server of helo is registered; there are Hello, Hello2"},
		{"X*", exitDone, "", "nothing is registered"},
		{"[", exitFail, "", "malformed"},
		{"-l zone", exitFail, "", "write tag=value"},
		{"-o xml", exitFail, "", "there are table, wide, json, yaml"},
	} {
		stdout, stderr, code := call(append([]string{"instances"}, strings.Fields(test.args)...)...)
		addrs := strings.Join(regexp.MustCompile(`10\.0\.0\.\d:80`).FindAllString(stdout, -1), " ")
		sorted := strings.Fields(addrs)
		if code != test.code || len(sorted) != len(strings.Fields(test.addrs)) || !strings.Contains(stderr, test.stderr) || (test.stderr == "") != (stderr == "") {
			t.Errorf("instances %s: exit code %d, addresses %s, stderr %q; want %d, %s, %q", test.args, code, addrs, stderr, test.code, test.addrs, test.stderr)
		}
		for _, addr := range strings.Fields(test.addrs) {
			if !strings.Contains(addrs, addr) {
				t.Errorf("instances %s: %s is missing", test.args, addr)
			}
		}
	}
}

// TestLateLease: a lease that nobody renews is marked.
func TestLateLease(t *testing.T) {
	a := &leaseAnswer{ttl: 4, granted: 10}
	if got := a.text(); got != "4s of 10s !" {
		t.Errorf("a late lease is %q", got)
	}
	a.ttl = 7
	if got := a.text(); got != "7s of 10s" {
		t.Errorf("a lease is %q", got)
	}
	if got := (&leaseAnswer{err: io.EOF}).text(); got != "?" {
		t.Errorf("an unknown lease is %q", got)
	}
}

// TestUnknownLeases: what etcd does not tell is explained, and what it was asked in vain is not asked for ever.
func TestUnknownLeases(t *testing.T) {
	cluster := etcdtest.Start(t)
	conn, err := etcd.Connect(cluster.Endpoints())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	cluster.Stop()
	var records []etcd.Record
	for id := range 10_000 {
		records = append(records, etcd.Record{Lease: clientv3.LeaseID(id + 1)})
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	var stderr bytes.Buffer
	p := &program{stdout: io.Discard, stderr: &stderr}
	l, wait := askLeases(ctx, conn, records)
	stop := l.progress(p)
	wait()
	stop()
	l.explain(p)
	if got := l.of(1).text(); got != "?" {
		t.Errorf("the lease is %q", got)
	}
	if want := "etcd did not say how long 10000 of 10000 leases have left: "; !strings.Contains(stderr.String(), want) {
		t.Errorf("stderr is %q", stderr.String())
	}
}

// TestManyLeases: 2,000 servers, each with a lease: every row is there, none says ?.
func TestManyLeases(t *testing.T) {
	const n = 2000
	cluster := etcdtest.Start(t)
	cli, ctx := etcdClient(t, cluster), testContext(t)
	for i := range n {
		lease, err := cli.Grant(ctx, 600)
		if err != nil {
			t.Fatal(err)
		}
		addr := fmt.Sprintf("10.0.%d.%d:80", i/250, i%250+1)
		must(t)(cli.Put(ctx, "kitex/registry-etcd/Hello/"+addr, `{"address":"`+addr+`"}`, clientv3.WithLease(lease.ID)))
	}
	stdout, stderr, code := call("instances", "--endpoints", cluster.Endpoints()[0])
	if rows := strings.Count(stdout, " of 10m\n") + strings.Count(stdout, " of 10m "); code != exitDone || rows != n || strings.Contains(stdout, "?") {
		t.Errorf("exit code %d, %d rows, stderr %q", code, rows, stderr)
	}
}

// running is a watch that runs.
type running struct {
	*testing.T
	lines <-chan string
	said  <-chan string // on stderr
	code  chan int
}

func watch(t *testing.T, args ...string) *running {
	t.Helper()
	w := &running{T: t, code: make(chan int, 1)}
	out, stdout := io.Pipe()
	errs, stderr := io.Pipe()
	w.lines, w.said = lines(out), lines(errs)
	go func() {
		w.code <- run(append([]string{"watch"}, args...), stdout, stderr)
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
func (w *running) want(pattern string) {
	w.Helper()
	w.wantOf(w.lines, pattern)
}

func (w *running) wantOf(lines <-chan string, pattern string) {
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
func (w *running) interrupt() {
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

// TestWatch sees changes as they come, and those of the time when etcd was away, once each.
func TestWatch(t *testing.T) {
	cluster := etcdtest.Start(t)
	cli := etcdClient(t, cluster)
	put := func(key, value string, opts ...clientv3.OpOption) {
		t.Helper()
		must(t)(cli.Put(testContext(t), "kitex/registry-etcd"+key, value, opts...))
	}
	remove := func(key string) {
		t.Helper()
		must(t)(cli.Delete(testContext(t), "kitex/registry-etcd"+key))
	}
	const stamp = `^\d\d:\d\d:\d\d `
	put("/Hello/10.0.0.1:80", `{"address":"10.0.0.1:80"}`)
	w := watch(t, "--endpoints", cluster.Endpoints()[0])
	w.wantOf(w.said, "1 instances are registered")
	put("/Hello/10.0.0.2:80", `{"address":"10.0.0.2:80","tags":{"zone":"b","old":"1"}}`)
	w.want(stamp + `added    Hello 10\.0\.0\.2:80 weight 10 old=1,zone=b$`)
	put("/Hello/10.0.0.2:80", `{"address":"10.0.0.2:80","weight":3,"tags":{"zone":"c","new":"2"}}`)
	w.want(stamp + `changed  Hello 10\.0\.0\.2:80 weight 10 → 3, new=2 added, old=1 removed, zone b → c$`)
	put("/Hello/bad", `no`)
	w.want(stamp + `added    "kitex/registry-etcd/Hello/bad", which clients ignore: `)
	remove("/Hello/10.0.0.1:80")
	w.want(stamp + `removed  Hello 10\.0\.0\.1:80 deregistered or deleted$`)

	lease, err := cli.Grant(testContext(t), 60)
	if err != nil {
		t.Fatal(err)
	}
	put("/Hello/10.0.0.4:80", `{"address":"10.0.0.4:80"}`, clientv3.WithLease(lease.ID))
	w.want(stamp + `added    Hello 10\.0\.0\.4:80 weight 10$`)
	must(t)(cli.Revoke(testContext(t), lease.ID))
	w.want(stamp + `removed  Hello 10\.0\.0\.4:80 its lease ended$`)
	put("-control/Hello/10.0.0.2:80", `{"drain":true,"reason":"slow disk"}`)
	w.want(stamp + `marked   Hello 10\.0\.0\.2:80 drain \(slow disk\)$`)
	remove("/Hello/10.0.0.2:80")
	w.want(stamp + `removed  Hello 10\.0\.0\.2:80 drained$`)
	remove("-control/Hello/10.0.0.2:80")
	w.want(stamp + `unmarked Hello 10\.0\.0\.2:80 drain \(slow disk\)$`)

	// Away, and back.
	cluster.Stop()
	if err := cluster.Start(); err != nil {
		t.Fatal(err)
	}
	put("/Hello/10.0.0.3:80", `{"address":"10.0.0.3:80"}`)
	w.want(stamp + `added    Hello 10\.0\.0\.3:80 weight 10$`)
	w.interrupt()
}

// TestWatchOutage: watch says once that etcd is away, and once that it is back.
func TestWatchOutage(t *testing.T) {
	cluster := etcdtest.Start(t)
	w := watch(t, "--endpoints", cluster.Endpoints()[0])
	w.wantOf(w.said, "0 instances are registered")
	cluster.Stop()
	w.wantOf(w.said, regexp.QuoteMeta(cluster.Endpoints()[0])+".*; asked again until it answers$")
	if err := cluster.Start(); err != nil {
		t.Fatal(err)
	}
	w.wantOf(w.said, "^kitex-etcd: etcd answers again$")
	w.interrupt()
}

func TestWatchObjects(t *testing.T) {
	cluster := etcdtest.Start(t)
	cli := etcdClient(t, cluster)
	key := "kitex/registry-etcd/Hello/10.0.0.1:80"
	must(t)(cli.Put(testContext(t), key, `{"address":"10.0.0.1:80"}`))
	w := watch(t, "--endpoints", cluster.Endpoints()[0], "-o", "json", "Hello")
	w.want(`^\{"event":"present","time":"[^"]+","service":"Hello","network":"tcp","address":"10\.0\.0\.1:80","weight":10,"key":"` + key + `","revision":\d+,"created":\d+\}$`)
	must(t)(cli.Delete(testContext(t), key))
	w.want(`^\{"event":"removed",.*"why":"deregistered or deleted"\}$`)
	w.interrupt()
	w = watch(t, "--endpoints", cluster.Endpoints()[0], "-o", "yaml")
	must(t)(cli.Put(testContext(t), key, `{"address":"10.0.0.1:80"}`))
	w.want(`^- event: (added|present)$`)
	w.want(`^  time: "`)
	w.want(`^  service: Hello$`)
	for range 6 {
		<-w.lines
	}
	w.interrupt()
}

func TestRefusals(t *testing.T) {
	t.Setenv(envPassword, "")
	empty := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(empty, []byte("\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for args, want := range map[string]string{
		"":                                "no command was given",
		"instance":                        "no such command",
		"instances --nonsense":            "kitex-etcd instances --help lists the flags",
		"instances --endpoints localhost": `endpoint "localhost"`,
		"instances --endpoints http://h:1 --cacert x": "x",
		"instances a/b":                              "'/'",
		"instances --cert nowhere.pem":               "nowhere.pem",
		"instances --user me":                        envPassword,
		"instances --user me:secret":                 "takes the name only",
		"instances --password-file x":                "--user",
		"instances --user me --password-file absent": "absent",
		"instances --user me --password-file EMPTY":  "is empty",
		"drain Hello":                                "requires at least 2 arg(s)",
		"weight Hello 10.0.0.1:80":                   "accepts 3 arg(s)",
		"weight Hello 10.0.0.1:80 0":                 "drain it",
		"weight Hello 10.0.0.1:80 many":              "whole number",
		"drain Hello 10.0.0.1:80 --for 10ms":         "a second or more",
	} {
		words := strings.Fields(strings.ReplaceAll(args, "EMPTY", empty))
		stdout, stderr, code := call(words...)
		if code != exitFail || stdout != "" || !strings.HasPrefix(stderr, "kitex-etcd: ") || !strings.Contains(stderr, want) || strings.Contains(stderr, "secret") {
			t.Errorf("%s: exit code %d, stdout %q, stderr %q; want %q in it", args, code, stdout, stderr, want)
		}
	}
}

// TestUnreachable: an etcd that is down is an error that names it and says why.
func TestUnreachable(t *testing.T) {
	cluster := etcdtest.Start(t)
	cluster.Stop()
	for _, args := range []string{"services", "instances", "watch", "drain Hello 10.0.0.1:80"} {
		stdout, stderr, code := call(append(strings.Fields(args), "--endpoints", cluster.Endpoints()[0])...)
		if code != exitFail || stdout != "" || !strings.Contains(stderr, cluster.Endpoints()[0]) || !strings.Contains(stderr, "refused") {
			t.Errorf("%v: exit code %d, stdout %q, stderr %q", args, code, stdout, stderr)
		}
	}
}

func TestAuth(t *testing.T) {
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
	t.Setenv("KITEX_ETCD_ENDPOINTS", cluster.Endpoints()[0])
	for _, test := range []struct {
		env, args string
		code      int
		stderr    string
	}{
		{"secret", "instances --user reader Hello", exitDone, ""},
		{"", "instances --user reader Hello --password-file " + file, exitDone, ""},
		{"secret", "instances --user reader", exitFail, "permission denied"},
		{"wrong", "instances --user reader Hello", exitFail, "authentication failed"},
		{"", "instances Hello", exitFail, "user name is empty"},
		{"secret", "drain --user reader Hello 10.0.0.1:80", exitFail, "permission denied"},
	} {
		t.Setenv(envPassword, test.env)
		stdout, stderr, code := call(append(strings.Fields(test.args), "-o", "json")...)
		if code != test.code || (code == exitDone) != strings.Contains(stdout, "10.0.0.1:80") || !strings.Contains(stderr, test.stderr) || strings.Contains(stderr, "secret") {
			t.Errorf("%s: exit code %d, stdout %q, stderr %q", test.args, code, stdout, stderr)
		}
		if code == exitDone && !strings.Contains(stdout, `"ttl":`) {
			t.Errorf("%s: a reader was not told how long the lease lasts: %s", test.args, stdout)
		}
	}
}

// TestTLS has an etcd that wants a certificate too.
func TestTLS(t *testing.T) {
	info, err := transport.SelfCert(zap.NewNop(), t.TempDir(), []string{"127.0.0.1:0"}, 1, x509.ExtKeyUsageClientAuth)
	if err != nil {
		t.Fatal(err)
	}
	info.TrustedCAFile, info.ClientCertAuth = info.CertFile, true
	cluster := etcdtest.Start(t, etcdtest.WithConfig(func(c *embed.Config) { c.ClientTLSInfo = info }))
	for name, file := range map[string]string{"CACERT": info.CertFile, "CERT": info.CertFile, "KEY": info.KeyFile} {
		t.Setenv("KITEX_ETCD_"+name, file)
	}
	stdout, stderr, code := call("instances", "--endpoints", cluster.Endpoints()[0])
	if want := "nothing is registered"; code != exitDone || stdout != "" || !strings.Contains(stderr, want) {
		t.Errorf("exit code %d, stdout %q, stderr %q; want %q", code, stdout, stderr, want)
	}
	for _, name := range []string{"CACERT", "CERT", "KEY"} {
		t.Setenv("KITEX_ETCD_"+name, "")
	}
	stdout, stderr, code = call("instances", "--endpoints", "https://"+cluster.Endpoints()[0])
	if want := "certificate"; code != exitFail || stdout != "" || !strings.Contains(stderr, want) {
		t.Errorf("exit code %d, stdout %q, stderr %q; want %q", code, stdout, stderr, want)
	}
}

// TestCompletion: a shell is given services, and then addresses, those of drained servers included.
func TestCompletion(t *testing.T) {
	cluster := etcdtest.Start(t)
	fill(t, cluster, etcdClient(t, cluster))
	t.Setenv("KITEX_ETCD_ENDPOINTS", cluster.Endpoints()[0])
	for args, want := range map[string]string{
		"instances |":      "Hello Hello2",
		"services Hello |": "Hello2",
		"undrain |":        "Hello Hello2",
		"undrain Hello |":  "10.0.0.1:80 10.0.0.2:80 10.0.0.5:80 broken",
		"instances -o |":   "table wide json yaml",
	} {
		words := strings.Fields(strings.ReplaceAll(args, "|", ""))
		stdout, _, _ := call(append(append([]string{"__complete"}, words...), "")...)
		if got, _, _ := strings.Cut(stdout, "\n:"); strings.Join(strings.Fields(got), " ") != want {
			t.Errorf("%s: %q, want %s", args, stdout, want)
		}
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if stdout, _, code := call("completion", shell); code != exitDone || !strings.Contains(stdout, "kitex-etcd") {
			t.Errorf("completion %s: exit code %d", shell, code)
		}
	}
}

// TestObjects: every line of JSON is an object.
func TestObjects(t *testing.T) {
	cluster := etcdtest.Start(t)
	fill(t, cluster, etcdClient(t, cluster))
	stdout, _, _ := call("instances", "-o", "json", "--endpoints", cluster.Endpoints()[0])
	n := 0
	for text := range strings.Lines(stdout) {
		var i instance
		if err := json.Unmarshal([]byte(text), &i); err != nil || i.Service == "" {
			t.Errorf("%s: %v", text, err)
		}
		n++
	}
	if n != 6 {
		t.Errorf("%d objects, want 6", n)
	}
}
