// Package golden runs Kitex and kitex-etcd-gen on every kind of IDL and compares what they write with what is committed.
//
//	go test ./golden             compare
//	go test ./golden -update     run Kitex and kitex-etcd-gen again; what does not build is refused
package golden

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"flag"
	"fmt"
	"go/format"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
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
	if endpoints := os.Getenv(serveEnv); endpoints != "" {
		if err := serveKinds(strings.Split(endpoints, ",")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
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
	find := exec.Command("go", "tool", "-n", "kitex")
	find.Stderr = os.Stderr // where go tells what it downloads
	out, err := find.Output()
	if err != nil {
		return fmt.Errorf("go tool -n kitex: %w", err)
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
			dir := c.copySource(t)
			if out, err := c.runKitex(t, dir); err != nil {
				t.Fatalf("kitex: %v\n%s", err, out)
			}
			if c.refused {
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
			if c.hasTree() {
				got := readTree(t, dir, isGo)
				if *update {
					updateTree(t, c, got)
				}
				diffTrees(t, got, readTree(t, c.name, isGo))
			}
		})
	}
}

// testRefusal runs our command on a tree that it has to refuse, without touching it.
func testRefusal(t *testing.T, c testCase, dir string) {
	all := func(string) bool { return true }
	before := readTree(t, dir, all)
	_, stderr, code := c.runGen(t, dir)
	if code != 2 {
		t.Errorf("exit code %d, want 2", code)
	}
	compareFile(t, filepath.Join(c.name, refusedFile), stderr)
	diffTrees(t, readTree(t, dir, all), before)
}

// compareFile compares a message with the committed one, or commits it with -update.
func compareFile(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		write(t, path, []byte(got))
	}
	if want := readFile(t, path); got != want {
		t.Errorf("got:\n%swant (%s):\n%s", got, path, want)
	}
}

// TestTemplate generates each case with stock Kitex and our template, and nothing else.
func TestTemplate(t *testing.T) {
	templateDir := t.TempDir()
	write(t, filepath.Join(templateDir, templates.KitexFileName), []byte(templates.Kitex))
	for _, c := range allCases(t) {
		if c.by != "" {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := c.copySource(t)
			out, err := c.runKitex(t, dir, "-template-dir", templateDir)
			if c.templateRefused {
				if err == nil {
					t.Error("kitex succeeded")
				}
				_, message, _ := strings.Cut(out, "[ERROR]") // what comes before are paths and progress
				compareFile(t, filepath.Join(c.name, templateRefusedFile), message)
				return
			}
			if err != nil {
				t.Fatalf("kitex: %v\n%s", err, out)
			}
			if !c.hasTree() {
				return
			}
			got, want := readTree(t, dir, isGo), readTree(t, c.name, isGo)
			removeFiles(t, want, c.commandOnly)
			removeFiles(t, got, c.templateOnly)
			diffTrees(t, got, want)
		})
	}
}

// removeFiles takes the generated file of each service out of files.
func removeFiles(t *testing.T, files tree, services []string) {
	t.Helper()
	for _, service := range services {
		name := service + "/" + templates.FileName
		if _, ok := files[name]; !ok {
			t.Errorf("%s was not written", name)
		}
		delete(files, name)
	}
}

// TestTemplateRefusesUse: with -use there is no kitex_gen to write to.
func TestTemplateRefusesUse(t *testing.T) {
	templateDir := t.TempDir()
	write(t, filepath.Join(templateDir, templates.KitexFileName), []byte(templates.Kitex))
	c := readCase(t, "thrift_unary")
	dir := c.copySource(t)
	out, err := c.runKitex(t, dir, "-template-dir", templateDir, "-use", "example.com/elsewhere/kitex_gen")
	if want := "with -use the constructors belong where kitex_gen is"; err == nil || !strings.Contains(out, want) {
		t.Errorf("kitex: %v, output:\n%swant: %s", err, out, want)
	}
}

// TestCompiles builds every committed tree, and the packages that "..." leaves out for their names.
func TestCompiles(t *testing.T) {
	const skipped = "./thrift_name_skipped/kitex_gen/"
	packages := []string{"./...", skipped + "api/vendor", skipped + "api/testdata", skipped + "testdata/hello"}
	if out, err := exec.Command("go", append([]string{"build"}, packages...)...).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestFirstRelease keeps first_release as the first release generated it. It has no case.txt, nothing generates it again: a
// service repository that upgrades the runtime alone has to go on compiling, as TestCompiles shows, without generating again.
func TestFirstRelease(t *testing.T) {
	const (
		file = "first_release/kitex_gen/api/chat/with_etcd.go"
		want = "d5805c00480120d8642e5e89282a0b9c30e097d86ec6e9d8ebd29fc3f8b89114"
	)
	if got := fmt.Sprintf("%x", sha256.Sum256([]byte(readFile(t, file)))); got != want {
		t.Errorf("%s was changed: restore it; its SHA-256 is %s, want %s", file, got, want)
	}
}

// TestStreamXNeedsNoStreamClient: what Kitex's StreamX makes does not stand on package streamclient, which Kitex is to drop, and
// neither does what we add to it.
func TestStreamXNeedsNoStreamClient(t *testing.T) {
	found := 0
	for _, c := range allCases(t) {
		if !c.hasTree() || !slices.ContainsFunc(c.kitex, func(args []string) bool { return slices.Contains(args, "-streamx") }) {
			continue
		}
		for name, source := range readTree(t, c.name, isGo) {
			found++
			if bytes.Contains(source, []byte(`"github.com/cloudwego/kitex/client/streamclient"`)) {
				t.Errorf("%s/%s imports streamclient", c.name, name)
			}
		}
	}
	if found == 0 {
		t.Error("no case has -streamx")
	}
}

// TestFormatted wants our files to be as gofmt leaves them.
func TestFormatted(t *testing.T) {
	for name, source := range readTree(t, ".", func(name string) bool { return name == templates.FileName }) {
		if formatted, err := format.Source(source); err != nil || !bytes.Equal(formatted, source) {
			t.Errorf("%s is not formatted (%v)", name, err)
		}
	}
}

// TestUncommitted builds what Kitex alone writes for the cases without a committed tree: those that are said to compile
// do, and the others do not.
func TestUncommitted(t *testing.T) {
	for _, c := range allCases(t) {
		if c.hasTree() {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := c.copySource(t)
			if out, err := c.runKitex(t, dir); err != nil {
				t.Fatalf("kitex: %v\n%s", err, out)
			}
			out, err := buildOverlaid(t, c, dir)
			if (err != nil) != (c.uncompilable != "") {
				t.Errorf("go build: %v\n%swant: %q", err, out, c.uncompilable)
			}
		})
	}
}

// TestHandshake builds against a runtime that is too old for the generated code: what the compiler complains of is the line
// whose comment says what to do.
func TestHandshake(t *testing.T) {
	const constant = "SupportsGenerated1"
	source := readFile(t, "../runtime/generated.go")
	old := strings.ReplaceAll(source, "const "+constant, "const SupportsGenerated0")
	if old == source {
		t.Fatalf("the runtime does not declare %s where this test looks for it", constant)
	}
	file := filepath.Join(t.TempDir(), "generated.go")
	write(t, file, []byte(old))
	out, err := build(t, map[string]string{"../runtime/generated.go": file}, "./first_release/...")
	if err == nil || !strings.Contains(string(out), templates.FileName) || !strings.Contains(string(out), "undefined: etcd."+constant) {
		t.Errorf("go build: %v\n%s", err, out)
	}
}

// buildOverlaid builds the packages below dir as if they were in the case's folder, with this module's dependencies.
func buildOverlaid(t *testing.T, c testCase, dir string) (output []byte, err error) {
	t.Helper()
	replace := make(map[string]string)
	for name := range readTree(t, dir, isGo) {
		replace[filepath.Join(c.name, name)] = filepath.Join(dir, name)
	}
	return build(t, replace, "./"+c.name+"/...")
}

// build runs go build with the files that replace names, by relative path, in the place of others.
func build(t *testing.T, replace map[string]string, packages string) (output []byte, err error) {
	t.Helper()
	overlay := struct{ Replace map[string]string }{make(map[string]string)}
	for name, by := range replace {
		abs, err := filepath.Abs(name)
		if err != nil {
			t.Fatal(err)
		}
		overlay.Replace[abs] = by
	}
	data, err := json.Marshal(overlay)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "overlay.json")
	write(t, file, data)
	return exec.Command("go", "build", "-overlay", file, packages).CombinedOutput()
}

// updateTree replaces the committed tree, unless the new one does not build.
func updateTree(t *testing.T, c testCase, next tree) {
	t.Helper()
	old := readTree(t, c.name, isGo)
	replaceTree(t, c.name, old, next)
	if out, err := exec.Command("go", "build", "./"+c.name+"/...").CombinedOutput(); err != nil {
		replaceTree(t, c.name, next, old)
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
