package consoletest

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
	clientv3 "go.etcd.io/etcd/client/v3"

	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
	"github.com/kitex-contrib/kitex-etcd/runtime/etcdtest"
)

var screenshots = flag.String("screenshots", "", "write pictures of the page into this `directory`")

func emulate(width, height int, scheme string) chromedp.Action {
	return chromedp.Tasks{
		emulation.SetDeviceMetricsOverride(int64(width), int64(height), 1, width < 700),
		emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}),
	}
}

func put(t *testing.T, cluster *etcdtest.Cluster, key, value string, opts ...clientv3.OpOption) {
	t.Helper()
	cli := connect(t, cluster).Client()
	if _, err := cli.Put(t.Context(), key, value, opts...); err != nil {
		t.Fatal(err)
	}
}

// TestInstancesComeAndGo: what servers do is on the page without anybody's doing.
func TestInstancesComeAndGo(t *testing.T) {
	cluster := etcdtest.Start(t)
	b := browse(t, startConsole(t, cluster), 1440, 900, "light")
	b.reads("#empty", "Nothing is registered below kitex/registry-etcd/")
	b.reads("#link", "live")

	conn := connect(t, cluster)
	first := register(t, conn, "Hello", "10.0.0.1:8888", 10, map[string]string{"zone": "a"})
	b.reads(".service .name", "Hello")
	b.unfold("Hello")
	b.reads("td.address", "10.0.0.1:8888")
	b.reads("td", "zone=a")
	b.reads(".lease", "of 10 s")
	b.reads(".changes", "added")
	register(t, conn, "Hello", "10.0.0.2:8888", 20, nil)
	b.reads("td.address", "10.0.0.2:8888")
	b.reads("#n-instances", "2")
	if err := conn.Update(t.Context(), "Hello", etcd.Change{Weight: 30}); err != nil {
		t.Fatal(err)
	}
	b.reads(".changes", "weight 10 → 30")
	first()
	b.gone("td.address", "10.0.0.1:8888")
	b.reads(".changes", "deregistered or deleted")

	// A server that dies: its lease ends.
	lease, err := conn.Client().Grant(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	put(t, cluster, "kitex/registry-etcd/Doomed/10.0.0.3:1", `{"network":"tcp","address":"10.0.0.3:1","weight":10}`, clientv3.WithLease(lease.ID))
	b.reads(".service .name", "Doomed")
	b.reads(".changes", "its lease ended")
	b.gone(".service .name", "Doomed")

	// A key that is no instance.
	put(t, cluster, "kitex/registry-etcd/Hello/10.0.0.9:1", "what is this?")
	b.reads(".pill", "ignored")
	b.reads("#n-ignored", "1")
}

// TestTextStaysText: whoever writes into etcd writes text on the page, and nothing else.
func TestTextStaysText(t *testing.T) {
	cluster := etcdtest.Start(t)
	evil := `<img src=x onerror="window.taken=1"><script>window.taken=1</script>`
	conn := connect(t, cluster)
	register(t, conn, "<i>Hello", "10.0.0.1:8888", 10, map[string]string{"evil": evil, strings.Repeat("k", 300): strings.Repeat("v", 1000)})
	put(t, cluster, "kitex/registry-etcd/<b onclick=x>/"+evil, evil)
	many := make(map[string]string)
	for i := range 100 {
		many[fmt.Sprintf("tag-%03d", i)] = "value"
	}
	register(t, conn, strings.Repeat("Long", 250), "10.0.0.2:8888", 10, many)
	b := browse(t, startConsole(t, cluster), 360, 800, "dark")
	b.reads("#n-services", "3")
	b.do(chromedp.Evaluate(`document.querySelectorAll('.service button').forEach(e => e.click())`, nil))
	b.reads("td", "evil="+evil)
	b.reads("td", "tag-099=value")
	b.sees(`window.taken === undefined && document.querySelectorAll('main img, main script, main i').length === 0`)
	b.sees(`document.documentElement.scrollWidth <= 360`) // nothing is wider than a phone
}

// TestDrainAndWeight: with --write the page asks first, and then does it.
func TestDrainAndWeight(t *testing.T) {
	cluster := etcdtest.Start(t)
	conn := connect(t, cluster)
	register(t, conn, "Hello", "10.0.0.1:8888", 10, nil)
	deregister := register(t, conn, "Hello", "10.0.0.2:8888", 10, nil)
	b := browse(t, startConsole(t, cluster, "--write"), 1440, 900, "light")
	b.press("Drain Hello 10.0.0.1:8888")
	b.reads("#ask", "No client calls it any more")
	b.press("Cancel")
	b.gone("#ask", "No client calls it any more")
	b.press("Drain Hello 10.0.0.1:8888")
	b.do(chromedp.SendKeys("#ask-reason", "heap dump"))
	b.press("Drain")
	b.answered()
	b.reads("tr", "heap dump")
	b.reads(".pill", "drained")
	b.reads("#n-drained", "1")

	b.press("Drain Hello 10.0.0.2:8888") // the last one
	b.press("Drain")
	b.reads("#ask-error", "is the last instance of the service")
	b.do(chromedp.Click("#ask-force"))
	b.press("Drain")
	b.answered()
	b.reads("#n-drained", "2")
	b.press("Undrain Hello 10.0.0.2:8888")
	b.press("Undrain")
	b.answered()
	b.reads("#n-drained", "1")

	b.press("Weight Hello 10.0.0.2:8888")
	b.do(chromedp.SetValue("#ask-weight", "77"))
	b.press("Set weight")
	b.answered()
	b.reads("tr", "by a mark of 77")
	b.press("Own weight Hello 10.0.0.2:8888")
	b.press("Take back")
	b.answered()
	b.gone("tr", "by a mark of 77")

	// What the server does not follow is taken back, and said.
	deregister()
	put(t, cluster, "kitex/registry-etcd/Hello/10.0.0.2:8888", `{"network":"tcp","address":"10.0.0.2:8888","weight":10}`)
	b.reads("tr", "no lease")
	b.press("Weight Hello 10.0.0.2:8888")
	b.press("Set weight")
	b.reads("#ask-error", "has no lease, so no server keeps it")

	shows := browse(t, startConsole(t, cluster), 1440, 900, "light")
	shows.reads(".service", "Hello")
	shows.sees(`document.querySelectorAll('td.todo').length === 0`)
}

// TestEtcdAway: the page says so, keeps what was known, and goes on by itself.
func TestEtcdAway(t *testing.T) {
	cluster := etcdtest.Start(t)
	put(t, cluster, "kitex/registry-etcd/Hello/10.0.0.1:8888", `{"network":"tcp","address":"10.0.0.1:8888","weight":10}`)
	url := startConsole(t, cluster)
	b := browse(t, url, 1440, 900, "light")
	b.reads(".service .name", "Hello")
	cluster.Stop()
	b.reads("#banner", "goes on by itself when etcd is back")
	b.reads(".service .name", "Hello")

	late := browse(t, startConsole(t, cluster), 1440, 900, "light")
	late.reads("#empty", "etcd has not answered yet")
	late.reads("#banner", "The page fills when etcd answers")
	if err := cluster.Start(); err != nil {
		t.Fatal(err)
	}
	b.reads("#link", "live")
	late.reads("#link", "live")
	late.reads(".service .name", "Hello")
	put(t, cluster, "kitex/registry-etcd/Later/10.0.0.1:8888", `{"network":"tcp","address":"10.0.0.1:8888","weight":10}`)
	b.reads(".service .name", "Later")
	late.reads(".service .name", "Later")
}

// TestHiddenPageLetsGo: a page that nobody looks at holds no connection, and has everything when somebody does.
func TestHiddenPageLetsGo(t *testing.T) {
	cluster := etcdtest.Start(t)
	url := startConsole(t, cluster)
	b := browse(t, "about:blank", 1440, 900, "light")
	b.do(chromedp.ActionFunc(func(ctx context.Context) error {
		// The streams can be looked at, and ten seconds are short.
		_, err := page.AddScriptToEvaluateOnNewDocument(`
			const Stream = EventSource
			window.streams = []
			window.EventSource = class extends Stream { constructor(url) { super(url); window.streams.push(this) } }
			const later = window.setTimeout
			window.setTimeout = (f, ms) => later(f, ms === 10000 ? 20 : ms)
			window.hide = (hidden) => {
				Object.defineProperty(document, 'hidden', { value: hidden, configurable: true })
				document.dispatchEvent(new Event('visibilitychange'))
			}`).Do(ctx)
		return err
	}), chromedp.Navigate(url))
	b.reads("#link", "live")
	b.do(chromedp.Evaluate(`hide(true)`, nil))
	b.sees(`streams.length === 1 && streams[0].readyState === EventSource.CLOSED`)
	put(t, cluster, "kitex/registry-etcd/Hello/10.0.0.1:8888", `{"network":"tcp","address":"10.0.0.1:8888","weight":10}`)
	b.do(chromedp.Evaluate(`hide(false)`, nil))
	b.reads(".service .name", "Hello")
	b.reads("#link", "live")
}

// TestThousandServices: 10,000 instances are there at once, can be filtered, and a change is seen in the moment that it is made.
func TestThousandServices(t *testing.T) {
	cluster := etcdtest.Start(t)
	cli := connect(t, cluster).Client()
	lease, err := cli.Grant(t.Context(), 600)
	if err != nil {
		t.Fatal(err)
	}
	for s := range 1000 {
		var ops []clientv3.Op
		for i := range 10 {
			addr := fmt.Sprintf("10.%d.%d.%d:8888", s/250, s%250, i)
			ops = append(ops, clientv3.OpPut(fmt.Sprintf("kitex/registry-etcd/Service%04d/%s", s, addr),
				fmt.Sprintf(`{"network":"tcp","address":%q,"weight":10,"tags":{"zone":"z%d","version":"v1.%d"}}`, addr, i%3, s%7), clientv3.WithLease(lease.ID)))
		}
		if _, err := cli.Txn(t.Context()).Then(ops...).Commit(); err != nil {
			t.Fatal(err)
		}
	}
	url := startConsole(t, cluster)
	b := browse(t, url, 1440, 900, "light")
	b.reads("#n-instances", "10,000")
	b.do(chromedp.Reload())
	b.reads("#n-instances", "10,000")
	var content, first float64
	b.do(chromedp.Evaluate(`performance.getEntriesByType('navigation')[0].responseStart - performance.getEntriesByType('navigation')[0].requestStart`, &first),
		chromedp.Evaluate(`Number(document.body.dataset.shownAt)`, &content))
	t.Logf("first byte %.1f ms, content %.0f ms after the navigation began", first, content)

	b.do(chromedp.SendKeys("#filter", "service0042 zone=z1"))
	b.reads("#found", "1 of 1000 services")
	b.unfold("Service0042")
	b.sees(`document.querySelectorAll('tbody tr').length === 3 || document.querySelectorAll('tbody tr').length === 4`)
	b.do(chromedp.Evaluate(`document.getElementById('filter').value = ''; document.getElementById('filter').dispatchEvent(new Event('input'))`, nil))

	b.do(chromedp.Evaluate(`new MutationObserver(() => { window.changedAt ??= Date.now() }).observe(document.getElementById('changes'), { childList: true })`, nil))
	begin := time.Now()
	put(t, cluster, "kitex/registry-etcd/AAA/10.9.9.9:1", `{"network":"tcp","address":"10.9.9.9:1","weight":10}`)
	b.reads(".service .name", "AAA")
	var changed int64
	b.do(chromedp.Evaluate(`window.changedAt`, &changed))
	t.Logf("a change was on the page %v after its write began", time.UnixMilli(changed).Sub(begin))
}

// TestScreenshots writes the pictures of the documentation.
func TestScreenshots(t *testing.T) {
	if *screenshots == "" {
		t.Skip("-screenshots DIR writes the pictures of the documentation")
	}
	cluster := etcdtest.Start(t)
	conn := connect(t, cluster)
	for s, name := range []string{"CartService", "CheckoutService", "InventoryService", "OrderService", "PaymentService", "ShippingService"} {
		for i := range 2 + (s*2)%4 {
			register(t, conn, name, fmt.Sprintf("10.0.%d.%d:8888", s, i+1), 10, map[string]string{"zone": string(rune('a' + i%3)), "version": fmt.Sprintf("v1.%d.0", 3+s%2)})
		}
	}
	lease, err := conn.Client().Grant(t.Context(), 30)
	if err != nil {
		t.Fatal(err)
	}
	for name, size := range map[string][2]int{"": {1440, 900}, "-phone": {360, 780}} {
		for _, scheme := range []string{"light", "dark"} {
			url := startConsole(t, cluster, "--write")
			b := browse(t, url, size[0], size[1], scheme)
			b.reads("#n-services", "6")
			canary := register(t, conn, "OrderService", "10.0.3.9:8888", 10, map[string]string{"zone": "b", "version": "v1.5.0", "lane": "canary"})
			if _, _, err := conn.SetMark(t.Context(), "OrderService", "10.0.3.1:8888", etcd.Mark{Drain: true, Reason: "heap dump"}, 0); err != nil {
				t.Fatal(err)
			}
			if _, _, err := conn.SetMark(t.Context(), "OrderService", "10.0.3.9:8888", etcd.Mark{Weight: 1, Reason: "canary"}, 0); err != nil {
				t.Fatal(err)
			}
			put(t, cluster, "kitex/registry-etcd/OrderService/10.0.3.7:8888", `{"network":"tcp","address":"10.0.3.7:8888","weight":10,"tags":{"zone":"c","version":"v1.3.0"}}`, clientv3.WithLease(lease.ID))
			b.reads(".changes", "weight 10 → 1")
			b.unfold("OrderService")
			b.reads(".pill", "drained")
			b.reads(".lease", "s of 10 s")
			b.sees(`document.querySelectorAll('tr.fresh').length === 0`)
			var png []byte
			b.do(chromedp.ActionFunc(func(ctx context.Context) (err error) {
				png, err = page.CaptureScreenshot().Do(ctx)
				return err
			}))
			if err := os.WriteFile(filepath.Join(*screenshots, "console"+name+"-"+scheme+".png"), png, 0o644); err != nil {
				t.Fatal(err)
			}
			canary()
			for _, addr := range []string{"10.0.3.1:8888", "10.0.3.9:8888"} {
				if _, err := conn.ClearMark(t.Context(), "OrderService", addr, 0); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := conn.Client().Delete(t.Context(), "kitex/registry-etcd/OrderService/10.0.3.7:8888"); err != nil {
				t.Fatal(err)
			}
		}
	}
}
