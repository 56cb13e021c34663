package main

import (
	"os/exec"
	"strings"
	"testing"
)

// Every module that generates builds this command, and CI runs it often: it links neither the runtime, nor Kitex, nor etcd.
func TestLinksLittle(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	packages := strings.Fields(string(out))
	if len(packages) > 120 {
		t.Errorf("%d packages have to be built, want at most 120", len(packages))
	}
	const self = "github.com/kitex-contrib/kitex-etcd/"
	for _, pkg := range packages {
		own := pkg == self+"cmd/kitex-etcd-gen" || pkg == self+"templates"
		if strings.HasPrefix(pkg, self) && !own || strings.Contains(pkg, "cloudwego") || strings.Contains(pkg, "go.etcd.io") || strings.Contains(pkg, "grpc") {
			t.Errorf("links %s", pkg)
		}
	}
}
