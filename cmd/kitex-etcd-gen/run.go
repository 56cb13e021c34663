package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"runtime/debug"
	"strings"
	"time"
)

// Exit codes.
const (
	exitDone  = 0
	exitStale = 1
	exitFail  = 2
)

const usage = `usage: kitex-etcd-gen [flags] [dir ...]

Adds with_etcd.go, typed etcd constructors, to every service package that Kitex generated below dir (kitex_gen by default).

  -check                 write nothing; list what is stale, missing, orphaned or abandoned: exit code 0 clean, 1 stale, 2 failed
  -name Service=name     register Service (its name in the IDL) as name; may be repeated;
                         pkg.Service=name where several packages have a Service (api.Hello is kitex_gen/api/hello)
  -dump-templates DIR    write the template for stock kitex -template-dir to DIR, and nothing else
  -q                     no progress on long runs
  -version, -h           print the version, this text
`

// errMoved answers those who know the command from before it had a program to itself. A directory of the name is ./instances.
var errMoved = errors.New("instances is a command of kitex-etcd now: go get -tool github.com/kitex-contrib/kitex-etcd/cmd/kitex-etcd, " +
	"then go tool kitex-etcd instances with the same flags; a directory of this name is ./instances")

type options struct {
	check   bool
	quiet   bool
	version bool
	dump    string
	names   []nameFlag
	dirs    []string
}

// run is the whole command. Standard input is not read.
func run(args []string, _ io.Reader, stdout, stderr io.Writer) int {
	if len(args) > 0 && args[0] == "instances" {
		return exit(errMoved, stdout, stderr)
	}
	opts, err := parseArgs(args)
	if err == nil {
		switch {
		case opts.version:
			fmt.Fprintln(stdout, "kitex-etcd-gen", version())
			return exitDone
		case opts.dump != "":
			err = dumpTemplates(opts.dump)
		default:
			var stale bool
			if stale, err = generate(opts, stdout, stderr); stale {
				return exitStale
			}
		}
	}
	return exit(err, stdout, stderr)
}

// exit says what became of a call and returns its exit code.
func exit(err error, stdout, stderr io.Writer) int {
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(stdout, usage)
		return exitDone
	case err != nil:
		for line := range strings.Lines(err.Error()) {
			fmt.Fprintf(stderr, "kitex-etcd-gen: %s\n", strings.TrimSuffix(line, "\n"))
		}
		return exitFail
	}
	return exitDone
}

func parseArgs(args []string) (options, error) {
	var o options
	flags := flag.NewFlagSet("kitex-etcd-gen", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // run prints the error, to the right stream
	flags.BoolVar(&o.check, "check", false, "")
	flags.BoolVar(&o.quiet, "q", false, "")
	flags.BoolVar(&o.version, "version", false, "")
	flags.StringVar(&o.dump, "dump-templates", "", "")
	var names []string
	flags.Func("name", "", func(value string) error {
		names = append(names, value)
		return nil
	})
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return o, err
		}
		return o, fmt.Errorf("%w; kitex-etcd-gen -h lists the flags", err)
	}
	for _, value := range names {
		name, err := parseName(value)
		if err != nil {
			return o, err
		}
		o.names = append(o.names, name)
	}
	o.dirs = flags.Args()
	for _, dir := range o.dirs {
		if dir == "" {
			return o, errors.New("a directory's name is empty: is the variable that holds it set?")
		}
		if strings.HasPrefix(dir, "-") {
			return o, fmt.Errorf("%s: flags go before directories", dir)
		}
	}
	dumps := false
	flags.Visit(func(f *flag.Flag) { dumps = dumps || f.Name == "dump-templates" })
	if dumps {
		if o.dump == "" {
			return o, errors.New("-dump-templates: name the directory to write to")
		}
		if len(o.dirs) > 0 || o.check || len(o.names) > 0 {
			return o, errors.New("-dump-templates writes templates only: leave out other flags and directories")
		}
	}
	if len(o.dirs) == 0 {
		o.dirs = []string{"kitex_gen"}
	}
	return o, nil
}

// generate brings the generated files below opts.dirs up to date. With -check it only lists those that are not, and
// reports whether there are any.
func generate(opts options, stdout, stderr io.Writer) (stale bool, err error) {
	report := stderr
	if opts.quiet {
		report = io.Discard
	}
	packages, err := scan(opts.dirs, newProgress(report, time.Now))
	if err != nil {
		return false, err
	}
	if err := setNames(packages, opts.names); err != nil {
		return false, err
	}
	changes, err := render(packages)
	if err != nil {
		return false, err
	}
	if opts.check {
		for _, c := range changes {
			fmt.Fprintln(stdout, c)
		}
		return len(changes) > 0, nil
	}
	if err := refusals(changes); err != nil {
		return false, err
	}
	if err := commit(changes); err != nil {
		return false, err
	}
	for _, c := range changes {
		if c.kind == orphaned {
			fmt.Fprintf(stderr, "kitex-etcd-gen: removed %s: its package is no longer a Kitex service\n", c.path)
		}
	}
	return false, nil
}

func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "(devel)"
	}
	return info.Main.Version
}
