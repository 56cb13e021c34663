// Kitex-etcd shows what Kitex services have registered in etcd.
//
//	kitex-etcd instances [flags]
//
// prints the instances that are registered in etcd: service, address, weight, tags, and how long each stays if its server
// is not heard of any more.
//
//	-etcd host:port[,…]    the etcd cluster, 127.0.0.1:2379 by default; https://host:port for TLS by the system's authorities
//	-prefix P              the first part of the keys, kitex/registry-etcd by default
//	-service NAME          this service only; a user who may read no other needs it
//	-watch                 go on and print every change, until interrupted
//	-json                  one JSON object on each line, in place of the table
//	-cacert, -cert, -key   files for TLS: the authorities to verify etcd by, and a certificate and its key
//	-user NAME             the etcd user; the password is that of the environment variable KITEX_ETCD_PASSWORD, or
//	-password-file FILE    the first line of this file
//
// The objects of -json have service, network, address, weight, tags and key; lease, in hexadecimal as etcdctl shows it, and
// ttl, the seconds left, unless the key stays until somebody deletes it; error, in place of the instance, where clients
// ignore the key. With -watch they have event (present, added, changed, removed) and time, and no ttl.
//
// The exit code is 0 when all is done, interrupted or not, and 2 when the call failed. Once the first list is printed
// -watch does not fail: it says on stderr that etcd does not answer, and that it does again.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// Exit codes.
const (
	exitDone = 0
	exitFail = 2
)

// run is the whole command.
func run(args []string, stdout, stderr io.Writer) int {
	var err error
	switch {
	case len(args) == 0:
		err = errors.New("which command? kitex-etcd instances [flags] is the one there is; -h explains it")
	case args[0] == "instances":
		err = instances(args[1:], stdout, stderr)
	case args[0] == "-h" || args[0] == "-help" || args[0] == "--help" || args[0] == "help":
		err = flag.ErrHelp
	default:
		err = fmt.Errorf("%s: no such command: kitex-etcd instances [flags] is the one there is", args[0])
	}
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(stdout, instancesUsage)
		return exitDone
	case err != nil:
		for line := range strings.Lines(err.Error()) {
			fmt.Fprintf(stderr, "kitex-etcd: %s\n", strings.TrimSuffix(line, "\n"))
		}
		return exitFail
	}
	return exitDone
}
