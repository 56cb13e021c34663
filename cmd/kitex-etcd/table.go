package main

import (
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"golang.org/x/term"
	"golang.org/x/text/width"
)

// table prints rows of columns whose widths are known before the first row. The last column is cut to the terminal.
type table struct {
	out    io.Writer
	titles []string
	widths []int
	limit  int  // columns of the terminal; 0: no limit
	color  bool // a terminal that takes colours
}

// newTable fits the columns to the titles and to the cells of all rows; what is nil there has to be counted by the caller.
func newTable(out io.Writer, cut bool, titles ...string) *table {
	t := &table{out: out, titles: titles, widths: make([]int, len(titles))}
	t.fit(titles...)
	if f, ok := out.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		if w, _, err := term.GetSize(int(f.Fd())); err == nil && cut {
			t.limit = w
		}
		t.color = os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	}
	return t
}

func (t *table) fit(cells ...string) {
	for i, cell := range cells {
		t.widths[i] = max(t.widths[i], cellWidth(cell))
	}
}

func (t *table) header() error { return t.row("", t.titles...) }

// row prints one row, in colour where that is not empty and the terminal takes it.
func (t *table) row(color string, cells ...string) error {
	var b strings.Builder
	for i, cell := range cells {
		b.WriteString(cell)
		if i < len(cells)-1 {
			b.WriteString(strings.Repeat(" ", max(t.widths[i]-cellWidth(cell), 0)+2))
		}
	}
	line := strings.TrimRight(b.String(), " ")
	if t.limit > 0 {
		line = cutTo(line, t.limit)
	}
	if color != "" && t.color {
		line = color + line + "\x1b[0m"
	}
	_, err := fmt.Fprintln(t.out, line)
	return err
}

// Colours of a terminal.
const (
	red = "\x1b[31m"
	dim = "\x1b[2m"
)

// cutTo cuts s to n columns, with an ellipsis where something is gone.
func cutTo(s string, n int) string {
	if cellWidth(s) <= n {
		return s
	}
	used := 0
	for i, r := range s {
		if used += runeWidth(r); used > n-1 {
			return s[:i] + "…"
		}
	}
	return s
}

// cellWidth is how many columns of a terminal s takes.
func cellWidth(s string) (n int) {
	for _, r := range s {
		n += runeWidth(r)
	}
	return n
}

func runeWidth(r rune) int {
	switch k := width.LookupRune(r).Kind(); {
	case k == width.EastAsianWide || k == width.EastAsianFullwidth:
		return 2
	case unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf):
		return 0
	}
	return 1
}

// tags prints tags in the order of their names.
func tags(m map[string]string) string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(m)) {
		all = append(all, printable(name)+"="+printable(m[name]))
	}
	return strings.Join(all, ",")
}

// printable quotes what would disturb the terminal or the columns: anybody may have written it.
func printable(s string) string {
	if s == "" || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) || r == ' ' || r == ',' || r == '=' || r == '"' }) {
		return strconv.Quote(s)
	}
	return s
}

// sentence quotes no more of s than what would disturb the terminal.
func sentence(s string) string {
	if strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return strconv.Quote(s)
	}
	return s
}

// age prints how long ago that was, roughly: 45s, 12m, 3h, 5d.
func age(since, now time.Time) string {
	if since.IsZero() {
		return "-"
	}
	switch d := max(now.Sub(since), 0); {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	default:
		return fmt.Sprintf("%dd", int(d.Hours()/24))
	}
}

// duration prints d in whole seconds and without parts that are 0: 90s is 1m30s, 3600s is 1h.
func duration(d time.Duration) string {
	s := d.Round(time.Second).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
