package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const troubleshooting = "../docs/troubleshooting.md"

// The errors and log lines that the pages on troubleshooting and on the generator quote are those of the code, and the first has every
// cause that the code knows.
func TestTroubleshooting(t *testing.T) {
	t.Parallel()
	texts := strings.Join(literals(t), "\n")
	page := read(t, troubleshooting)
	found := 0
	_, refusals, _ := strings.Cut(read(t, "../docs/generator.md"), "### What it refuses")
	refusals = strings.NewReplacer(`"Hello"`, "…", "NewClient is", "… is", "NewServer is", "… is").Replace(refusals) // what is put into the texts
	for _, m := range regexp.MustCompile(`(?m)^\| (.*?) \| .* \| .* \|$`).FindAllStringSubmatch(page+refusals, -1) {
		if strings.Contains(m[1], "(from ") { // Go's, the compiler's or Kitex's
			continue
		}
		for _, quoted := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(m[1], -1) {
			var parts []string
			for part := range strings.SplitSeq(quoted[1], "…") {
				parts = append(parts, regexp.QuoteMeta(part))
			}
			found++
			if !regexp.MustCompile(strings.Join(parts, ".*")).MatchString(texts) && quoted[1] != "none" {
				t.Errorf("no text of the code is like %q", quoted[1])
			}
		}
	}
	if found < 75 {
		t.Errorf("%d texts were found", found)
	}

	causes := regexp.MustCompile(`(?m)^\t\{"(.*?)", "(.*?)",`).FindAllStringSubmatch(read(t, "../runtime/internal/link/cause.go"), -1)
	if len(causes) < 30 {
		t.Errorf("%d causes were found", len(causes))
	}
	for _, m := range causes {
		says := m[1]
		if m[2] != "" {
			says, _, _ = strings.Cut(m[2], ",")
		}
		if !strings.Contains(page, says) && !slices.Contains([]string{"deadline exceeded", "context canceled"}, m[1]) {
			t.Errorf("the page lacks the cause %q", says)
		}
	}
}

// literals returns the strings in the source of the runtime and of the commands; what is put into them at run time is "%v" and its like.
func literals(t *testing.T) (list []string) {
	t.Helper()
	for _, root := range []string{"../runtime", "../cmd"} {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
			if err != nil {
				return err
			}
			ast.Inspect(file, func(n ast.Node) bool {
				e, ok := n.(ast.Expr)
				if !ok {
					return true
				}
				text := literal(e)
				if text != "" {
					list = append(list, text)
				}
				return text == ""
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return list
}

// literal is the value of a string, or of several that are added; what is no literal among them is "%v".
func literal(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.BasicLit:
		if e.Kind == token.STRING {
			text, _ := strconv.Unquote(e.Value)
			return text
		}
	case *ast.BinaryExpr:
		x, y := literal(e.X), literal(e.Y)
		if e.Op == token.ADD && x+y != "" {
			if x == "" {
				x = "%v"
			}
			if y == "" {
				y = "%v"
			}
			return x + y
		}
	}
	return ""
}
