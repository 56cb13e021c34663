package main

import (
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// FuzzSource mutates what Kitex wrote, each file on its own and beside one that is as Kitex writes it.
func FuzzSource(f *testing.F) {
	for _, pattern := range []string{"thrift_unary", "thrift_streamx", "thrift_combined", "protobuf_streaming", "kitex_v0_9_1"} {
		files, err := filepath.Glob("../../golden/" + pattern + "/kitex_gen/*/*/*.go")
		if err != nil || len(files) == 0 {
			f.Fatalf("no sources found: %v", err)
		}
		for _, name := range files {
			source, err := os.ReadFile(name)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(source)
		}
	}
	whole := []byte(kitexPackageOf("api", "Hello"))
	f.Add(whole)
	f.Fuzz(func(t *testing.T, source []byte) {
		for _, sources := range []map[string][]byte{{"kitex.go": source}, {"kitex.go": source, "whole.go": whole}} {
			p := &kitexPackage{directory: &directory{path: "kitex_gen/api/hello", holder: "api", holderAbs: "/kitex_gen/api"}}
			if err := p.parse(sources); err != nil {
				continue
			}
			packages := []*kitexPackage{p}
			if err := setNames(packages, nil); err != nil {
				t.Fatal(err)
			}
			changes, err := render(packages)
			if err != nil {
				continue
			}
			for _, c := range changes {
				if _, err := parser.ParseFile(token.NewFileSet(), c.path, c.content, 0); err != nil {
					t.Errorf("rendered what does not parse: %v\n%s", err, c.content)
				}
			}
		}
	})
}

// FuzzNames puts odd names where Kitex writes names.
func FuzzNames(f *testing.F) {
	f.Add("Hello", "hello", "api", "example.com/shop/kitex_gen/api", "Hello", "Hello=greeting")
	f.Add("CombineService", "combineservice", "", "", "CombineService", "kitex_gen.CombineService=x")
	f.Add("Hello_", "hello_", "etcd", "x/etcd", `quote " slash \ `, "=")
	f.Add("Å", "å", "client0", "`", "\x00", "Hello=\xff")
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, service, pkg, alias, importPath, rawName, flag string) {
		source := kitexPackageOf("api", "Hello")
		if alias == "" {
			source = strings.Replace(source, "handler api.Hello", "handler "+service, 1)
		}
		source = strings.NewReplacer(
			"package hello", "package "+pkg, `api "example.com/shop/kitex_gen/api"`, alias+` "`+importPath+`"`,
			"api.Hello", alias+"."+service, `"Hello"`, `"`+rawName+`"`).Replace(source)
		fuzzTree(t, dir, map[string]string{"hello/kitex.go": source}, "-name", flag)
		fuzzTree(t, dir, map[string]string{"hello/kitex.go": source})
	})
}

// fuzzTree runs the command on the files. It either fails and writes nothing, or writes files that parse and that a
// second run leaves alone.
func fuzzTree(t *testing.T, dir string, files map[string]string, flags ...string) {
	t.Helper()
	if err := os.RemoveAll(filepath.Join(dir, "tree")); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	for name, data := range files {
		writeFile(t, filepath.Join("tree", name), data)
	}
	before := readFiles(t)
	args := append(flags, "tree")
	stdout, stderr, code := call(args...)
	after := readFiles(t)
	switch {
	case code == exitDone && stderr == "" && stdout == "":
		if _, again, code := call(append([]string{"-check"}, args...)...); code != exitDone {
			t.Errorf("-check after a run: exit code %d, %s", code, again)
		}
		for name, data := range after {
			if before[name] == data {
				continue
			}
			if filepath.Base(name) != "with_etcd.go" {
				t.Errorf("%s was written", name)
			}
			if _, err := parser.ParseFile(token.NewFileSet(), name, data, 0); err != nil {
				t.Errorf("does not parse: %v\n%s", err, data)
			}
		}
	case code == exitFail && stderr != "" && stdout == "":
		if !maps.Equal(before, after) {
			t.Errorf("a call that failed wrote: %v", after)
		}
	default:
		t.Errorf("exit code %d, stdout %q, stderr %q", code, stdout, stderr)
	}
}
