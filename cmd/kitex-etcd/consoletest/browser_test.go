package consoletest

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/cloudwego/kitex/pkg/klog"
	"github.com/cloudwego/kitex/pkg/registry"
	"github.com/cloudwego/kitex/pkg/utils"

	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
	"github.com/kitex-contrib/kitex-etcd/runtime/etcdtest"
)

// patience is how long a test waits for what has to come.
const patience = 30 * time.Second

var (
	command string // the built kitex-etcd
	chrome  string // the browser; empty: none is installed
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	klog.SetLevel(klog.LevelFatal)
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil && chrome == "" {
			chrome = path
		}
	}
	dir, err := os.MkdirTemp("", "consoletest")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	command = filepath.Join(dir, "kitex-etcd")
	build := exec.Command("go", "build", "-o", command, ".")
	build.Dir = ".." // in the module that it belongs to
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "%v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// startConsole starts a console for cluster and returns its address.
func startConsole(t *testing.T, cluster *etcdtest.Cluster, args ...string) (url string) {
	t.Helper()
	cmd := exec.Command(command, append([]string{"console", "--listen", "127.0.0.1:0", "--endpoints", strings.Join(cluster.Endpoints(), ",")}, args...)...)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stderr)
	for url == "" && lines.Scan() {
		_, url, _ = strings.Cut(lines.Text(), "the console is at ")
	}
	if url == "" {
		t.Fatalf("the console did not start: %v", lines.Err())
	}
	drained := make(chan struct{})
	go func() { defer close(drained); _, _ = io.Copy(io.Discard, stderr) }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		<-drained
		if err := cmd.Wait(); err != nil {
			t.Errorf("the console ended with %v", err)
		}
	})
	return url
}

// tab is one page in a browser.
type tab struct {
	t   *testing.T
	ctx context.Context
}

// browse opens a page of so many pixels, in light or dark colours.
func browse(t *testing.T, url string, width, height int, scheme string) *tab {
	t.Helper()
	if chrome == "" && os.Getenv("CI") != "" {
		t.Fatal("no browser is installed, and CI skips nothing; Debian's package is chromium")
	}
	if chrome == "" {
		t.Skip("no browser is installed; Debian's package is chromium")
	}
	opts := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(chrome), chromedp.NoSandbox, chromedp.WindowSize(width, height),
		chromedp.Flag("disable-dev-shm-usage", true), chromedp.Flag("lang", "en-GB"))
	ctx, cancel := chromedp.NewExecAllocator(t.Context(), opts...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	b := &tab{t, ctx}
	b.do(emulate(width, height, scheme), chromedp.Navigate(url))
	return b
}

// do has the browser do something, for as long as patience lasts.
func (b *tab) do(actions ...chromedp.Action) {
	b.t.Helper()
	// A deadline of the tab's own context would end the tab.
	done := make(chan error, 1)
	go func() { done <- chromedp.Run(b.ctx, actions...) }()
	select {
	case err := <-done:
		if err != nil {
			b.t.Fatal(err)
		}
	case <-time.After(patience):
		b.t.Fatalf("the browser did not do it within %v; the page says:\n%s", patience, b.text())
	}
}

// text is what a person can read.
func (b *tab) text() (text string) {
	ctx, cancel := context.WithTimeout(b.ctx, 5*time.Second)
	defer cancel()
	_ = chromedp.Run(ctx, chromedp.Evaluate(`document.body.innerText`, &text))
	return text
}

// sees waits until an expression of JavaScript is true.
func (b *tab) sees(expression string) {
	b.t.Helper()
	var seen bool
	b.do(chromedp.Evaluate(fmt.Sprintf(`new Promise(done => {
		const look = () => %s
		if (look()) return done(true)
		const again = setInterval(() => look() && end(true), 50)
		const late = setTimeout(() => end(false), %d)
		const end = (seen) => { clearInterval(again); clearTimeout(late); done(seen) }
	})`, expression, (patience-5*time.Second).Milliseconds()), &seen, func(p *runtime.EvaluateParams) *runtime.EvaluateParams { return p.WithAwaitPromise(true) }))
	if !seen {
		b.t.Fatalf("this did not come true within %v: %s\nThe page says:\n%s", patience, expression, b.text())
	}
}

// reads waits until the element at a selector shows a text.
func (b *tab) reads(selector, text string) {
	b.t.Helper()
	b.sees(fmt.Sprintf(`[...document.querySelectorAll(%q)].some(e => e.checkVisibility() && e.innerText.includes(%q))`, selector, text))
}

// gone waits until no element at a selector shows a text.
func (b *tab) gone(selector, text string) {
	b.t.Helper()
	b.sees(fmt.Sprintf(`![...document.querySelectorAll(%q)].some(e => e.checkVisibility() && e.innerText.includes(%q))`, selector, text))
}

// press presses the button that a screen reader calls name.
func (b *tab) press(name string) {
	b.t.Helper()
	b.sees(fmt.Sprintf(`(() => { const e = [...document.querySelectorAll('button')].find(e => e.checkVisibility() && !e.disabled && (e.getAttribute('aria-label') || e.innerText).trim() === %q); if (e) e.click(); return Boolean(e) })()`, name))
}

// answered waits until the question is off the screen.
func (b *tab) answered() {
	b.t.Helper()
	b.sees(`!document.getElementById('ask').open`)
}

// unfold shows the instances of a service.
func (b *tab) unfold(service string) {
	b.t.Helper()
	b.sees(fmt.Sprintf(`(() => { const e = [...document.querySelectorAll('.service button[aria-expanded]')].find(e => e.querySelector('.name').textContent === %q); if (e && e.getAttribute('aria-expanded') === 'false') e.click(); return Boolean(e) })()`, service))
}

// connect returns a Conn to cluster.
func connect(t *testing.T, cluster *etcdtest.Cluster) *etcd.Conn {
	t.Helper()
	conn, err := etcd.Connect(cluster.Endpoints(), etcd.WithDrainDelay(0))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// register registers a server, and returns what deregisters it.
func register(t *testing.T, conn *etcd.Conn, service, addr string, weight int, tags map[string]string) (deregister func()) {
	t.Helper()
	info := &registry.Info{ServiceName: service, Addr: utils.NewNetAddr("tcp", addr), Weight: weight, Tags: tags}
	if err := conn.Registry().Register(info); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if err := conn.Registry().Deregister(info); err != nil {
			t.Fatal(err)
		}
	}
}
