//go:build !unix

package test

import "os"

// No signal stops a process here: child.signal skips the test.
var sigStop, sigContinue os.Signal
