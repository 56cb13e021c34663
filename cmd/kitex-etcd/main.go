// Kitex-etcd shows what Kitex services have registered in etcd. It also takes servers out of service without stopping them, and back.
//
//	kitex-etcd services  [SERVICE…]              a line for each service: instances, drained ones, zones
//	kitex-etcd instances [SERVICE…]              a line for each instance: address, weight, lease, tags
//	kitex-etcd watch     [SERVICE…]              a line for each change, until interrupted
//	kitex-etcd drain     SERVICE ADDRESS…        take servers out of service; they run on
//	kitex-etcd undrain   SERVICE ADDRESS…        put drained servers back into service
//	kitex-etcd weight    SERVICE ADDRESS WEIGHT  give a server another weight
//	kitex-etcd console                           a page in the browser: all of this, and changes as they come
//
// For the first three commands, SERVICE may be a pattern, such as 'Order*'. kitex-etcd COMMAND --help lists the flags. kitex-etcd
// completion bash (or zsh, fish) prints a script with which the shell completes commands, services and addresses.
//
// Each flag of the connection has an environment variable: KITEX_ETCD_ENDPOINTS, KITEX_ETCD_PREFIX, KITEX_ETCD_CACERT,
// KITEX_ETCD_CERT, KITEX_ETCD_KEY, KITEX_ETCD_USER, KITEX_ETCD_PASSWORD_FILE. The password comes from
// KITEX_ETCD_PASSWORD, or from the first line of the file.
//
// The output (-o) is one of
//
//	table  a table that fits the terminal
//	wide   a table with more columns, which is not cut
//	json   an object on each line
//	yaml   a list
//
// The names in json and yaml are
//
//	service, network, address, weight, tags, key
//	lease                in hexadecimal, as etcdctl shows it; missing if the key stays until somebody deletes it
//	ttl, granted         of the lease: seconds that are left, and seconds at the beginning
//	since                when the lease was granted, for servers of this library
//	revision, created    etcd's revisions of the last and of the first write
//	drain, mark, reason  what an operator wants; mark is a weight
//	bad_mark             why the server ignores its mark
//	error                why clients ignore the key; then there is no instance
//	event, time          of watch: present, added, changed, removed, marked or unmarked
//
// drain, undrain and weight write a mark, and wait until the server has followed it. If the server does not follow within 3 s, the mark
// is taken back.
//
// The exit code is 0 when everything is done, also after an interrupt, and 2 when the command failed.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/cloudwego/kitex/pkg/klog"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// Exit codes.
const (
	exitDone = 0
	exitFail = 2
)

// run is the whole command.
func run(args []string, stdout, stderr io.Writer) int {
	klog.SetOutput(io.Discard) // what the Conn has to say, this command says itself
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	cmd := newRoot(stdout, stderr)
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(ctx)
	if err == nil || ctx.Err() != nil {
		return exitDone
	}
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintf(stderr, "kitex-etcd: %s\n", strings.TrimSuffix(line, "\n"))
	}
	return exitFail
}
