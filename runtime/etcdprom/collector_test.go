package etcdprom_test

import (
	"context"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cloudwego/kitex/pkg/registry"
	"github.com/cloudwego/kitex/pkg/utils"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
	"github.com/kitex-contrib/kitex-etcd/runtime/etcdprom"
	"github.com/kitex-contrib/kitex-etcd/runtime/etcdtest"
)

// target is a process that Prometheus scrapes.
type target struct {
	*testing.T
	registry *prometheus.Registry
	url      string
}

func newTarget(t *testing.T, c *etcdprom.Collector) *target {
	t.Helper()
	r := prometheus.NewRegistry()
	if err := r.Register(c); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(promhttp.HandlerFor(r, promhttp.HandlerOpts{}))
	t.Cleanup(server.Close)
	return &target{t, r, server.URL}
}

// scrape returns the metrics, one on each line, without comments.
func (t *target) scrape() string {
	t.Helper()
	resp, err := http.Get(t.url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %v\n%s", resp.Status, err, text)
	}
	return regexp.MustCompile(`(?m)^#.*\n`).ReplaceAllString(string(text), "")
}

// want scrapes until it finds all these lines.
func (t *target) want(lines ...string) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		metrics := t.scrape()
		missing := ""
		for _, line := range lines {
			if !strings.Contains("\n"+metrics, "\n"+line+"\n") {
				missing = line
			}
		}
		if missing == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("no line %q in\n%s", missing, metrics)
		}
	}
}

func connect(t *testing.T, cluster *etcdtest.Cluster, opts ...etcd.Option) *etcd.Conn {
	t.Helper()
	conn, err := etcd.Connect(cluster.Endpoints(), append(opts, etcd.WithDrainDelay(0))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func register(t *testing.T, conn *etcd.Conn, service, addr string) (registry.Registry, *registry.Info) {
	t.Helper()
	r, info := conn.Registry(), &registry.Info{ServiceName: service, Addr: utils.NewNetAddr("tcp", addr), Weight: 10}
	if err := r.Register(info); err != nil {
		t.Fatal(err)
	}
	return r, info
}

// TestScrape follows a process through registration, a revoked lease, a taken address and an orderly stop, and its view of
// a service that it calls.
func TestScrape(t *testing.T) {
	cluster := etcdtest.Start(t)
	metrics := etcdprom.New()
	scraped := newTarget(t, metrics)
	scraped.want(`kitex_etcd_events_total{type="lease lost"} 0`, `kitex_etcd_events_total{type="invalid record"} 0`, `kitex_etcd_events_dropped_total 0`)

	conn := connect(t, cluster, etcd.WithEventHandler(metrics.Handle))
	metrics.Attach(conn)
	r, info := register(t, conn, "Hello", "10.0.0.1:80")
	register(t, conn, "Hello", "10.0.0.2:80")
	scraped.want(`kitex_etcd_events_total{type="registered"} 2`,
		`kitex_etcd_records{service="Hello",state="standing"} 2`,
		`kitex_etcd_records{service="Hello",state="lost"} 0`,
		`kitex_etcd_records{service="Hello",state="taken"} 0`)

	records, _, err := conn.Records(t.Context(), "Hello")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Client().Revoke(t.Context(), records[0].Lease); err != nil {
		t.Fatal(err)
	}
	scraped.want(`kitex_etcd_events_total{type="lease lost"} 1`, `kitex_etcd_events_total{type="restored"} 2`,
		`kitex_etcd_records{service="Hello",state="standing"} 2`)

	register(t, connect(t, cluster), "Hello", "10.0.0.2:80")
	scraped.want(`kitex_etcd_records{service="Hello",state="taken"} 1`, `kitex_etcd_records{service="Hello",state="standing"} 1`)

	if err := r.Deregister(info); err != nil {
		t.Fatal(err)
	}
	scraped.want(`kitex_etcd_records{service="Hello",state="standing"} 0`)

	before := time.Now()
	if list, err := conn.Instances(t.Context(), "Hello"); err != nil || len(list) != 1 {
		t.Fatalf("%v, %v", list, err)
	}
	scraped.want(`kitex_etcd_instances{service="Hello"} 1`)
	if at := scraped.value("kitex_etcd_instances_confirmed_timestamp_seconds"); at < float64(before.Add(-time.Second).Unix()) || at > float64(time.Now().Unix()+1) {
		t.Errorf("confirmed at %f, it is %d", at, time.Now().Unix())
	}
	scraped.lint()
}

// TestScrapeWithoutEtcd: a service that was never found is there, and stands out.
func TestScrapeWithoutEtcd(t *testing.T) {
	cluster := etcdtest.Start(t)
	cluster.Stop()
	metrics := etcdprom.New()
	scraped := newTarget(t, metrics)
	conn := connect(t, cluster, etcd.WithEventHandler(metrics.Handle))
	metrics.Attach(conn)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := conn.Instances(ctx, "Hello"); err == nil {
		t.Fatal("no error")
	}
	scraped.want(`kitex_etcd_instances{service="Hello"} 0`, `kitex_etcd_instances_confirmed_timestamp_seconds{service="Hello"} 0`)
}

// TestDocumented: the documents name these metrics and no others.
func TestDocumented(t *testing.T) {
	descs := make(chan *prometheus.Desc, 20)
	etcdprom.New().Describe(descs)
	close(descs)
	exist := make(map[string]bool)
	for d := range descs {
		exist[regexp.MustCompile(`kitex_etcd_\w+`).FindString(d.String())] = true
	}
	for _, file := range []string{"../../docs/operations.md", "collector.go"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		named := make(map[string]bool)
		for _, name := range regexp.MustCompile(`kitex_etcd_\w+`).FindAllString(string(text), -1) {
			named[name] = true
		}
		if !maps.Equal(named, exist) {
			t.Errorf("%s names %v; there are %v", file, slices.Sorted(maps.Keys(named)), slices.Sorted(maps.Keys(exist)))
		}
	}
}

// TestDashboard: the dashboard's queries are those that the document shows; TestDocumented knows their metrics.
func TestDashboard(t *testing.T) {
	text, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile("../../docs/grafana.json")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(data, &dashboard); err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(text), "\n### Dashboard\n")
	table, _, _ = strings.Cut(table, "\n## ")
	shown := make(map[string]bool)
	for _, m := range regexp.MustCompile("`([^`]*kitex_etcd_[^`]*)`").FindAllStringSubmatch(table, -1) {
		shown[m[1]] = true
	}
	asked := make(map[string]bool)
	for _, p := range dashboard.Panels {
		for _, q := range p.Targets {
			asked[q.Expr] = true
		}
	}
	if len(asked) == 0 || !maps.Equal(asked, shown) {
		t.Errorf("the dashboard asks %q, the document shows %q", slices.Sorted(maps.Keys(asked)), slices.Sorted(maps.Keys(shown)))
	}
}

// TestStates: what each event makes of the records.
func TestStates(t *testing.T) {
	metrics := etcdprom.New()
	scraped := newTarget(t, metrics)
	one := func(et etcd.EventType, key string) {
		metrics.Handle(etcd.Event{Type: et, Service: "Hello", Key: key})
	}
	want := func(standing, lost, taken string) {
		t.Helper()
		scraped.want(`kitex_etcd_records{service="Hello",state="standing"} `+standing,
			`kitex_etcd_records{service="Hello",state="lost"} `+lost,
			`kitex_etcd_records{service="Hello",state="taken"} `+taken)
	}
	one(etcd.EventRegistered, "a")
	one(etcd.EventRegistered, "b")
	one(etcd.EventRecordLost, "a")
	want("1", "1", "0")
	one(etcd.EventTakenOver, "a")
	want("1", "0", "1")
	metrics.Handle(etcd.Event{Type: etcd.EventLeaseLost, Dropped: 3})
	want("0", "1", "1")
	one(etcd.EventRestored, "a")
	one(etcd.EventRestored, "b")
	want("2", "0", "0")
	one(etcd.EventDeregistered, "a")
	one(etcd.EventDeregistered, "b")
	if metrics := scraped.scrape(); strings.Contains(metrics, "kitex_etcd_records{") {
		t.Errorf("deregistered records are still there:\n%s", metrics)
	}
	scraped.want(`kitex_etcd_events_dropped_total 3`)
}

// value returns the value of the only metric of that name.
func (t *target) value(name string) float64 {
	t.Helper()
	families, err := t.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name && len(f.GetMetric()) == 1 {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

// lint wants nothing against the conventions of Prometheus.
func (t *target) lint() {
	t.Helper()
	families, err := t.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
}
