//go:build linux

package golden

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// BenchmarkStart starts Kitex's tool and ours, to print their versions. B-rss is the most memory that one held, B-binary the size
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
			for b.Loop() {
				cmd := exec.Command(tool.path, "-version")
				if out, err := cmd.CombinedOutput(); err != nil {
					b.Fatalf("%v\n%s", err, out)
				}
			}
			b.ReportMetric(mostMemory(b, tool.path, "-version"), "B-rss")
			b.ReportMetric(float64(info.Size()), "B-binary")
			b.ReportMetric(float64(len(strings.Fields(string(packages)))), "packages")
		})
	}
}

// mostMemory runs a command and returns the most memory that it held, in bytes. What wait4 tells includes the memory of the
// process that started it, so this stops the command as it exits and asks for the peak of its address space.
func mostMemory(b *testing.B, name string, args ...string) float64 {
	b.Helper()
	runtime.LockOSThread() // ptrace is a matter of threads
	defer runtime.UnlockOSThread()
	cmd := exec.Command(name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	pid, most := cmd.Process.Pid, 0.0
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(pid, &status, 0, nil); err != nil { // stops where the program begins
		b.Fatal(err)
	}
	const traceExit, eventExit = 0x40, 6 // PTRACE_O_TRACEEXIT, PTRACE_EVENT_EXIT
	if err := syscall.PtraceSetOptions(pid, traceExit); err != nil {
		b.Fatal(err)
	}
	for signal := 0; ; {
		if err := syscall.PtraceCont(pid, signal); err != nil {
			b.Fatal(err)
		}
		if _, err := syscall.Wait4(pid, &status, 0, nil); err != nil {
			b.Fatal(err)
		}
		switch {
		case status.Exited() || status.Signaled():
			if most == 0 || status.ExitStatus() != 0 {
				b.Fatalf("%s: exit status %d, peak %v", name, status.ExitStatus(), most)
			}
			_ = cmd.Process.Release()
			return most
		case status.StopSignal() == syscall.SIGTRAP && int(status)>>16 == eventExit:
			signal, most = 0, peak(b, pid)
		default:
			signal = int(status.StopSignal())
		}
	}
}

// peak returns the most memory that a running process has held.
func peak(b *testing.B, pid int) float64 {
	b.Helper()
	status := readFile(b, fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(status) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == "VmHWM:" {
			kilobytes, err := strconv.ParseFloat(fields[1], 64)
			if err != nil {
				b.Fatal(err)
			}
			return kilobytes * 1024
		}
	}
	b.Fatalf("no VmHWM in the status of the process: %s", status)
	return 0
}
