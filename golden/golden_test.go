// Package golden runs Kitex and kitex-etcd-gen on every kind of IDL and compares what they write with what is committed.
//
//	go test ./golden             compare
//	go test ./golden -update     run Kitex and kitex-etcd-gen again; what does not build is refused
package golden

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kitex-contrib/kitex-etcd/templates"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// tools are the programs under test, built once.
var tools struct {
	kitex string // the Kitex command of go.mod's tool directive
	gen   string // kitex-etcd-gen
}

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "kitex-etcd-golden")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		if err := buildTools(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return m.Run()
	}())
}

func buildTools(dir string) error {
	out, err := exec.Command("go", "tool", "-n", "kitex").CombinedOutput()
	if err != nil {
		return fmt.Errorf("go tool -n kitex: %w\n%s", err, out)
	}
	tools.kitex = strings.TrimSpace(string(out))
	tools.gen = filepath.Join(dir, "kitex-etcd-gen")
	if out, err := exec.Command("go", "build", "-o", tools.gen, module+"/cmd/kitex-etcd-gen").CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	return nil
}

// TestCommand generates each case with Kitex and kitex-etcd-gen.
func TestCommand(t *testing.T) {
	for _, c := range allCases(t) {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := c.copyIDL(t)
			if out, err := c.runKitex(t, dir); err != nil {
				t.Fatalf("kitex: %v\n%s", err, out)
			}
			if c.refused != "" || *update && c.uncompilable != "" {
				testRefusal(t, c, dir)
				return
			}
			if stdout, stderr, code := c.runGen(t, dir, "-check"); code != 1 || stderr != "" || !strings.Contains(stdout, "missing ") {
				t.Errorf("-check before: exit code %d, stdout %q, stderr %q", code, stdout, stderr)
			}
			if stdout, stderr, code := c.runGen(t, dir); code != 0 || stdout+stderr != "" {
				t.Fatalf("kitex-etcd-gen: exit code %d, stdout %q, stderr %q", code, stdout, stderr)
			}
			if stdout, stderr, code := c.runGen(t, dir, "-check"); code != 0 || stdout+stderr != "" {
				t.Errorf("-check after: exit code %d, stdout %q, stderr %q", code, stdout, stderr)
			}
			got := readTree(t, dir, isGo)
			if c.uncompilable != "" {
				return
			}
			if *update {
				updateTree(t, c, got)
			}
			diffTrees(t, got, readTree(t, c.dir(), isGo))
		})
	}
}

// testRefusal runs our command on a tree that it has to refuse, without touching it.
func testRefusal(t *testing.T, c testCase, dir string) {
	before := readTree(t, dir, func(string) bool { return true })
	_, stderr, code := c.runGen(t, dir)
	if *update && code == 2 {
		write(t, filepath.Join(c.dir(), "refused.txt"), []byte(stderr))
		c.refused = stderr
	}
	if c.refused != "" && (code != 2 || stderr != c.refused) {
		t.Errorf("exit code %d, stderr:\n%swant exit code 2, stderr:\n%s", code, stderr, c.refused)
	}
	if code == 2 {
		diffTrees(t, readTree(t, dir, func(string) bool { return true }), before)
	}
}

// TestTemplate generates each case with stock Kitex and our template, and nothing else.
func TestTemplate(t *testing.T) {
	templateDir := t.TempDir()
	write(t, filepath.Join(templateDir, templates.KitexFileName), []byte(templates.Kitex))
	for _, c := range allCases(t) {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := c.copyIDL(t)
			out, err := c.runKitex(t, dir, "-template-dir", templateDir)
			if err != nil && *update {
				write(t, filepath.Join(c.dir(), "template-refused.txt"), []byte(out))
				c.templateRefused = out
			}
			if c.templateRefused != "" {
				if err == nil || out != c.templateRefused {
					t.Errorf("kitex: %v, output:\n%swant:\n%s", err, out, c.templateRefused)
				}
				return
			}
			if err != nil {
				t.Fatalf("kitex: %v\n%s", err, out)
			}
			if c.uncompilable != "" || c.refused != "" {
				return // there is no tree to compare with
			}
			want := readTree(t, c.dir(), isGo)
			for _, service := range c.commandOnly {
				name := service + "/" + templates.FileName
				if _, ok := want[name]; !ok {
					t.Errorf("the command wrote no %s", name)
				}
				delete(want, name)
			}
			diffTrees(t, readTree(t, dir, isGo), want)
		})
	}
}

// TestCompiles builds every committed tree.
func TestCompiles(t *testing.T) {
	if out, err := exec.Command("go", "build", "./...").CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// updateTree replaces the committed tree, unless the new one does not build.
func updateTree(t *testing.T, c testCase, next tree) {
	t.Helper()
	old := readTree(t, c.dir(), isGo)
	replaceTree(t, c.dir(), old, next)
	if out, err := exec.Command("go", "build", "./"+c.dir()+"/...").CombinedOutput(); err != nil {
		replaceTree(t, c.dir(), next, old)
		t.Fatalf("not updated, it does not build: %v\n%s", err, out)
	}
}

func replaceTree(t *testing.T, dir string, old, next tree) {
	t.Helper()
	for name := range old {
		if _, ok := next[name]; !ok {
			if err := os.Remove(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, data := range next {
		write(t, filepath.Join(dir, name), data)
	}
}
