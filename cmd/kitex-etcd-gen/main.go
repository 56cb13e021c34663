// Kitex-etcd-gen writes typed etcd constructors beside the code that Kitex generates.
//
//	kitex-etcd-gen [flags] [dir ...]
//
// It reads the Go code that Kitex wrote below each dir (kitex_gen by default), and adds one file, with_etcd.go, to the package of each
// service. For a service Hello this file declares HelloServiceName, NewHelloServerWithEtcd, NewHelloClientWithEtcd and, if Kitex made
// NewStreamClient, NewHelloStreamClientWithEtcd.
//
// Put its go:generate line after that of Kitex:
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
// The exit code is 0 when everything is done (with -check: when everything is up to date), 1 when -check found something, and 2 when the
// call failed. A call that fails has written nothing: all files are made in memory before the first is written. Each file is replaced as
// a whole, and only if its content changes.
//
// An orphan is a with_etcd.go of ours in a package that is no longer a Kitex service: it is reported and removed. If the IDL's package
// no longer declares a service, its directory is refused: Kitex leaves it, and it does not compile.
//
// Below dir, directories that begin with "_" or "." are skipped, and those called testdata or vendor, unless Kitex wrote them.
// Symbolic links to files are read. Links to directories are not followed, and nothing is written through a link. Files that Go does not
// build are not read. Line endings, LF or CRLF, do not matter.
//
// Services with the same name and the same path below several trees, such as client/kitex_gen and server/kitex_gen, are copies of one
// IDL.
//
// With kitex -use, generate the constructors in the repository with kitex_gen.
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
