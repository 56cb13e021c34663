//go:build unix

package test

import (
	"os"
	"syscall"
)

// What stops a process as a debugger does, and what lets it go on.
var sigStop, sigContinue os.Signal = syscall.SIGSTOP, syscall.SIGCONT
