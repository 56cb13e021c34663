package golden

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/kitex-contrib/kitex-etcd/templates"
)

// BenchmarkServices generates 100 services, in as many IDLs or in one: Kitex first, then our command on a tree without our
// files and on one that needs nothing. cpu-ms/op is processor time, of which by=start is what starting a process costs.
func BenchmarkServices(b *testing.B) {
	for _, idls := range []int{100, 1} {
		dir := b.TempDir()
		write(b, filepath.Join(dir, "go.mod"), []byte("module example.com/hundred\n"))
		for i := range idls {
			idl := fmt.Appendf(nil, `namespace go ns%d
struct Request { 1: string message, 2: i64 id, 3: list<string> tags, 4: map<string, string> attributes }
struct Response { 1: string message, 2: i32 code }
`, i)
			for j := range 100 / idls {
				idl = fmt.Appendf(idl, `service Service%d_%d {
    Response create(1: Request req)
    Response read(1: Request req)
    Response update(1: Request req)
    Response remove(1: Request req)
}
`, i, j)
			}
			write(b, filepath.Join(dir, fmt.Sprintf("s%d.thrift", i)), idl)
		}
		measure := func(prepare func(), run func(*testing.B) time.Duration) func(*testing.B) {
			return func(b *testing.B) {
				cpu := time.Duration(0)
				for b.Loop() {
					b.StopTimer()
					prepare()
					b.StartTimer()
					cpu += run(b)
				}
				b.ReportMetric(float64(cpu.Microseconds())/1000/float64(b.N), "cpu-ms/op")
			}
		}
		nothing := func() {}
		kitex := func(b *testing.B) (cpu time.Duration) {
			for i := range idls {
				cpu += run(b, dir, tools.kitex, "-no-dependency-check", fmt.Sprintf("s%d.thrift", i))
			}
			return cpu
		}
		ours := func(args ...string) func(*testing.B) time.Duration {
			return func(b *testing.B) time.Duration { return run(b, dir, tools.gen, args...) }
		}
		prefix := fmt.Sprintf("idls=%d/by=", idls)
		b.Run(prefix+"kitex", measure(nothing, kitex))
		b.Run(prefix+"kitex-etcd-gen/tree=new", measure(func() { removeGenerated(b, dir) }, ours()))
		b.Run(prefix+"kitex-etcd-gen/tree=unchanged", measure(nothing, ours()))
		b.Run(prefix+"start", measure(nothing, ours("-version")))
	}
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
