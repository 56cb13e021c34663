package main

import (
	"bytes"
	"os"
	"strings"
	"testing"
)

func TestCommands(t *testing.T) {
	for _, test := range []struct {
		args   string
		code   int
		stdout string
		stderr string // what it begins with
	}{
		{"", exitFail, "", "kitex-etcd: which command?"},
		{"instance", exitFail, "", "kitex-etcd: instance: no such command"},
		{"-watch", exitFail, "", "kitex-etcd: -watch: no such command"},
		{"-h", exitDone, instancesUsage, ""},
		{"help", exitDone, instancesUsage, ""},
	} {
		stdout, stderr, code := call(strings.Fields(test.args)...)
		if code != test.code || stdout != test.stdout || !strings.HasPrefix(stderr, test.stderr) || (stderr == "") != (test.stderr == "") {
			t.Errorf("%q: exit code %d, stdout %q, stderr %q; want %d, %q, %q", test.args, code, stdout, stderr, test.code, test.stdout, test.stderr)
		}
	}
}

// The manual in the package comment names every flag that the usage does.
func TestManual(t *testing.T) {
	source, err := os.ReadFile("main.go")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(instancesUsage) {
		if flag := strings.TrimSpace(line); strings.HasPrefix(flag, "-") {
			if name := strings.Fields(flag)[0]; !bytes.Contains(source, []byte("//\t"+name)) {
				t.Errorf("main.go does not explain %s", name)
			}
		}
	}
}
