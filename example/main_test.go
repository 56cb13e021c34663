package main

import (
	"strings"
	"testing"
)

func TestBadCalls(t *testing.T) {
	for _, test := range []struct{ endpoints, name, want string }{
		{"127.0.0.1:1", "", "no etcd answers at 127.0.0.1:1"},
		{"127.0.0.1", "", `"127.0.0.1"`},
		{"127.0.0.1:1", "bye-1", `"bye-1"`},
		{"", "hello-1", "needs -etcd"},
	} {
		t.Run(test.want, func(t *testing.T) {
			t.Parallel()
			err := run(test.endpoints, test.name)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("run(%q, %q) = %v, want an error with %q", test.endpoints, test.name, err, test.want)
			}
		})
	}
}
