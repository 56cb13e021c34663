package etcd

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/kitex-contrib/kitex-etcd/"

// walls says which packages of this module each of them may import, tests apart. docs/architecture.md draws it.
var walls = map[string][]string{
	"runtime/internal/record":       {},
	"runtime/internal/roster":       {"runtime/internal/record"},
	"runtime/internal/link":         {},
	"runtime/internal/registration": {"runtime/internal/link", "runtime/internal/record", "runtime/retry"},
	"runtime/internal/snapshot":     {"runtime/internal/record"},
	"runtime/internal/discovery": {
		"runtime/internal/link", "runtime/internal/record", "runtime/internal/roster", "runtime/internal/snapshot",
	},
	"runtime/internal/health":  {},
	"runtime/internal/picking": {"runtime/internal/discovery", "runtime/internal/health", "runtime/internal/roster"},
	"runtime/retry":            {},
	"runtime": {
		"runtime/internal/discovery", "runtime/internal/link", "runtime/internal/picking", "runtime/internal/record",
		"runtime/internal/registration", "runtime/internal/snapshot", "runtime/retry",
	},
	"runtime/etcdprom":            {"runtime"},
	"runtime/etcdready":           {"runtime"},
	"runtime/etcdtest":            {},
	"runtime/internal/faultproxy": {},
	"templates":                   {},
}

// apart are the packages that have neither the etcd client nor Kitex's client or server anywhere beneath them: those that are
// pure, and snapshot, which knows files alone.
var apart = []string{"runtime/internal/health", "runtime/internal/record", "runtime/internal/roster", "runtime/internal/snapshot"}

func goList(t *testing.T, args ...string) []string {
	t.Helper()
	out, err := exec.Command("go", append([]string{"list"}, args...)...).Output()
	if err != nil {
		t.Fatalf("go list %q: %v", args, err)
	}
	return strings.Fields(string(out))
}

// TestWalls: the packages of the runtime import what is beneath them, and nothing else of this module.
func TestWalls(t *testing.T) {
	for _, pkg := range goList(t, module+"runtime/...", module+"templates") {
		room := strings.TrimPrefix(pkg, module)
		allowed, known := walls[room]
		if !known {
			if len(goList(t, "-f", "{{join .GoFiles \" \"}}", pkg)) > 0 {
				t.Errorf("%s is in no plan: say here what it may import", room)
			}
			continue // tests alone
		}
		for _, imported := range goList(t, "-f", `{{join .Imports "\n"}}`, pkg) {
			if in, ours := strings.CutPrefix(imported, module); ours && !slices.Contains(allowed, in) {
				t.Errorf("%s imports %s, which is not beneath it", room, in)
			}
		}
	}
	for _, room := range apart {
		for _, dep := range goList(t, "-deps", module+room) {
			switch {
			case strings.HasPrefix(dep, "go.etcd.io/etcd/client"), dep == "google.golang.org/grpc",
				dep == "github.com/cloudwego/kitex/client", dep == "github.com/cloudwego/kitex/server":
				t.Errorf("%s has %s beneath it", room, dep)
			}
		}
	}
}
