package golden

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/kitex-contrib/kitex-etcd/templates"
)

const hundred = 100

// BenchmarkServices generates 100 services, each in an IDL of its own: Kitex first, then our command on a tree without our
// files and on one that needs nothing. cpu-ms/op is processor time, of which by=start is what starting a process costs.
func BenchmarkServices(b *testing.B) {
	dir := b.TempDir()
	write(b, filepath.Join(dir, "go.mod"), []byte("module example.com/hundred\n"))
	for i := range hundred {
		write(b, filepath.Join(dir, fmt.Sprintf("s%d.thrift", i)), fmt.Appendf(nil, `namespace go ns%[1]d
struct Request { 1: string message, 2: i64 id, 3: list<string> tags, 4: map<string, string> attributes }
struct Response { 1: string message, 2: i32 code }
service Service%[1]d {
    Response create(1: Request req)
    Response read(1: Request req)
    Response update(1: Request req)
    Response remove(1: Request req)
}
`, i))
	}
	b.Run("by=kitex", func(b *testing.B) {
		for b.Loop() {
			cpu := time.Duration(0)
			for i := range hundred {
				cpu += run(b, dir, tools.kitex, "-no-dependency-check", fmt.Sprintf("s%d.thrift", i))
			}
			b.ReportMetric(float64(cpu.Milliseconds()), "cpu-ms/op")
		}
	})
	ours := func(b *testing.B, prepare func(), args ...string) {
		cpu := time.Duration(0)
		for b.Loop() {
			b.StopTimer()
			prepare()
			b.StartTimer()
			cpu += run(b, dir, tools.gen, args...)
		}
		b.ReportMetric(float64(cpu.Milliseconds())/float64(b.N), "cpu-ms/op")
	}
	b.Run("by=kitex-etcd-gen/tree=new", func(b *testing.B) {
		ours(b, func() { removeGenerated(b, dir) })
	})
	b.Run("by=kitex-etcd-gen/tree=unchanged", func(b *testing.B) {
		ours(b, func() {})
	})
	b.Run("by=start", func(b *testing.B) {
		ours(b, func() {}, "-version")
	})
}

// run returns the processor time that the command took.
func run(b *testing.B, dir, name string, args ...string) time.Duration {
	b.Helper()
	cmd := command(dir, name, args...)
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	return cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
}

func removeGenerated(b *testing.B, dir string) {
	b.Helper()
	for name := range readTree(b, dir, func(name string) bool { return name == templates.FileName }) {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			b.Fatal(err)
		}
	}
}
