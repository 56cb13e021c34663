package etcdprom_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/cloudwego/kitex/pkg/registry"
	"github.com/cloudwego/kitex/pkg/utils"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/kitex-contrib/kitex-etcd/golden/thrift_unary/kitex_gen/api"
	"github.com/kitex-contrib/kitex-etcd/golden/thrift_unary/kitex_gen/api/hello"
	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
	"github.com/kitex-contrib/kitex-etcd/runtime/etcdprom"
	"github.com/kitex-contrib/kitex-etcd/runtime/etcdtest"
	"github.com/kitex-contrib/kitex-etcd/runtime/internal/faultproxy"
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
	scraped.want(`kitex_etcd_events_total{service="",type="lease lost"} 0`, `kitex_etcd_events_total{service="",type="repair failed"} 0`, `kitex_etcd_events_dropped_total 0`)

	began := time.Now()
	conn := connect(t, cluster, etcd.WithEventHandler(metrics.Handle))
	metrics.Attach(conn)
	r, info := register(t, conn, "Hello", "10.0.0.1:80")
	register(t, conn, "Hello", "10.0.0.2:80")
	scraped.want(`kitex_etcd_events_total{service="Hello",type="registered"} 2`,
		`kitex_etcd_records{service="Hello",state="standing"} 2`,
		`kitex_etcd_records{service="Hello",state="lost"} 0`,
		`kitex_etcd_records{service="Hello",state="unknown"} 0`,
		`kitex_etcd_records{service="Hello",state="taken"} 0`,
		`kitex_etcd_records{service="Hello",state="drained"} 0`,
		`kitex_etcd_lease_ttl_seconds 10`)
	if at := scraped.value("kitex_etcd_lease_confirmed_timestamp_seconds"); at < float64(began.Add(-time.Millisecond).UnixMilli())/1000 || at > float64(time.Now().Unix()+1) {
		t.Errorf("the lease was confirmed at %f, it is %d", at, time.Now().Unix())
	}

	records, _, err := conn.Records(t.Context(), "Hello")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Client().Revoke(t.Context(), records[0].Lease); err != nil {
		t.Fatal(err)
	}
	scraped.want(`kitex_etcd_events_total{service="",type="lease lost"} 1`, `kitex_etcd_events_total{service="Hello",type="restored"} 2`,
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
	scraped.want(`kitex_etcd_instances{service="Hello"} 1`, `kitex_etcd_instances_ejected{service="Hello"} 0`,
		`kitex_etcd_instances_protected{service="Hello"} 0`, `kitex_etcd_invalid_records{service="Hello"} 0`, `kitex_etcd_changes_total{service="Hello"} 1`)
	if at := scraped.value("kitex_etcd_instances_confirmed_timestamp_seconds"); at < float64(before.Add(-time.Second).Unix()) || at > float64(time.Now().Unix()+1) {
		t.Errorf("confirmed at %f, it is %d", at, time.Now().Unix())
	}
	put := func(key, value string) {
		t.Helper()
		if _, err := conn.Client().Put(t.Context(), key, value); err != nil {
			t.Fatal(err)
		}
	}
	put("kitex/registry-etcd/Hello/10.0.0.9:80", "nonsense")
	scraped.want(`kitex_etcd_invalid_records{service="Hello"} 1`, `kitex_etcd_events_total{service="Hello",type="invalid record"} 1`)
	put("kitex/registry-etcd/Hello/10.0.0.9:80", `{"address":"10.0.0.9:80"}`)
	scraped.want(`kitex_etcd_invalid_records{service="Hello"} 0`, `kitex_etcd_instances{service="Hello"} 2`, `kitex_etcd_changes_total{service="Hello"} 2`)
	if metrics := scraped.scrape(); !strings.Contains(metrics, `kitex_etcd_build_info{goversion="`+runtime.Version()+`",version="`) {
		t.Errorf("no build info in\n%s", metrics)
	}
	scraped.lint()
}

// TestChangeToPicker: a change is counted when a client picks by it, and not without clients.
func TestChangeToPicker(t *testing.T) {
	cluster := etcdtest.Start(t)
	metrics := etcdprom.New()
	scraped := newTarget(t, metrics)
	conn := connect(t, cluster)
	metrics.Attach(conn)
	if _, err := conn.Instances(t.Context(), "Hello"); err != nil {
		t.Fatal(err)
	}
	register(t, conn, "Hello", "127.0.0.1:1")
	scraped.want(`kitex_etcd_changes_total{service="Hello"} 1`, `kitex_etcd_change_to_picker_seconds_count 0`)

	cli, err := hello.NewClient("Hello", conn.ClientOptions()...)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cli.Echo(t.Context(), &api.Request{}); err == nil { // has Kitex make a picker
		t.Fatal("nobody listens there")
	}
	register(t, conn, "Hello", "127.0.0.1:2")
	scraped.want(`kitex_etcd_change_to_picker_seconds_count 1`, `kitex_etcd_change_to_picker_seconds_bucket{le="+Inf"} 1`)
}

// TestProtected: instances that etcd lost are shown as what they are.
func TestProtected(t *testing.T) {
	cluster := etcdtest.Start(t)
	metrics := etcdprom.New()
	scraped := newTarget(t, metrics)
	conn, server := connect(t, cluster), faultproxy.Start(t, cluster.Endpoints()[0])
	metrics.Attach(conn)
	away, err := etcd.Connect([]string{server.Addr()}, etcd.WithLeaseTTL(2*time.Second), etcd.WithDrainDelay(0))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = away.Close() })
	own := etcdprom.New()
	own.Attach(away)
	register(t, away, "Hello", "10.0.0.1:80")
	if _, err := conn.Instances(t.Context(), "Hello"); err != nil {
		t.Fatal(err)
	}
	scraped.want(`kitex_etcd_instances{service="Hello"} 1`, `kitex_etcd_instances_protected{service="Hello"} 0`)
	server.BlackHole()
	scraped.want(`kitex_etcd_instances{service="Hello"} 1`, `kitex_etcd_instances_protected{service="Hello"} 1`)
	newTarget(t, own).want(`kitex_etcd_records{service="Hello",state="unknown"} 1`, `kitex_etcd_records{service="Hello",state="standing"} 0`)
	server.Forward()
	scraped.want(`kitex_etcd_instances_protected{service="Hello"} 0`)
}

// TestScrapeWithoutEtcd: a service that etcd never answered about is there, and its confirmation is not.
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
	scraped.want(`kitex_etcd_instances{service="Hello"} 0`)
	if metrics := scraped.scrape(); strings.Contains(metrics, "confirmed_timestamp") {
		t.Errorf("something was confirmed:\n%s", metrics)
	}
}

// TestDropped: what a slow handler missed is counted.
func TestDropped(t *testing.T) {
	metrics := etcdprom.New()
	metrics.Handle(etcd.Event{Type: etcd.EventSynced, Service: "Hello", Dropped: 3})
	newTarget(t, metrics).want(`kitex_etcd_events_dropped_total 3`, `kitex_etcd_events_total{service="Hello",type="synced"} 1`)
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
