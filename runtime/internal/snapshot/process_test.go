//go:build unix

package snapshot

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// writerDir makes a process a writer: this test binary, started again.
const writerDir = "KITEX_ETCD_TEST_SNAPSHOT_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(writerDir); dir != "" {
		writeForEver(&Store{Dir: dir, Endpoints: []string{"e:1"}, Prefix: "p", Program: "prog"})
	}
	os.Exit(m.Run())
}

// writeForEver writes lists of many sizes, as fast as the disk goes, and says so when the first is there.
func writeForEver(s *Store) {
	go func() { // whoever started it is gone
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(3)
	}()
	for i := 0; ; i++ {
		if err := s.Save(testCluster, testService, time.Now(), testInstances(testService, 1+i*37%500)); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		if i == 0 {
			fmt.Println("writing")
		}
	}
}

// startWriter returns when the writer has written for the first time. kill returns when it is gone.
func startWriter(t *testing.T, dir string) (kill func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), writerDir+"="+dir)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = stdin.Close()
	}
	t.Cleanup(kill)
	if line, err := bufio.NewReader(stdout).ReadString('\n'); strings.TrimSpace(line) != "writing" {
		t.Fatalf("the writer says %q, %v", line, err)
	}
	return kill
}

// checkWhole fails the test unless there is a list, all of it.
func checkWhole(t *testing.T, s *Store) {
	t.Helper()
	l, _, err := s.Load(testService, time.Now())
	if err != nil || l == nil || len(l.Instances) == 0 {
		t.Fatalf("Load = %v, %v", l, err)
	}
	for i, want := range testInstances(testService, len(l.Instances)) {
		if l.Instances[i].Key != want.Key || l.Instances[i].Weight != want.Weight {
			t.Fatalf("instance %d is %+v, want %+v", i, l.Instances[i], want)
		}
	}
}

// TestWriterKilled kills a writer at random moments: a reader meets a whole list every time.
func TestWriterKilled(t *testing.T) {
	dir := t.TempDir()
	s := &Store{Dir: dir, MaxAge: time.Hour, Endpoints: []string{"e:1"}, Prefix: "p", Program: "prog"}
	caught := 0
	for range 200 {
		kill := startWriter(t, dir)
		time.Sleep(rand.N(10 * time.Millisecond)) // the moment
		kill()
		checkWhole(t, s)
		temps, err := filepath.Glob(filepath.Join(dir, "*", ".*"+tempSuffix))
		if err != nil {
			t.Fatal(err)
		}
		caught = len(temps)
	}
	t.Logf("%d of 200 were killed in the middle of a write", caught)
	if caught == 0 {
		t.Error("no writer was killed in the middle of a write: the test shows nothing")
	}
	s.Sweep(time.Now().Add(2 * tempLife))
	if temps, _ := filepath.Glob(filepath.Join(dir, "*", ".*"+tempSuffix)); len(temps) != 0 {
		t.Errorf("%d temporary files are left", len(temps))
	}
	checkWhole(t, s)
}

// TestTwoProcesses has two processes of one program write into one directory, and reads whole lists meanwhile.
func TestTwoProcesses(t *testing.T) {
	dir := t.TempDir()
	s := &Store{Dir: dir, MaxAge: time.Hour, Endpoints: []string{"e:1"}, Prefix: "p", Program: "prog"}
	startWriter(t, dir)
	startWriter(t, dir)
	for range 500 {
		checkWhole(t, s)
	}
}
