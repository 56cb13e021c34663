package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gonum.org/v1/plot/plotter"
)

func TestMain(m *testing.M) {
	runChild()
	quieten()
	os.Exit(m.Run())
}

// TestResolve runs the smallest family from the etcd to the report.
func TestResolve(t *testing.T) {
	f := resolveFamily(3)
	f.rounds = 1
	all, err := measure(t.Context(), f, true, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	r := newReport(nil)
	r.add(f, all, nil)
	var table bytes.Buffer
	if err := r.print(&table); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{table.String(), r.markdown()} {
		for _, part := range []string{ours, before, gozero, kratos, nothing, "resolve_3_allocs", "≤ 25 ns"} {
			if !strings.Contains(text, part) {
				t.Errorf("no %q in:\n%s", part, text)
			}
		}
	}
	if allocs, ok := r.Families[0].Rows[1].figure(ours); !ok || allocs != 0 {
		t.Errorf("Resolve allocates %v times (measured: %v), want 0", allocs, ok)
	}
}

// TestFailed: what could not be measured is in the report, and in the way of nothing else.
func TestFailed(t *testing.T) {
	r := newReport(nil)
	r.add(resolveFamily(3), nil, errors.New("no etcd"))
	text := r.markdown()
	for _, part := range []string{"\n0 of 3 are met.\n", "| resolve_3 | ≤ 25 ns | NOT met: it was not measured |", "## resolve", "FAILED: no etcd"} {
		if !strings.Contains(text, part) {
			t.Errorf("no %q in:\n%s", part, text)
		}
	}
}

// TestRun measures a family the way the command does.
func TestRun(t *testing.T) {
	var stdout, stderr bytes.Buffer
	dir := t.TempDir()
	if err := run(t.Context(), []string{"-quick", "-only", "picker", "-json", "-o", dir}, &stdout, &stderr); err != nil {
		t.Fatalf("%v\n%s", err, &stderr)
	}
	var r report
	if err := json.Unmarshal(stdout.Bytes(), &r); err != nil {
		t.Fatal(err)
	}
	if figure, ok := r.Families[0].Rows[0].figure(ours); !ok || figure <= 0 {
		t.Errorf("GetPicker takes %v ns (measured: %v)", figure, ok)
	}
	if r.Versions["github.com/cloudwego/kitex"] == "" {
		t.Errorf("versions %v do not say which Kitex this is", r.Versions)
	}
	if _, err := os.Stat(filepath.Join(dir, "REPORT.md")); err != nil {
		t.Error(err)
	}
	if err := run(t.Context(), []string{"-only", "nothing"}, &stdout, &stderr); err == nil {
		t.Error("a name that no family has is no error")
	}
}

func TestDrawing(t *testing.T) {
	dir := t.TempDir()
	all := map[string]values{
		ours:   {"times": nil, "trials": {0, 0}, "took": {2e6}},
		before: {"times": {1e9, 3e9}, "trials": {1, 1}, "took": {5e9, 1e9}},
	}
	for _, d := range []drawing{{title: "failures", from: "times", each: "trials"}, {title: "share", from: "took"}} {
		if err := d.draw(dir, all); err != nil {
			t.Fatal(err)
		}
		svg, err := os.ReadFile(filepath.Join(dir, d.file()))
		if err != nil {
			t.Fatal(err)
		}
		for _, part := range []string{"<svg", d.title, ours, before} {
			if !bytes.Contains(svg, []byte(part)) {
				t.Errorf("%s has no %q", d.file(), part)
			}
		}
	}
	got := drawing{each: "trials"}.steps([]float64{1e9, 3e9}, 1e9, 2, 4)
	want := plotter.XYs{{X: 0, Y: 0}, {X: 1, Y: 0}, {X: 1, Y: 0.5}, {X: 3, Y: 0.5}, {X: 3, Y: 1}, {X: 4, Y: 1}}
	if !slices.Equal(got, want) {
		t.Errorf("steps %v, want %v", got, want)
	}
}

func TestVerdict(t *testing.T) {
	rr := reportedRow{Unit: duration, Sides: []result{{Side: ours, Figure: 150}, {Side: nothing, Figure: 100}}}
	for _, c := range []struct {
		target target
		met    bool
		want   string
	}{
		{atMost(150), true, "met: 150 ns"},
		{atMost(100), false, "NOT met: 150 ns is 1.50 × the limit of 100 ns"},
		{atMost(0), false, "NOT met: 150 ns"},
		{timesOf(nothing, 1.5), true, "met: 150 ns"},
		{timesOf(nothing, 1.2), false, "NOT met: 150 ns is 1.25 × the limit of 120 ns"},
		{target{of: nothing, times: 1, plus: 50}, true, "met: 150 ns"},
		{timesOf(before, 1), false, "NOT met"},
	} {
		v := rr.judge(c.target)
		if got := v.describe(duration); v.Met != c.met || !strings.HasPrefix(got, c.want) {
			t.Errorf("%v: %s, want %s", c.target, got, c.want)
		}
	}
}

func TestRowResults(t *testing.T) {
	all := map[string]values{"b": {"x": {5}}, ours: {"x": {4, 1, 3, 2, 100}}, nothing: {"y": {1}}}
	got := row{name: "x"}.results(all)
	if len(got) != 2 {
		t.Fatalf("results %v, want those of two sides", got)
	}
	for _, r := range got {
		if want := (result{ours, 3, 1, 100, 5}); r.Side == ours && r != want {
			t.Errorf("%v, want %v", r, want)
		}
	}
	if p99 := (row{name: "p99", from: "x", quantile: 0.99}).results(all); p99[0].Figure != 100 && p99[1].Figure != 100 {
		t.Errorf("the 99th percentile of five values is the greatest, got %v", p99)
	}
}

func TestPatient(t *testing.T) {
	for _, name := range patient {
		if !slices.ContainsFunc(families, func(f family) bool { return f.name == name }) {
			t.Errorf("there is no family %q", name)
		}
	}
}

// TestFleet: straight lines through 500 and 5,000, and nothing of the crowd between them.
func TestFleet(t *testing.T) {
	rf := reported{Rows: []reportedRow{
		{Name: "fanout_conns", Unit: count, Sides: []result{
			{Side: "direct × 500", Figure: 500}, {Side: "direct × 2000", Figure: 1}, {Side: "direct × 5000", Figure: 5000},
			{Side: "gRPC proxy × 500", Figure: 1}, {Side: "gRPC proxy × 5000", Figure: 1}}},
		{Name: "fanout_memory", Unit: size, Sides: []result{
			{Side: "direct × 500", Figure: 100e6}, {Side: "direct × 5000", Figure: 550e6},
			{Side: "gRPC proxy × 500", Figure: 50e6}, {Side: "gRPC proxy × 5000", Figure: 50e6}}},
	}}
	got := concludeFleet(rf)
	for _, want := range []string{
		"| connections | 500 | 5000 | 1 | 100000 |",
		"| memory | 100 MB | 550 MB | 100 kB | 10.1 GB |", // 550 MB + 95,000 × 100 kB
		"k = 20 proxies",
		"| connections | 1 | 1 | 1 × 19 | 20 |",
		"| memory | 50 MB | 50 MB | 100 kB × 19 | 51.9 MB |",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in:\n%s", want, got)
		}
	}
	rf.Rows = rf.Rows[:1]
	rf.Rows[0].Sides = rf.Rows[0].Sides[:1]
	if got := concludeFleet(rf); got != "" {
		t.Errorf("a line through one point:\n%s", got)
	}
}
