package main

import (
	"fmt"
	"io"
	"path"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
)

// version is set by make dist; without it, it is that of the module.
var version string

// program is what the commands share.
type program struct {
	stdout, stderr io.Writer
	connection     connection
	output         string   // -o
	selectors      []string // -l
}

func newRoot(stdout, stderr io.Writer) *cobra.Command {
	p := &program{stdout: stdout, stderr: stderr}
	root := &cobra.Command{
		Use:           "kitex-etcd",
		Short:         "Shows what Kitex services have registered in etcd, and takes servers out of service and back",
		Version:       moduleVersion(),
		SilenceUsage:  true,
		SilenceErrors: true, // run prints them
		RunE: func(*cobra.Command, []string) error {
			return fmt.Errorf("no command was given; kitex-etcd --help lists them")
		},
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("%s: no such command; kitex-etcd --help lists them", args[0])
			}
			return nil
		},
	}
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return fmt.Errorf("%w; %s --help lists the flags", err, cmd.CommandPath())
	})
	p.connection.flags(root.PersistentFlags())
	root.AddCommand(p.servicesCommand(), p.instancesCommand(), p.watchCommand(), p.drainCommand(), p.undrainCommand(), p.weightCommand(),
		p.consoleCommand())
	return root
}

func moduleVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok && version == "" {
		return info.Main.Version
	}
	return version
}

// withConn runs a command with a Conn. It checks the flags, and does not wait for etcd.
func (p *program) withConn(f func(cmd *cobra.Command, conn *etcd.Conn, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		if err := p.checkOutput(); err != nil {
			return err
		}
		conn, err := p.connection.connect()
		if err != nil {
			return err
		}
		defer conn.Close()
		return f(cmd, conn, args)
	}
}

// listing gives a command the flags of those that print many lines.
func (p *program) listing(cmd *cobra.Command) *cobra.Command {
	p.outputFlag(cmd)
	cmd.Flags().StringArrayVarP(&p.selectors, "selector", "l", nil, "only instances with this `tag=value`; if repeated, with all of them")
	cmd.ValidArgsFunction = p.completeServices
	return cmd
}

// say tells the user what is no part of the output.
func (p *program) say(format string, args ...any) {
	fmt.Fprintf(p.stderr, "kitex-etcd: "+format+"\n", args...)
}

// selection is which records a command is about.
type selection struct {
	patterns []string // of service names; none means all
	tags     [][2]string
}

func (p *program) selection(args []string) (selection, error) {
	s := selection{patterns: args}
	for _, pattern := range args {
		if _, err := path.Match(pattern, ""); err != nil {
			return s, fmt.Errorf("the pattern %q is malformed: %w", pattern, err)
		}
	}
	for _, selector := range p.selectors {
		tag, value, ok := strings.Cut(selector, "=")
		if !ok || tag == "" {
			return s, fmt.Errorf("-l %s: write tag=value", selector)
		}
		s.tags = append(s.tags, [2]string{tag, value})
	}
	return s, nil
}

func isPattern(s string) bool { return strings.ContainsAny(s, `*?[\`) }

// only is the one service that is asked for, which a role that may read no other can; or empty.
func (s selection) only() string {
	if len(s.patterns) == 1 && !isPattern(s.patterns[0]) {
		return s.patterns[0]
	}
	return ""
}

func (s selection) service(name string) bool {
	for _, pattern := range s.patterns {
		if ok, _ := path.Match(pattern, name); ok {
			return true
		}
	}
	return len(s.patterns) == 0
}

func (s selection) record(r etcd.Record) bool {
	for _, tag := range s.tags {
		if value, ok := r.Tags[tag[0]]; !ok || value != tag[1] {
			return false
		}
	}
	return s.service(r.Service)
}
