// Kitex-etcd shows what Kitex services have registered in etcd, and takes servers out of service, without stopping them, and back.
//
//	kitex-etcd services  [SERVICE…]              a line for each service: instances, drained ones, zones
//	kitex-etcd instances [SERVICE…]              a line for each instance: address, weight, lease, tags
//	kitex-etcd watch     [SERVICE…]              a line for each change, until interrupted
//	kitex-etcd drain     SERVICE ADDRESS…        no client calls the servers any more; they run on
//	kitex-etcd undrain   SERVICE ADDRESS…        clients call them again
//	kitex-etcd weight    SERVICE ADDRESS WEIGHT  another weight than the one that the server registered with
//	kitex-etcd console                           a page for a browser that shows all of it, and changes as they come
//
// SERVICE may be a pattern for the first three, such as 'Order*'. kitex-etcd COMMAND --help lists the flags, and kitex-etcd
// completion bash (zsh, fish) prints what completes commands, services and addresses in a shell.
//
// Every flag of the connection has an environment variable: KITEX_ETCD_ENDPOINTS, KITEX_ETCD_PREFIX, KITEX_ETCD_CACERT,
// KITEX_ETCD_CERT, KITEX_ETCD_KEY, KITEX_ETCD_USER, KITEX_ETCD_PASSWORD_FILE. The password itself is that of KITEX_ETCD_PASSWORD, or
// the first line of the file.
//
// The output (-o) is a table; wide, which is a table of more columns that is not cut to the terminal; json, an object on each line; or
// yaml, a list. Their names are service, network, address, weight, tags and key; lease, in hexadecimal as etcdctl shows it, and
// ttl and granted, seconds that it has left and had at first, unless the key stays until somebody deletes it; since, when that was granted, of servers of this library; revision and created,
// etcd's revisions of the last and the first write; drain, mark (a weight) and reason, what an operator wants, and bad_mark, why the server ignores that; error, in place of the
// instance, where clients ignore the key. watch has event (present, added, changed, removed, marked, unmarked) and time besides.
//
// drain, undrain and weight write a mark, which the server follows, and wait until it has. A mark that is not followed within 3 s is
// taken back.
//
// The exit code is 0 when all is done, interrupted or not, and 2 when the call failed.
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
