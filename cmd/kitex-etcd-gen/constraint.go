package main

import (
	"bytes"
	"go/build/constraint"
	"strings"
)

// neverBuilt reports whether the file's build constraint keeps it out whatever the platform, as "ignore" does by custom.
func neverBuilt(src []byte) bool {
	for line := range bytes.Lines(src) {
		line = bytes.TrimSpace(line)
		if bytes.HasPrefix(line, []byte("package ")) {
			return false
		}
		if !constraint.IsGoBuild(string(line)) {
			continue
		}
		expr, err := constraint.Parse(string(line))
		if err != nil {
			return false // the parser's matter
		}
		built := func(others bool) bool {
			return expr.Eval(func(tag string) bool { return tag != "ignore" && others })
		}
		return !built(true) && !built(false)
	}
	return false
}

// platforms are the endings of file names by which Go leaves a file out elsewhere: x_linux.go, x_arm64.go.
var platforms = make(map[string]bool)

func init() {
	const known = "aix android darwin dragonfly freebsd hurd illumos ios js linux nacl netbsd openbsd plan9 solaris wasip1 windows zos " +
		"386 amd64 amd64p32 arm armbe arm64 arm64be loong64 mips mipsle mips64 mips64le mips64p32 mips64p32le ppc ppc64 ppc64le " +
		"riscv riscv64 s390 s390x sparc sparc64 wasm"
	for _, name := range strings.Fields(known) {
		platforms[name] = true
	}
}

// platformOf returns the platform that a file's name confines it to, or "".
func platformOf(name string) string {
	name = strings.TrimSuffix(name, ".go")
	if i := strings.LastIndexByte(name, '_'); i > 0 && platforms[name[i+1:]] {
		return name[i+1:]
	}
	return ""
}
