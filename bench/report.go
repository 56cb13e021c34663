package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// report is what a run found. Its exported fields are its JSON.
type report struct {
	Date     string            `json:"date"`
	Command  string            `json:"command"`
	Took     string            `json:"took"`
	Machine  string            `json:"machine"`
	Versions map[string]string `json:"versions"`
	Families []reported        `json:"families"`
}

type reported struct {
	Name   string        `json:"name"`
	About  string        `json:"about"`
	Failed string        `json:"failed,omitempty"` // why there are no figures
	Rows   []reportedRow `json:"rows"`

	values     map[string]values
	plots      []drawing
	conclusion string
}

type reportedRow struct {
	Name    string    `json:"name"`
	What    string    `json:"what"`
	Unit    unit      `json:"unit"`
	Sides   []result  `json:"sides"`
	Targets []verdict `json:"targets,omitempty"`
}

// verdict is a target and what came of it.
type verdict struct {
	Target   string  `json:"target"`
	Limit    float64 `json:"limit"`
	Figure   float64 `json:"figure"`
	Measured bool    `json:"measured"`
	Met      bool    `json:"met"`
}

func newReport(args []string) *report {
	return &report{
		Date:     time.Now().UTC().Format("2006-01-02 15:04 UTC"),
		Command:  strings.Join(append([]string{"go run ."}, args...), " "),
		Machine:  machine(),
		Versions: versions(),
	}
}

func (r *report) add(f family, all map[string]values, failure error) {
	rf := reported{Name: f.name, About: f.about, values: all, plots: f.plots}
	for _, row := range f.rows {
		rr := reportedRow{Name: row.name, What: row.what, Unit: row.unit, Sides: row.results(all)}
		for _, t := range row.targets {
			rr.Targets = append(rr.Targets, rr.judge(t))
		}
		rf.Rows = append(rf.Rows, rr)
	}
	switch {
	case failure != nil:
		rf.Failed = failure.Error() // its targets are not met
	case f.conclude != nil:
		rf.conclusion = f.conclude(rf)
	}
	r.Families = append(r.Families, rf)
}

func (rr reportedRow) figure(side string) (float64, bool) {
	for _, s := range rr.Sides {
		if s.Side == side {
			return s.Figure, true
		}
	}
	return 0, false
}

func (rr reportedRow) judge(t target) verdict {
	v := verdict{Target: "≤ " + rr.Unit.format(t.plus), Limit: t.plus}
	if t.of != "" {
		other, ok := rr.figure(t.of)
		if !ok {
			return verdict{Target: "beside " + t.of + ", which was not measured"}
		}
		v.Limit = t.times*other + t.plus
		v.Target = fmt.Sprintf("≤ %s × %s", trim(t.times), t.of)
		if t.plus > 0 {
			v.Target += " + " + rr.Unit.format(t.plus)
		}
	}
	v.Figure, v.Measured = rr.figure(ours)
	v.Met = v.Measured && v.Figure <= v.Limit
	return v
}

// describe says whether the target was met, or by how much it was not.
func (v verdict) describe(u unit) string {
	switch {
	case !v.Measured:
		return "NOT met: it was not measured"
	case v.Met:
		return fmt.Sprintf("met: %s", u.format(v.Figure))
	case v.Limit == 0:
		return fmt.Sprintf("NOT met: %s", u.format(v.Figure))
	default:
		return fmt.Sprintf("NOT met: %s is %.2f × the limit of %s", u.format(v.Figure), v.Figure/v.Limit, u.format(v.Limit))
	}
}

// print writes the rows and the summary as plain tables.
func (r *report) print(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "row\tside\tfigure\tmin\tmax\tvalues\t× ours")
	for _, f := range r.Families {
		for _, row := range f.Rows {
			for _, s := range row.Sides {
				fmt.Fprintln(tw, strings.Join(row.cells(s), "\t"))
			}
		}
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	for i, line := range r.summary() {
		if i == 0 {
			fmt.Fprintln(tw, "\ntarget\t\t")
		}
		fmt.Fprintln(tw, strings.Join(line, "\t"))
	}
	return tw.Flush()
}

func (rr reportedRow) cells(s result) []string {
	ratio := "–"
	if mine, ok := rr.figure(ours); ok && mine > 0 {
		ratio = trim(s.Figure / mine)
	}
	return []string{
		rr.Name, s.Side, rr.Unit.format(s.Figure), rr.Unit.format(s.Min), rr.Unit.format(s.Max), fmt.Sprint(s.Values), ratio,
	}
}

// summary has one line for each target.
func (r *report) summary() [][]string {
	var lines [][]string
	for _, f := range r.Families {
		for _, row := range f.Rows {
			for _, v := range row.Targets {
				lines = append(lines, []string{row.Name, v.Target, v.describe(row.Unit)})
			}
		}
	}
	return lines
}

// write writes REPORT.md and the plots into dir.
func (r *report) write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, f := range r.Families {
		if f.Failed != "" {
			continue
		}
		for _, d := range f.plots {
			if err := d.draw(dir, f.values); err != nil {
				return err
			}
		}
	}
	return os.WriteFile(filepath.Join(dir, "REPORT.md"), []byte(r.markdown()), 0o644)
}

func (r *report) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Side by side\n\nkitex-etcd, its predecessor and what other frameworks do on etcd, measured by `%s` on %s, in %s. "+
		"Written by that command; do not edit.\n", r.Command, r.Date, r.Took)
	fmt.Fprintf(&b, `
The machine: %s. The sides of a row take turns, so that all meet the same machine; families that mostly wait run beside
each other. A figure is the median of what a side's turns measured, unless its row says otherwise; below it stand the
least and the greatest, and how many times ours it is. Each family runs in a process of its own, beside an etcd in another that writes
to the disk before it answers. All libraries run with their defaults. Look-ups are warm: the first, by which those
that watch begin, is not counted. Absolute times are this machine's: what counts is the ratio.

`, r.Machine)
	b.WriteString("| module | version |\n|---|---|\n")
	for _, m := range compared {
		fmt.Fprintf(&b, "| %s | %s |\n", m, r.Versions[m])
	}
	b.WriteString("\n## Targets\n\n")
	met, all := 0, 0
	for _, f := range r.Families {
		for _, row := range f.Rows {
			for _, v := range row.Targets {
				all++
				if v.Met {
					met++
				}
			}
		}
	}
	fmt.Fprintf(&b, "%d of %d are met.\n\n| row | target | |\n|---|---|---|\n", met, all)
	for _, line := range r.summary() {
		fmt.Fprintf(&b, "| %s |\n", strings.Join(line, " | "))
	}
	for _, f := range r.Families {
		f.markdown(&b)
	}
	return b.String()
}

// markdown has a line for each row and a column for each side.
func (f reported) markdown(b *strings.Builder) {
	fmt.Fprintf(b, "\n## %s\n\n%s.\n\n", f.Name, f.About)
	if f.Failed != "" {
		fmt.Fprintf(b, "It FAILED: %s\n", f.Failed)
		return
	}
	b.WriteString("|")
	var sides []string
	for _, row := range f.Rows {
		for _, s := range row.Sides {
			if !slices.Contains(sides, s.Side) {
				sides = append(sides, s.Side)
			}
		}
	}
	fmt.Fprintf(b, " | %s |\n|---|%s\n", strings.Join(sides, " | "), strings.Repeat("--:|", len(sides)))
	for _, row := range f.Rows {
		fmt.Fprintf(b, "| %s<br>`%s` |", row.What, row.Name)
		for _, side := range sides {
			for _, s := range row.Sides {
				if s.Side == side {
					fmt.Fprintf(b, " %s", strings.Join(row.lines(s), "<br>"))
				}
			}
			b.WriteString(" |")
		}
		b.WriteString("\n")
	}
	for _, d := range f.plots {
		fmt.Fprintf(b, "\n![%s](%s)\n", d.title, filepath.ToSlash(d.file()))
	}
	if f.conclusion != "" {
		fmt.Fprintf(b, "\n%s", f.conclusion)
	}
}

// lines are what a cell of the report says.
func (rr reportedRow) lines(s result) []string {
	lines := []string{rr.Unit.format(s.Figure)}
	if s.Min != s.Max {
		lines = append(lines, rr.Unit.format(s.Min)+" – "+rr.Unit.format(s.Max))
	}
	if mine, ok := rr.figure(ours); ok && mine > 0 && s.Side != ours {
		lines = append(lines, "× "+trim(s.Figure/mine))
	}
	return lines
}

// compared are the modules whose versions decide the figures.
var compared = []string{
	"github.com/cloudwego/kitex",
	"go.etcd.io/etcd/server/v3",
	"go.etcd.io/etcd/client/v3",
	"github.com/kitex-contrib/registry-etcd",
	"github.com/zeromicro/go-zero",
	"github.com/go-kratos/kratos/contrib/registry/etcd/v2",
	"google.golang.org/grpc",
	"github.com/bytedance/sonic",
}

func versions() map[string]string {
	found := make(map[string]string)
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			for _, name := range compared {
				if m.Path == name {
					found[name] = m.Version
				}
			}
		}
	}
	return found
}

func machine() string {
	cpu := "unknown processor"
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(info)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				cpu = strings.TrimSpace(value)
				break
			}
		}
	}
	return fmt.Sprintf("%s, %d cores, %s/%s, %s", cpu, runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, runtime.Version())
}
