package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// followVar is set in the environment of servers that end with the demo, however it ends.
const followVar = "EXAMPLE_FOLLOW"

// servers are processes: this program again, as a server. A process that stops one of its Kitex servers and goes on may
// lose sockets of others with it.
type servers struct {
	endpoints string
	running   map[string]*exec.Cmd
}

// start starts a server; its name says which: hello-1, ticker-1.
func (s *servers) start(name string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self, "-etcd", s.endpoints, name)
	cmd.Env = append(os.Environ(), followVar+"=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if _, err := cmd.StdinPipe(); err != nil { // closes with this process
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	s.running[name] = cmd
	return nil
}

// follow ends this server when the demo is gone and its end of the pipe with it.
func follow() {
	io.Copy(io.Discard, os.Stdin)
	if self, err := os.FindProcess(os.Getpid()); err == nil {
		self.Signal(syscall.SIGTERM)
	}
}

// stop ends a server the way systemd and Kubernetes do, and waits for it.
func (s *servers) stop(name string) error {
	cmd := s.running[name]
	delete(s.running, name)
	return stop(name, cmd)
}

func (s *servers) stopAll() {
	var wg sync.WaitGroup
	for name, cmd := range s.running {
		wg.Go(func() {
			if err := stop(name, cmd); err != nil {
				fmt.Fprintln(os.Stderr, "example:", err)
			}
		})
	}
	wg.Wait()
}

func stop(name string, cmd *exec.Cmd) error {
	defer time.AfterFunc(5*time.Second, func() { cmd.Process.Kill() }).Stop()
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("stop %s: %w", name, err)
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("stop %s: %w", name, err)
	}
	return nil
}
