package main

import (
	"bytes"
	"flag"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"
)

var update = flag.Bool("update", false, "rewrite the expected messages in testdata")

// TestRefusals runs every archive in testdata: a comment, the command line, the files it finds, and what it answers on
// stderr. A refusal exits with 2 and leaves the files as they were.
func TestRefusals(t *testing.T) {
	archives, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(archives) == 0 {
		t.Fatalf("no archives found: %v", err)
	}
	for _, name := range archives {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(name)
			if err != nil {
				t.Fatal(err)
			}
			last := len(archive.Files) - 1
			if archive.Files[last].Name != "stderr" {
				t.Fatal("the last file of the archive is not stderr")
			}
			lines := strings.Split(strings.TrimSpace(string(archive.Comment)), "\n")
			args := strings.Fields(lines[len(lines)-1])[1:]
			files := map[string]string{}
			for _, f := range archive.Files[:last] {
				files[f.Name] = string(f.Data)
			}

			writeFiles(t, files)
			stdout, stderr, code := call(args...)
			if *update {
				archive.Files[last].Data = []byte(stderr)
				if err := os.WriteFile(filepath.Join(testdata, filepath.Base(name)), txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if want := string(archive.Files[last].Data); code != exitFail || stdout != "" || stderr != want || want == "" {
				t.Errorf("exit code %d, stdout %q, stderr:\n%s\nwant exit code 2 and stderr:\n%s", code, stdout, stderr, want)
			}
			if got := readFiles(t); !maps.Equal(got, files) {
				t.Errorf("the files changed: got %q, want %q", got, files)
			}
		})
	}
}

// testdata outlives the tests' changes of the working directory.
var testdata, _ = filepath.Abs("testdata")

// call runs the command in the working directory.
func call(args ...string) (stdout, stderr string, code int) {
	var out, errs bytes.Buffer
	code = run(args, strings.NewReader(""), &out, &errs)
	return out.String(), errs.String(), code
}

// writeFiles makes a new working directory with the given files.
func writeFiles(t *testing.T, files map[string]string) {
	t.Helper()
	t.Chdir(t.TempDir())
	for name, data := range files {
		writeFile(t, name, data)
	}
}

func writeFile(t *testing.T, name, data string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(data), 0o644); err != nil {
		t.Fatal(err)
	}
}

// readFiles returns what is in the working directory.
func readFiles(t *testing.T) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(".", func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		files[filepath.ToSlash(path)] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}
