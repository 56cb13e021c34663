//go:build unix

package main

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// quickStartVar has TestQuickStart run where CI is not set. Its value is the build cache to use; "empty" is a new one.
const quickStartVar = "KITEX_ETCD_QUICKSTART"

// The README's quick start, line by line, in an empty directory and with an empty build cache: every command succeeds, and shows what
// the README says. The fixed ports are those of the lines.
func TestQuickStart(t *testing.T) {
	cache := os.Getenv(quickStartVar)
	if cache == "" && os.Getenv("CI") == "" {
		t.Skip("compiles everything anew, for minutes, and needs ports 2379, 2380 and 8888: set " + quickStartVar + "=empty")
	}
	if cache == "" || cache == "empty" {
		cache = t.TempDir()
	}
	for _, port := range []string{"2379", "2380", "8888"} {
		l, err := net.Listen("tcp", ":"+port)
		if err != nil {
			t.Fatalf("the quick start needs port %s: %v", port, err)
		}
		l.Close()
	}
	repository, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	terminals := &terminals{T: t, dir: t.TempDir(), env: append(os.Environ(),
		"GOCACHE="+cache, "GIT_CONFIG_COUNT=1", // git clones what is here
		"GIT_CONFIG_KEY_0=url."+repository+".insteadOf", "GIT_CONFIG_VALUE_0=https://github.com/kitex-contrib/kitex-etcd")}
	_, text, _ := strings.Cut(read(t, readme), "\n## Quick start\n")
	text, _, _ = strings.Cut(text, "\n## ")
	seen := 0
	for _, m := range regexp.MustCompile("(?ms)^```(sh)?\n(.*?)^```$").FindAllStringSubmatch(text, -1) {
		switch begun := time.Now(); {
		case m[1] == "sh":
			terminals.paste(m[2])
			t.Logf("%v: %s", time.Since(begun).Round(time.Second/10), strings.ReplaceAll(strings.TrimSpace(regexp.MustCompile(`(?s)<<'(\w+)'.*?\n\w+\n`).ReplaceAllString(m[2], "\n")), "\n", "; "))
		case seen == 4: // the last output is what Ctrl-C shows
			terminals.interrupt()
			fallthrough
		default:
			seen++
			terminals.expect(m[2])
			t.Logf("%v: seen", time.Since(begun).Round(time.Second/10))
		}
	}
	if seen != 5 {
		t.Errorf("the quick start shows %d outputs, want 5", seen)
	}
	terminals.interrupt()
}

// terminals runs what is pasted into the terminals of a reader.
type terminals struct {
	*testing.T
	dir     string
	env     []string
	cd      string     // the directory of the terminal in use, below dir
	output  *output    // of the block that was pasted last
	running []*running // what keeps running, the latest last
}

type running struct {
	*exec.Cmd
	line   string
	output *output
	done   chan error
}

// paste runs the lines of a block in the terminal in use. One that keeps running leaves this terminal: the next block begins in another.
func (s *terminals) paste(block string) {
	s.Helper()
	lines, keeps, found := strings.Cut(block, "    # keeps running\n")
	if found && keeps != "" {
		s.Fatalf("lines after one that keeps running: %s", keeps)
	}
	last := ""
	if found {
		i := strings.LastIndexByte(lines, '\n') + 1
		lines, last = lines[:i], lines[i:]
	}
	s.output = new(output)
	cmd := s.bash("set -e\n" + lines)
	if err := cmd.Run(); err != nil {
		s.Fatalf("%v\n%s\n%s", err, block, s.output)
	}
	for _, m := range regexp.MustCompile(`(?m)^cd (.*)$`).FindAllStringSubmatch(lines, -1) {
		s.cd = filepath.Join(s.cd, m[1])
	}
	if last == "" {
		return
	}
	s.output = new(output)
	r := &running{s.bash("exec " + last), last, s.output, make(chan error, 1)}
	if err := r.Start(); err != nil {
		s.Fatal(err)
	}
	go func() { r.done <- r.Wait() }()
	s.running, s.cd = append(s.running, r), ""
	s.Cleanup(func() { syscall.Kill(-r.Process.Pid, syscall.SIGKILL) }) // the group, if anything of it is left
}

func (s *terminals) bash(script string) *exec.Cmd {
	cmd := exec.CommandContext(s.Context(), "bash", "-c", script)
	cmd.Dir, cmd.Env = filepath.Join(s.dir, s.cd), s.env
	cmd.Stdout, cmd.Stderr = s.output, s.output
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd
}

// expect waits until the last block has shown lines, in this order; "…" stands for anything.
func (s *terminals) expect(lines string) {
	s.Helper()
	pattern := ""
	for line := range strings.Lines(lines) {
		pattern += "(?m:^" + strings.ReplaceAll(regexp.QuoteMeta(strings.TrimSpace(line)), "…", ".*") + `\s*$)(?s:.*)`
	}
	pattern = regexp.MustCompile(` +`).ReplaceAllString(pattern, " *") // columns are as wide as what is in them
	ctx, cancel := context.WithTimeout(s.Context(), 10*time.Minute)
	defer cancel()
	if !s.output.await(ctx, regexp.MustCompile(pattern)) {
		s.Fatalf("the README shows\n%sand this was to be seen:\n%s", lines, s.output)
	}
}

// interrupt presses Ctrl-C in the latest terminal whose command keeps running, which has to end with 0.
func (s *terminals) interrupt() {
	s.Helper()
	r := s.running[len(s.running)-1]
	s.running = s.running[:len(s.running)-1]
	if err := syscall.Kill(-r.Process.Pid, syscall.SIGINT); err != nil {
		s.Fatal(err)
	}
	select {
	case err := <-r.done:
		if err != nil && !strings.HasPrefix(r.line, "go run ") { // go run exits with 1 itself
			s.Errorf("%s: %v after Ctrl-C\n%s", r.line, err, r.output)
		}
	case <-time.After(time.Minute):
		s.Errorf("%s: still there a minute after Ctrl-C\n%s", r.line, r.output)
	}
	s.output = r.output
}

// output is what commands have printed.
type output struct {
	mu      sync.Mutex
	text    bytes.Buffer
	changed chan struct{} // closed at the next Write; nil when nobody waits
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.changed != nil {
		close(o.changed)
		o.changed = nil
	}
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// await reports whether the output matches pattern before ctx ends.
func (o *output) await(ctx context.Context, pattern *regexp.Regexp) bool {
	for {
		o.mu.Lock()
		matches := pattern.Match(o.text.Bytes())
		if o.changed == nil {
			o.changed = make(chan struct{})
		}
		changed := o.changed
		o.mu.Unlock()
		if matches {
			return true
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}
