package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"time"
)

// roles are what this program does instead when it has started itself.
var roles map[string]func(args []string) error

func init() {
	roles = map[string]func(args []string) error{
		"burn":      burn,
		"clients":   openClients,
		"conns":     openConns,
		"crowd":     joinCrowd,
		"etcd":      serveEtcd,
		"family":    measureFamily,
		"footprint": carryFootprint,
		"get":       getAll,
		"grpcproxy": serveGRPCProxy,
		"many":      registerMany,
		"restart":   callAfresh,
		"scale":     callMuch,
		"server":    orphaned(serveHello),
		"streams":   orphaned(serveStreams),
		"unserved":  askForNobody,
		"watchers":  watchPlainly,
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

// measureApart measures f in a process of its own: what some of the libraries leave behind, such as a resolver that waits
// for its etcd for ever, stops every Kitex client of a process.
func measureApart(ctx context.Context, f family, quick bool) (map[string]values, error) {
	c, err := startChild("family", []string{f.name, strconv.FormatBool(quick)})
	if err != nil {
		return nil, err
	}
	defer c.close()
	defer context.AfterFunc(ctx, func() { c.stdin.Close() })()
	var all map[string]values
	if err := c.read(&all); err != nil {
		return nil, cmp.Or(ctx.Err(), fmt.Errorf("it failed, see above: %w", err))
	}
	return all, nil
}

// measureFamily is what the process does.
func measureFamily(args []string) error {
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		awaitParent()
		cancel()
	}()
	for _, f := range families {
		if f.name == args[0] {
			all, err := measure(ctx, f, args[1] == "true", os.Stderr)
			if err != nil {
				return fmt.Errorf("%s: %w", f.name, err)
			}
			return json.NewEncoder(os.Stdout).Encode(all)
		}
	}
	return fmt.Errorf("there is no family %q", args[0])
}

// child is this program again in another role. It says what it has to say in JSON on stdout, and ends when its stdin does.
type child struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
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

// orphaned has a process that serves end with its parent, whatever it is doing.
func orphaned(serve func(args []string) error) func(args []string) error {
	return func(args []string) error {
		go func() {
			awaitParent()
			os.Exit(1)
		}()
		return serve(args)
	}
}

// awaitParent returns when the parent has no more use for this process, or is gone.
func awaitParent() { _, _ = io.Copy(io.Discard, os.Stdin) }

// close has the child end, and returns when it is gone.
func (c *child) close() {
	_ = c.stdin.Close()
	defer time.AfterFunc(10*time.Second, func() { _ = c.cmd.Process.Kill() }).Stop()
	_ = c.cmd.Wait()
}
