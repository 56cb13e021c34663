//go:build linux

package golden

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// BenchmarkStart starts Kitex's tool and ours, to print their versions. B-rss is the most memory that one took, B-binary the size
// of the program, packages how many have to be built for it.
func BenchmarkStart(b *testing.B) {
	for _, tool := range []struct{ name, path, pkg string }{
		{"kitex", tools.kitex, "github.com/cloudwego/kitex/tool/cmd/kitex"},
		{"kitex-etcd-gen", tools.gen, module + "/cmd/kitex-etcd-gen"},
	} {
		b.Run("by="+tool.name, func(b *testing.B) {
			info, err := os.Stat(tool.path)
			if err != nil {
				b.Fatal(err)
			}
			packages, err := exec.Command("go", "list", "-deps", tool.pkg).Output()
			if err != nil {
				b.Fatal(err)
			}
			var rss int64
			for b.Loop() {
				cmd := exec.Command(tool.path, "-version")
				if out, err := cmd.CombinedOutput(); err != nil {
					b.Fatalf("%v\n%s", err, out)
				}
				rss = max(rss, cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss*1024)
			}
			b.ReportMetric(float64(rss), "B-rss")
			b.ReportMetric(float64(info.Size()), "B-binary")
			b.ReportMetric(float64(len(strings.Fields(string(packages)))), "packages")
		})
	}
}
