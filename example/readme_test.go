package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The README's programs compile, against the example's generated code.
func TestReadmePrograms(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	programs := regexp.MustCompile("(?s)```go\n(package main\n.*?)```").FindAllSubmatch(readme, -1)
	if len(programs) != 2 {
		t.Fatalf("the README has %d programs, want a server and a client", len(programs))
	}
	for _, program := range programs {
		source := strings.ReplaceAll(string(program[1]), "example.com/greeter/", "github.com/kitex-contrib/kitex-etcd/example/")
		build(t, source)
	}
}

// The README shows what the generator writes.
func TestReadmeGenerated(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"kitex_gen/api/hello/with_etcd.go", "kitex_gen/pb/ticker/with_etcd.go"} {
		generated, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range regexp.MustCompile(`(?m)^(?:const \w+ = ".*"|func .*\))`).FindAllString(string(generated), -1) {
			line = strings.NewReplacer("Ticker", "Hello", "pb.", "api.").Replace(line)
			if !strings.Contains(string(readme), line) {
				t.Errorf("the README lacks %q, which is generated", line)
			}
		}
	}
}

// build builds a program that is overlaid on the example.
func build(t *testing.T, source string) {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "main.go")
	overlay := filepath.Join(dir, "overlay.json")
	virtual, err := filepath.Abs("readme/main.go")
	if err != nil {
		t.Fatal(err)
	}
	replace, err := json.Marshal(map[string]map[string]string{"Replace": {virtual: file}})
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{file: source, overlay: string(replace)} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("go", "build", "-overlay", overlay, "-o", os.DevNull, "./readme").CombinedOutput(); err != nil {
		t.Errorf("a program in the README does not build: %v\n%s\n%s", err, out, source)
	}
}
