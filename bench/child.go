package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"time"
)

// roles are what this program does instead when it has started itself.
var roles map[string]func(args []string) error

func init() {
	roles = map[string]func(args []string) error{
		"etcd":      serveEtcd,
		"footprint": carryFootprint,
		"many":      registerMany,
		"scale":     callMuch,
		"server":    serveHello,
	}
}

const roleVar = "KITEX_ETCD_BENCH_ROLE"

// runChild runs and ends a process that startChild started, and returns in any other.
func runChild() {
	role, args, _ := strings.Cut(os.Getenv(roleVar), " ")
	if role == "" {
		return
	}
	quieten()
	signal.Ignore(os.Interrupt) // the parent decides
	if err := roles[role](strings.Fields(args)); err != nil {
		fmt.Fprintf(os.Stderr, "bench: %s: %v\n", role, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// child is this program again in another role. It says what it has to say in JSON on stdout, and ends when its stdin does.
type child struct {
	cmd   *exec.Cmd
	stdin io.Closer
	out   *json.Decoder
}

func startChild(role string, args []string, env ...string) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self)
	cmd.Env = append(append(os.Environ(), roleVar+"="+strings.Join(append([]string{role}, args...), " ")), env...)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &child{cmd, stdin, json.NewDecoder(stdout)}, nil
}

// read waits for the next thing that the child says.
func (c *child) read(v any) error { return c.out.Decode(v) }

// awaitParent returns when the parent has no more use for this process, or is gone.
func awaitParent() { _, _ = io.Copy(io.Discard, os.Stdin) }

// close has the child end, and returns when it is gone.
func (c *child) close() {
	_ = c.stdin.Close()
	defer time.AfterFunc(10*time.Second, func() { _ = c.cmd.Process.Kill() }).Stop()
	_ = c.cmd.Wait()
}
