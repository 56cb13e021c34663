package etcdprom_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"gopkg.in/yaml.v3"

	"github.com/kitex-contrib/kitex-etcd/runtime/etcdprom"
)

const operations = "../../docs/operations.md"

var metricName = regexp.MustCompile(`kitex_etcd_\w+`)

// exist returns the names of all metrics.
func exist() map[string]bool {
	descs := make(chan *prometheus.Desc, 100)
	etcdprom.New().Describe(descs)
	close(descs)
	names := make(map[string]bool)
	for d := range descs {
		names[metricName.FindString(d.String())] = true
	}
	return names
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// wantMetrics wants every metric that text names to exist.
func wantMetrics(t *testing.T, where, text string) {
	t.Helper()
	exist := exist()
	for _, name := range metricName.FindAllString(text, -1) {
		if !exist[strings.TrimSuffix(name, "_bucket")] {
			t.Errorf("%s names %s, which does not exist", where, name)
		}
	}
}

// TestDocumented: the documents name these metrics and no others.
func TestDocumented(t *testing.T) {
	exist := exist()
	for _, file := range []string{operations, "collector.go"} {
		named := make(map[string]bool)
		for _, name := range metricName.FindAllString(read(t, file), -1) {
			named[name] = true
		}
		if !maps.Equal(named, exist) {
			t.Errorf("%s names %v; there are %v", file, slices.Sorted(maps.Keys(named)), slices.Sorted(maps.Keys(exist)))
		}
	}
}

// TestNamedEverywhere: no document names a metric that does not exist.
func TestNamedEverywhere(t *testing.T) {
	for _, pattern := range []string{"../../*.md", "../../docs/*.md", "../../docs/zh/*.md"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			wantMetrics(t, file, read(t, file))
		}
	}
}

// rule is one alert of docs/alerts.yaml.
type rule struct {
	Alert, Expr, For    string
	Labels, Annotations map[string]string
}

func rules(t *testing.T) []rule {
	t.Helper()
	var file struct{ Groups []struct{ Rules []rule } }
	if err := yaml.Unmarshal([]byte(read(t, "../../docs/alerts.yaml")), &file); err != nil {
		t.Fatal(err)
	}
	if len(file.Groups) != 1 || len(file.Groups[0].Rules) == 0 {
		t.Fatal("docs/alerts.yaml has no group of rules")
	}
	return file.Groups[0].Rules
}

// TestAlerts: every alert waits, has a severity and annotations, asks for metrics that exist, and leads to a section that says what
// to do; the document's table is what the file says.
func TestAlerts(t *testing.T) {
	text := read(t, operations)
	tests := read(t, "testdata/alerts_test.yaml")
	var table []string
	for _, r := range rules(t) {
		anchor := strings.ToLower(r.Alert)
		row := fmt.Sprintf("| [%s](#%s) | %s | %s | `%s` |", r.Alert, anchor, r.Labels["severity"], r.For, r.Expr)
		table = append(table, row)
		if r.For == "" || !slices.Contains([]string{"critical", "warning"}, r.Labels["severity"]) || r.Annotations["summary"] == "" || r.Annotations["description"] == "" {
			t.Errorf("%s lacks for, severity or annotations: %+v", r.Alert, r)
		}
		if want := "https://github.com/kitex-contrib/kitex-etcd/blob/main/docs/operations.md#" + anchor; r.Annotations["runbook_url"] != want {
			t.Errorf("%s has the runbook %q, want %q", r.Alert, r.Annotations["runbook_url"], want)
		}
		if !strings.Contains(text, "\n#### "+r.Alert+"\n") {
			t.Errorf("%s: no heading tells what to do", r.Alert)
		}
		if !strings.Contains(tests, "alertname: "+r.Alert+"\n        exp_alerts:\n") {
			t.Errorf("%s: no test has it fire", r.Alert)
		}
		wantMetrics(t, r.Alert, r.Expr)
	}
	shown := regexp.MustCompile(`(?m)^\| \[Kitex.*$`).FindAllString(text, -1)
	if !slices.Equal(shown, table) {
		t.Errorf("the document shows\n%s\nthe file has\n%s", strings.Join(shown, "\n"), strings.Join(table, "\n"))
	}
}

// TestDashboard: the dashboard asks for metrics that exist, and the document lists its panels.
func TestDashboard(t *testing.T) {
	text := read(t, operations)
	for _, p := range dashboard(t).Panels {
		if len(p.Targets) == 0 || p.Title == "" || p.Description == "" || len(p.FieldConfig.Defaults.Thresholds.Steps) == 0 {
			t.Errorf("panel %q lacks a query, a description or thresholds", p.Title)
		}
		for _, q := range p.Targets {
			wantMetrics(t, p.Title, q.Expr)
			if !strings.Contains(q.Expr, "$job") {
				t.Errorf("panel %q does not follow the choice of jobs: %s", p.Title, q.Expr)
			}
		}
		if row := fmt.Sprintf("\n| %s | %s |\n", p.Title, p.Description); !strings.Contains(text, row) {
			t.Errorf("the document does not show %q", row)
		}
	}
}

type panels struct {
	Panels []struct {
		Title, Description string
		Targets            []struct{ Expr string }
		FieldConfig        struct {
			Defaults struct{ Thresholds struct{ Steps []any } }
		}
	}
}

func dashboard(t *testing.T) (d panels) {
	t.Helper()
	if err := json.Unmarshal([]byte(read(t, "../../docs/grafana.json")), &d); err != nil {
		t.Fatal(err)
	}
	if len(d.Panels) == 0 {
		t.Fatal("the dashboard has no panels")
	}
	return d
}

// promtool runs Prometheus's own tool.
func promtool(t *testing.T, args ...string) {
	t.Helper()
	tool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is not installed; it is in Debian's package prometheus")
	}
	if out, err := exec.Command(tool, args...).CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// TestPromtoolAlerts: the alerts fire when they should, once for each fault, and not otherwise.
func TestPromtoolAlerts(t *testing.T) {
	promtool(t, "check", "rules", "../../docs/alerts.yaml")
	promtool(t, "test", "rules", "testdata/alerts_test.yaml")
}

// TestPromtoolDashboard: Prometheus can read the dashboard's queries.
func TestPromtoolDashboard(t *testing.T) {
	type recording struct {
		Record string `yaml:"record"`
		Expr   string `yaml:"expr"`
	}
	var queries []recording
	for _, p := range dashboard(t).Panels {
		for _, q := range p.Targets {
			expr := strings.NewReplacer("$job", "greeter", "$service", "Hello").Replace(q.Expr)
			queries = append(queries, recording{fmt.Sprintf("query_%d", len(queries)), expr})
		}
	}
	data, err := yaml.Marshal(map[string]any{"groups": []any{map[string]any{"name": "dashboard", "rules": queries}}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "dashboard.yaml")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	promtool(t, "check", "rules", file)
}
