// Command bench measures kitex-etcd side by side with its predecessor, with what other frameworks do on etcd, and with
// the least that the work can cost. It starts an etcd of its own.
//
//	go run .                 all rows, and the report: REPORT.md and plots
//	go run . -quick          all rows with less work, eight minutes on two cores, no report
//	go run . -only resolve   the families whose names begin with resolve; -list prints the names
//	go run . -json           the figures as JSON on stdout
//	go run . -o DIR          the report of whatever was measured, into DIR
//
// The sides of a row take turns, A B A B, so that all of them meet the same machine. A figure is the median of a side's
// turns, or a percentile of all that was measured in them; beside it stand the least and the greatest.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cloudwego/kitex/pkg/klog"
	"github.com/zeromicro/go-zero/core/logx"
)

var families = append([]family{
	resolveFamily(1, 1000, 10000),
	refreshFamily(10000),
	pickerFamily(1000),
	propagationFamily(),
	changeFamily(10000),
	steadyFamily(50, 200),
	footprintFamily(),
	registerFamily(),
	manyFamily(),
	codecFamily(),
	generateFamily(),
	repairFamily(),
	scaleFamily("1", "10", "100"),
	fanoutFamily(500, 5000),
	wireFamily(1000, 10000),
	clientsFamily(),
	lastFamily(),
	clustersFamily(),
	idleFamily(),
	prefixesFamily(),
	raceFamily(),
	misuseFamily(),
	certificateFamily(),
	tokenFamily(),
	leaseFamily(),
	unreachableFamily(),
	streamFamily(),
	slowFamily(),
	reviveFamily(),
	takenFamily(),
	drainFamily(),
	laneFamily(),
	firstFamily(),
	firstDownFamily(),
	startFamily(),
	connsFamily(),
	unservedFamily(),
	restFamily(),
	commandFamily(),
	attemptFamily(),
	routeFamily(),
}, slices.Concat(faultFamilies(), crashFamilies(), thinFamilies(), outageFamilies())...)

// patient are the families that do little but wait, and for seconds: they are measured last, three at a time. The longest
// come first.
var patient = []string{
	"outage", "rebuilt", "conns", "unserved", "rest", "roll", "steady", "repair", "kill", "lease", "taken", "stop", "hang", "unreachable", "slow",
	"gone", "start", "far", "stream_kill", "narrow", "revive", "large", "idle", "clusters", "token", "last",
}

func main() {
	runChild()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	only := flags.String("only", "", "measure only the families whose names begin with `NAME`")
	quick := flags.Bool("quick", false, "do less of everything; writes no report unless -o is given")
	asJSON := flags.Bool("json", false, "print JSON instead of tables")
	list := flags.Bool("list", false, "print the names of the families and end")
	dir := flags.String("o", "", "write the report into `DIR`; a run of everything writes it here")
	if err := flags.Parse(args); err != nil {
		return err
	}
	var chosen []family
	for _, f := range families {
		if strings.HasPrefix(f.name, *only) {
			chosen = append(chosen, f)
		}
	}
	if len(chosen) == 0 || flags.NArg() > 0 {
		return fmt.Errorf("-only %q, arguments %q: nothing to measure; -list prints the names", *only, flags.Args())
	}
	if *list {
		for _, f := range chosen {
			fmt.Fprintf(stdout, "%-14s %s\n", f.name, f.about)
		}
		return nil
	}
	if *dir == "" && *only == "" && !*quick {
		*dir = "."
	}
	quieten()

	r := newReport(args)
	found := make([]map[string]values, len(chosen))
	failures := make([]error, len(chosen))
	var alone, waiting []int
	for i, f := range chosen {
		if !slices.Contains(patient, f.name) {
			alone = append(alone, i)
		}
	}
	for _, name := range patient {
		if i := slices.IndexFunc(chosen, func(f family) bool { return f.name == name }); i >= 0 {
			waiting = append(waiting, i)
		}
	}
	// A family that fails is said to have failed; the others are measured nevertheless.
	of := func(which []int) func(int) error {
		return func(n int) error {
			i := which[n-1]
			f := chosen[i]
			fmt.Fprintf(stderr, "%s: %s\n", f.name, f.about)
			var err error
			if found[i], err = measureApart(ctx, f, *quick); err != nil {
				failures[i] = fmt.Errorf("%s: %w", f.name, err)
			}
			return ctx.Err()
		}
	}
	begin := time.Now()
	if err := atOnce(1, len(alone), of(alone)); err != nil {
		return err
	}
	if err := atOnce(3, len(waiting), of(waiting)); err != nil {
		return err
	}
	r.Took = time.Since(begin).Round(time.Second).String()
	for i, f := range chosen {
		r.add(f, found[i], failures[i])
	}
	failed := errors.Join(failures...)
	if *dir != "" {
		if err := r.write(*dir); err != nil {
			return err
		}
	}
	if *asJSON {
		enc := json.NewEncoder(stdout)
		enc.SetIndent("", "  ")
		return errors.Join(failed, enc.Encode(r))
	}
	return errors.Join(failed, r.print(stdout))
}

// quieten keeps the libraries' logs out of the figures and the progress, and has testing.Benchmark take short runs.
func quieten() {
	klog.SetLevel(klog.LevelFatal)
	logx.Disable()
	if flag.Lookup("test.benchtime") == nil {
		testing.Init()
	}
	if err := flag.Set("test.benchtime", "200ms"); err != nil {
		panic(err) // the flag is testing's own
	}
}
