package golden

import (
	"bytes"
	"errors"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kitex-contrib/kitex-etcd/templates"
)

const module = "github.com/kitex-contrib/kitex-etcd"

// testCase is a folder of this directory: IDLs, a case.txt, and what Kitex and kitex-etcd-gen make of them.
//
// The first line of case.txt says what the case is about, each other line is one of:
//
//	kitex FLAGS IDL            a call of Kitex; there may be several
//	by Kitex VERSION           there is none: the committed tree was written by an older Kitex, and only our file is ours
//	kitex-etcd-gen FLAGS DIR   the call of our command; without flags and directory when the line is absent
//	at the module's root       run where go.mod is, not in a subdirectory of the module
//	command only: DIR          a service that stock Kitex gives no file, because templates see those of the main IDL only
//	template only: DIR         where stock Kitex puts the file in error
//	refused                    our command refuses, with the message in refused.txt
//	template refused           so does Kitex with our template, with the message in template-refused.txt
//	does not compile: WHY      Kitex's own output does not, for this reason
//
// The tree of a case that is refused or does not compile is not committed.
type testCase struct {
	name            string
	about           string
	kitex           [][]string
	by              string
	gen             []string
	atRoot          bool
	commandOnly     []string
	templateOnly    []string
	uncompilable    string
	refused         bool
	templateRefused bool
}

const (
	refusedFile         = "refused.txt"
	templateRefusedFile = "template-refused.txt"
)

// hasTree reports whether what Kitex and our command write for the case is committed.
func (c testCase) hasTree() bool { return !c.refused && c.uncompilable == "" }

// allCases reads every case of this directory.
func allCases(t testing.TB) []testCase {
	t.Helper()
	files, err := filepath.Glob("*/case.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases found: %v", err)
	}
	var cases []testCase
	for _, file := range files {
		cases = append(cases, readCase(t, filepath.Dir(file)))
	}
	return cases
}

func readCase(t testing.TB, name string) testCase {
	t.Helper()
	c := testCase{name: name}
	for line := range strings.Lines(readFile(t, filepath.Join(name, "case.txt"))) {
		line = strings.TrimSpace(line)
		words := strings.Fields(line)
		switch {
		case line == "":
		case c.about == "":
			c.about = line
		case words[0] == "kitex":
			c.kitex = append(c.kitex, words[1:])
		case strings.HasPrefix(line, "by Kitex "):
			c.by = words[2]
		case words[0] == "kitex-etcd-gen":
			c.gen = words[1:]
		case line == "at the module's root":
			c.atRoot = true
		case strings.HasPrefix(line, "command only: "):
			c.commandOnly = append(c.commandOnly, words[2])
		case strings.HasPrefix(line, "template only: "):
			c.templateOnly = append(c.templateOnly, words[2])
		case line == "refused":
			c.refused = true
		case line == "template refused":
			c.templateRefused = true
		case strings.HasPrefix(line, "does not compile: "):
			c.uncompilable = strings.TrimPrefix(line, "does not compile: ")
		default:
			t.Fatalf("%s/case.txt: not understood: %s", name, line)
		}
	}
	if c.about == "" || (len(c.kitex) == 0) != (c.by != "") {
		t.Fatalf("%s/case.txt: wants a description, and either a kitex line or who wrote the tree", name)
	}
	return c
}

func readFile(t testing.TB, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// copySource copies what the case starts from, IDLs or the tree of an older Kitex, to where the case is in a new module of
// the same path, and returns that directory.
func (c testCase) copySource(t testing.TB) string {
	t.Helper()
	root := t.TempDir()
	dir := filepath.Join(root, "golden", c.name)
	modDir, modPath := root, module
	if c.atRoot {
		modDir, modPath = dir, module+"/golden/"+c.name
	}
	write(t, filepath.Join(modDir, "go.mod"), []byte("module "+modPath+"\n"))
	source := isIDL
	if c.by != "" {
		source = func(name string) bool { return isGo(name) && name != templates.FileName }
	}
	for name, data := range readTree(t, c.name, source) {
		write(t, filepath.Join(dir, name), data)
	}
	return dir
}

// runKitex runs the case's kitex lines in dir, with more flags for those that only generate kitex_gen.
func (c testCase) runKitex(t testing.TB, dir string, flags ...string) (output string, err error) {
	t.Helper()
	for _, args := range c.kitex {
		args = slices.Concat([]string{"-no-dependency-check"}, args)
		if !slices.Contains(args, "-service") {
			args = slices.Concat(flags, args)
		}
		if out, err := command(dir, tools.kitex, args...).CombinedOutput(); err != nil {
			return string(out), err
		}
	}
	return "", nil
}

// runGen runs our command on the case in dir.
func (c testCase) runGen(t testing.TB, dir string, flags ...string) (stdout, stderr string, code int) {
	t.Helper()
	cmd := command(dir, tools.gen, slices.Concat(flags, c.gen)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		exit := (*exec.ExitError)(nil)
		if !errors.As(err, &exit) {
			t.Fatal(err)
		}
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

func command(dir, name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	return cmd
}

// tree maps slash-separated names to contents.
type tree map[string][]byte

func isIDL(name string) bool {
	return strings.HasSuffix(name, ".thrift") || strings.HasSuffix(name, ".proto")
}

func isGo(name string) bool { return strings.HasSuffix(name, ".go") }

func readTree(t testing.TB, dir string, want func(name string) bool) tree {
	t.Helper()
	files := tree{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !want(d.Name()) {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		files[filepath.ToSlash(name)] = data
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// diffTrees reports each file that is not the same in both.
func diffTrees(t testing.TB, got, want tree) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if data, ok := got[name]; !ok {
			t.Errorf("%s is missing", name)
		} else if !bytes.Equal(data, want[name]) {
			t.Errorf("%s differs; got:\n%s\nwant:\n%s", name, data, want[name])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(got)) {
		if _, ok := want[name]; !ok {
			t.Errorf("%s should not be there", name)
		}
	}
}

func write(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
}
