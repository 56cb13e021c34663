package golden

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/kitex-contrib/kitex-etcd/runtime/etcdtest"
	"github.com/kitex-contrib/kitex-etcd/templates"
)

// TestFreshModule is a user's whole way in a module of its own: generate with both commands as tools of that module, and
// with stock Kitex and the template; the trees are the same, and what is built from them exchanges calls through etcd.
func TestFreshModule(t *testing.T) {
	byCommand := greeter(t)
	goCommand(t, byCommand, "generate")
	goCommand(t, byCommand, "build", "-o", "greeter")

	byTemplate := greeter(t)
	templateDir := filepath.Join(byTemplate, "templates")
	write(t, filepath.Join(templateDir, templates.KitexFileName), []byte(templates.Kitex))
	for _, idl := range []string{"hello.thrift", "chat.proto"} {
		goCommand(t, byTemplate, "tool", "kitex", "-module", "example.com/greeter", "-template-dir", templateDir, idl)
	}
	goCommand(t, byTemplate, "build", "-o", "greeter")

	diffTrees(t, readTree(t, byTemplate, isGo), readTree(t, byCommand, isGo))
	testGreeter(t, byCommand, byTemplate)
	testGreeter(t, byTemplate, byCommand)
	t.Run("vendor", func(t *testing.T) { testVendor(t, byCommand) })
}

// testVendor vendors everything that the module needs, both tools included, and generates and builds again.
func testVendor(t *testing.T, dir string) {
	if testing.Short() {
		t.Skip("compiles Kitex and its tool from the vendor directory, which takes a minute when the build cache is cold")
	}
	want := readTree(t, dir, isGo)
	goCommand(t, dir, "mod", "vendor")
	if err := os.RemoveAll(filepath.Join(dir, "kitex_gen")); err != nil {
		t.Fatal(err)
	}
	// With -trimpath the build cache does not care where the vendor directory lies.
	t.Setenv("GOFLAGS", "-mod=vendor -trimpath")
	goCommand(t, dir, "generate")
	goCommand(t, dir, "build", "-o", "greeter")
	if err := os.RemoveAll(filepath.Join(dir, "vendor")); err != nil {
		t.Fatal(err)
	}
	diffTrees(t, readTree(t, dir, isGo), want)
}

// greeter makes a copy of testdata/greeter, in a module that requires what this one does and this one.
func greeter(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, data := range readTree(t, "testdata/greeter", func(string) bool { return true }) {
		write(t, filepath.Join(dir, name), data)
	}
	repository, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"go.mod", "go.sum"} {
		data, err := os.ReadFile(filepath.Join(repository, name))
		if err != nil {
			t.Fatal(err)
		}
		if name == "go.mod" {
			data = regexp.MustCompile(`(?m)^module .*`).ReplaceAll(data, []byte("module example.com/greeter"))
			data = append(data, "\nrequire "+module+" v0.0.0\nreplace "+module+" => "+repository+"\n"...)
		}
		write(t, filepath.Join(dir, name), data)
	}
	return dir
}

func goCommand(t *testing.T, dir string, args ...string) {
	t.Helper()
	if out, err := command(dir, "go", args...).CombinedOutput(); err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// testGreeter lets the client built in one module call the servers built in the other.
func testGreeter(t *testing.T, clientDir, serverDir string) {
	t.Helper()
	endpoints := etcdtest.Start(t).Endpoints()
	server := exec.Command(filepath.Join(serverDir, "greeter"), append([]string{"serve"}, endpoints...)...)
	stdin, err := server.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	server.Stdout, server.Stderr = io.Discard, &log
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(filepath.Join(clientDir, "greeter"), append([]string{"call"}, endpoints...)...).Output()
	stdin.Close()
	if serveErr := server.Wait(); serveErr != nil {
		t.Errorf("server: %v\n%s", serveErr, log.String())
	}
	if want := "hello thrift\nchat protobuf\n"; err != nil || string(out) != want {
		t.Errorf("client: %v, got %q, want %q; the server said:\n%s", err, out, want, log.String())
	}
}
