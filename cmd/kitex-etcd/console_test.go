package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"google.golang.org/grpc"

	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
	"github.com/kitex-contrib/kitex-etcd/runtime/etcdtest"
)

// testConsole serves a console for cluster.
type testConsole struct {
	*httptest.Server
	handler *consoleHandler
	conn    *etcd.Conn
}

func startConsole(t *testing.T, cluster *etcdtest.Cluster, writable bool, hosts ...string) *testConsole {
	t.Helper()
	conn, err := etcd.Connect(cluster.Endpoints())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	p := &program{stdout: io.Discard, stderr: io.Discard, connection: connection{endpoints: strings.Join(cluster.Endpoints(), ","), prefix: etcd.DefaultPrefix}}
	ctx, cancel := context.WithCancel(t.Context())
	handler, wait := p.newConsole(ctx, conn, writable, hosts)
	srv := httptest.NewServer(handler)
	t.Cleanup(func() {
		cancel()
		srv.CloseClientConnections()
		srv.Close()
		wait()
	})
	return &testConsole{srv, handler.(*consoleHandler), conn}
}

// do sends a request, with headers in pairs, and returns the answer's code and body.
func (c *testConsole) do(t *testing.T, method, path, body string, header ...string) (code int, text string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, c.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		if req.Header.Set(header[i], header[i+1]); header[i] == "Host" {
			req.Host = header[i+1]
		}
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	all, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(all)
}

// awaitState waits until the state is as ok wants it. The events tell when to look.
func (c *testConsole) awaitState(t *testing.T, ok func(consoleState) bool) consoleState {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		_, text := c.do(t, "GET", "/api/state", "")
		var s consoleState
		if err := json.Unmarshal([]byte(text), &s); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		if ok(s) {
			return s
		}
		if time.Now().After(deadline) {
			t.Fatalf("the state is %s", text)
		}
	}
}

// TestConsoleKeepsOthersOut: pages of other sites, names that point here, and writes without the token.
func TestConsoleKeepsOthersOut(t *testing.T) {
	cluster := etcdtest.Start(t)
	c := startConsole(t, cluster, true, "registry.example.com")
	host := strings.TrimPrefix(c.URL, "http://")
	_, port, err := net.SplitHostPort(host)
	if err != nil {
		t.Fatal(err)
	}
	token := c.handler.token
	const drain = `{"service":"Hello","address":"10.0.0.1:1"}`
	for name, k := range map[string]struct {
		method, path, body string
		header             []string
		code               int
		says               string
	}{
		"the page":                {"GET", "/", "", nil, 200, token},
		"its script":              {"GET", "/app.js", "", nil, 200, "textContent"},
		"another file":            {"GET", "/console.go", "", nil, 404, ""},
		"a directory":             {"GET", "/page/", "", nil, 404, ""},
		"localhost":               {"GET", "/api/state", "", []string{"Host", "localhost:" + port}, 200, `"items"`},
		"IPv6":                    {"GET", "/api/state", "", []string{"Host", "[::1]:" + port}, 200, `"items"`},
		"a name that was given":   {"GET", "/api/state", "", []string{"Host", "Registry.Example.com"}, 200, `"items"`},
		"a name that points here": {"GET", "/api/state", "", []string{"Host", "evil.example.com:" + port}, 403, "--host"},
		"no token":                {"POST", "/api/drain", drain, nil, 403, "the token is missing"},
		"an old token":            {"POST", "/api/drain", drain, []string{tokenHeader, "x" + token[1:]}, 403, "the token is missing"},
		"another origin":          {"POST", "/api/drain", drain, []string{tokenHeader, token, "Origin", "http://evil.example.com"}, 403, "may not use the console"},
		"another port":            {"POST", "/api/drain", drain, []string{tokenHeader, token, "Origin", "http://127.0.0.1:1"}, 403, "may not use the console"},
		"no origin at all":        {"GET", "/api/state", "", []string{"Origin", "null"}, 403, "may not use the console"},
		"another site's script":   {"GET", "/api/state", "", []string{"Sec-Fetch-Site", "cross-site"}, 403, "another site"},
		"a link to the page":      {"GET", "/", "", []string{"Sec-Fetch-Site", "cross-site"}, 200, ""},
		"a change by GET":         {"GET", "/api/drain", "", []string{tokenHeader, token}, 405, ""},
		"nothing to change":       {"POST", "/api/drain", "", []string{tokenHeader, token}, 400, "cannot be read"},
		"a body that is no JSON":  {"POST", "/api/drain", "service=Hello", []string{tokenHeader, token}, 400, "cannot be read"},
		"unknown words":           {"POST", "/api/drain", `{"sevrice":"Hello"}`, []string{tokenHeader, token}, 400, "sevrice"},
		"a long body":             {"POST", "/api/drain", `{"reason":"` + strings.Repeat("x", maxBody) + `"}`, []string{tokenHeader, token}, 400, "too large"},
		"a strange time":          {"POST", "/api/drain", `{"service":"Hello","address":"10.0.0.1:1","for":"soon"}`, []string{tokenHeader, token}, 400, "soon"},
		"a service without one":   {"POST", "/api/drain", drain, []string{tokenHeader, token, "Origin", c.URL}, 409, "no server of Hello is registered"},
		"a bad name":              {"POST", "/api/drain", `{"service":"a/b","address":"10.0.0.1:1"}`, []string{tokenHeader, token}, 409, "a/b"},
		"a negative weight":       {"POST", "/api/weight", `{"service":"Hello","address":"10.0.0.1:1","weight":-1}`, []string{tokenHeader, token}, 409, "weight -1"},
		"a lease that is none":    {"GET", "/api/leases?id=xyz", "", nil, 400, "not a hexadecimal number"},
		"too many leases":         {"GET", "/api/leases?id=1" + strings.Repeat("&id=1", maxAsked), "", nil, 400, "more than"},
		"leases of others":        {"GET", "/api/leases?id=1234", "", nil, 200, "{}"},
	} {
		t.Run(name, func(t *testing.T) {
			code, text := c.do(t, k.method, k.path, k.body, k.header...)
			if code != k.code || !strings.Contains(text, k.says) {
				t.Errorf("%d %s, want %d with %q", code, text, k.code, k.says)
			}
		})
	}
	shows := startConsole(t, cluster, false)
	if code, text := shows.do(t, "POST", "/api/drain", drain, tokenHeader, shows.handler.token); code != 403 || !strings.Contains(text, "--write") {
		t.Errorf("a console without --write: %d %s", code, text)
	}
	if _, text := shows.do(t, "GET", "/", ""); strings.Contains(text, shows.handler.token) {
		t.Error("a console without --write gives its token away")
	}
}

// TestConsoleHeaders: nothing but what is the console's own runs in the page, and nobody frames or keeps it.
func TestConsoleHeaders(t *testing.T) {
	c := startConsole(t, etcdtest.Start(t), false)
	for _, path := range []string{"/", "/app.js", "/api/state"} {
		resp, err := c.Client().Get(c.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if csp := resp.Header.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") || strings.Contains(csp, "unsafe") {
			t.Errorf("%s: the policy is %q", path, csp)
		}
		if resp.Header.Get("X-Content-Type-Options") != "nosniff" || resp.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: the headers are %v", path, resp.Header)
		}
	}
}

// TestConsoleShowsNoSecret: neither the page, nor the state, nor what the console says has what is in the endpoints or the credentials.
func TestConsoleShowsNoSecret(t *testing.T) {
	if got := strings.Join(endpointNames("https://root:s3cret@etcd-1:2379,http://etcd-2:2379,etcd-3:2379"), " "); got != "etcd-1:2379 etcd-2:2379 etcd-3:2379" {
		t.Errorf("the endpoints are shown as %s", got)
	}
	cluster := etcdtest.Start(t)
	cli := etcdClient(t, cluster)
	must(t)(cli.UserAdd(t.Context(), "root", "s3cret"))
	must(t)(cli.UserGrantRole(t.Context(), "root", "root"))
	must(t)(cli.AuthEnable(t.Context()))
	t.Setenv(envPassword, "s3cret")
	told := new(bytes.Buffer)
	p := &program{stdout: told, stderr: told, connection: connection{endpoints: cluster.Endpoints()[0], prefix: etcd.DefaultPrefix, user: "root"}}
	conn, err := p.connection.connect()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.console(ctx, conn, ln, true, nil) }()
	c := &testConsole{Server: &httptest.Server{URL: "http://" + ln.Addr().String()}}
	state := c.awaitState(t, func(s consoleState) bool { return !s.Loading || s.Error != "" })
	if state.Error != "" {
		t.Error(state.Error)
	}
	for _, path := range []string{"/", "/api/state"} {
		if _, text := c.do(t, "GET", path, ""); strings.Contains(text, "s3cret") {
			t.Errorf("%s shows the password", path)
		}
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if strings.Contains(told.String(), "s3cret") || !strings.Contains(told.String(), ln.Addr().String()) {
		t.Errorf("the console says %q", told)
	}
}

// stream opens a stream of events.
func (c *testConsole) stream(t *testing.T) *bufio.Reader {
	t.Helper()
	resp, err := c.Client().Get(c.URL + "/api/events")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("the stream answers %s", resp.Status)
	}
	return bufio.NewReader(resp.Body)
}

// put registers n instances of a service under one lease.
func (c *testConsole) put(t *testing.T, service string, n, bytes int) clientv3.LeaseID {
	t.Helper()
	cli := c.conn.Client()
	lease, err := cli.Grant(t.Context(), 60)
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		addr := fmt.Sprintf("10.0.0.1:%d", i+1)
		value := fmt.Sprintf(`{"network":"tcp","address":%q,"weight":10,"tags":{"padding":%q}}`, addr, strings.Repeat("x", bytes))
		if _, err := cli.Put(t.Context(), etcd.DefaultPrefix+"/"+service+"/"+addr, value, clientv3.WithLease(lease.ID)); err != nil {
			t.Fatal(err)
		}
	}
	return lease.ID
}

// TestConsoleBrowsers: a hundred browsers cost etcd no more than one, and each hears everything.
func TestConsoleBrowsers(t *testing.T) {
	var watches atomic.Int64
	cluster := etcdtest.Start(t, etcdtest.WithConfig(func(cfg *embed.Config) {
		cfg.GRPCAdditionalServerOptions = append(cfg.GRPCAdditionalServerOptions, grpc.ChainStreamInterceptor(
			func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
				if info.FullMethod == "/etcdserverpb.Watch/Watch" {
					watches.Add(1)
				}
				return handler(srv, stream)
			}))
	}))
	c := startConsole(t, cluster, false)
	c.awaitState(t, func(s consoleState) bool { return !s.Loading })
	const browsers, changes = 100, 50
	heard := make(chan struct{}, browsers)
	for range browsers {
		stream := c.stream(t)
		go func() { // until the console ends
			for n := 0; ; {
				line, err := stream.ReadString('\n')
				if err != nil {
					return
				}
				if line == "event: item\n" {
					if n++; n == changes {
						heard <- struct{}{}
					}
				}
			}
		}()
	}
	lease := c.put(t, "Hello", changes, 10)
	for range browsers {
		select {
		case <-heard:
		case <-time.After(20 * time.Second):
			t.Fatal("not all browsers hear all changes")
		}
	}
	if n := watches.Load(); n > 2 {
		t.Errorf("%d streams of watches at etcd", n)
	}
	answers := make(map[string]struct{ TTL, Granted int64 })
	_, text := c.do(t, "GET", "/api/leases?id="+leaseName(lease), "")
	if err := json.Unmarshal([]byte(text), &answers); err != nil || answers[leaseName(lease)].Granted != 60 {
		t.Errorf("the lease: %v %s", err, text)
	}
}

// TestConsoleDeafBrowser: a browser that does not read holds up nobody, and is let go of. What is remembered of changes is bounded.
func TestConsoleDeafBrowser(t *testing.T) {
	c := startConsole(t, etcdtest.Start(t), false)
	c.awaitState(t, func(s consoleState) bool { return !s.Loading })
	deaf, err := net.Dial("tcp", strings.TrimPrefix(c.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer deaf.Close()
	if _, err := fmt.Fprintf(deaf, "GET /api/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	pages := func() (n int) {
		c.handler.hub.do(func() { n = len(c.handler.hub.pages) })
		return n
	}
	for pages() == 0 {
		time.Sleep(time.Millisecond)
	}
	const changes = 4 * pageBuffer
	c.put(t, "Hello", changes, 20_000) // more than its buffer and the sockets hold
	s := c.awaitState(t, func(s consoleState) bool { return len(s.Items) == changes })
	if n := pages(); n != 0 {
		t.Errorf("%d pages are open", n)
	}
	if len(s.Changes) != changesKept {
		t.Errorf("%d changes are kept, want %d", len(s.Changes), changesKept)
	}
}

// TestConsoleTooManyPages: there is a bound, and it says so.
func TestConsoleTooManyPages(t *testing.T) {
	c := startConsole(t, etcdtest.Start(t), false)
	for range maxPages {
		if c.handler.hub.open() == nil {
			t.Fatal("a page was refused")
		}
	}
	if code, text := c.do(t, "GET", "/api/events", ""); code != http.StatusServiceUnavailable || !strings.Contains(text, "more are not allowed") {
		t.Errorf("one page more: %d %s", code, text)
	}
}
