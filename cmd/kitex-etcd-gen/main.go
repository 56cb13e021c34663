// Kitex-etcd-gen writes typed etcd constructors beside the code that Kitex generates.
//
//	kitex-etcd-gen [flags] [dir ...]
//
// It reads the Go that Kitex wrote below each dir (kitex_gen by default) and adds one file, with_etcd.go, to the package
// of every service. For a service Hello that file declares HelloServiceName, NewHelloServerWithEtcd,
// NewHelloClientWithEtcd and, where Kitex made NewStreamClient, NewHelloStreamClientWithEtcd.
//
// It belongs after Kitex in a go:generate line:
//
//	//go:generate go tool kitex -module example.com/hello hello.thrift
//	//go:generate go tool kitex-etcd-gen
//
// # Flags
//
//	-check                 write nothing; list files that are stale, missing or orphaned, and the
//	                       directories of services that are abandoned: gone from the IDL
//	-name Service=name     register Service (its name in the IDL) as name; may be repeated. Where several packages have
//	                       a Service, pkg.Service=name: pkg is the directory that holds the service's package, as in
//	                       api.Hello for kitex_gen/api/hello, with as many parents as tell it apart (v1/api.Hello)
//	-dump-templates DIR    write the template for stock kitex -template-dir to DIR, and nothing else
//	-q                     no progress on long runs
//	-version, -h           print the version, this text
//
// # Behaviour
//
// The exit code is 0 when all is done (or, with -check, clean), 1 when -check found something, 2 when the call failed.
// A call that fails has written nothing: every file is rendered before the first is written, each is replaced as a whole,
// and only when its content changes.
//
// An orphan, a with_etcd.go of ours in a package that no longer is a Kitex service, is reported and removed. A service that its
// IDL's package no longer declares is refused: Kitex leaves its directory, which does not compile.
//
// Below dir, directories that begin with "_" or "." are skipped, and those called testdata or vendor that Kitex did not write.
// Symbolic links to files are read, those to directories are not followed, and nothing is written through a link. Files that Go
// does not build are not read. The ends of lines, LF or CRLF, are no difference.
//
// Services that have the same path below several trees, as client/kitex_gen and server/kitex_gen, are copies of one IDL.
//
// With kitex -use the constructors are generated in the repository that holds kitex_gen.
package main

import (
	"os"
	"runtime/debug"
)

func main() {
	// What a run allocates is small, and gone with the process: collecting it would cost more than a tenth of the time.
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(256 << 20)
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
