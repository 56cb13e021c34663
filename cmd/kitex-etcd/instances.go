package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/cloudwego/kitex/pkg/klog"

	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
)

const instancesUsage = `usage: kitex-etcd instances [flags]

Prints the instances that are registered in etcd.

  -etcd host:port[,…]    the etcd cluster, 127.0.0.1:2379 by default; https://host:port for TLS by the system's authorities
  -prefix P              the first part of the keys, kitex/registry-etcd by default
  -service NAME          this service only; a user who may read no other needs it
  -watch                 go on and print every change, until interrupted
  -json                  one JSON object on each line, in place of the table
  -cacert, -cert, -key   files for TLS: the authorities to verify etcd by, and a certificate and its key
  -user NAME             the etcd user; the password is that of the environment variable KITEX_ETCD_PASSWORD, or
  -password-file FILE    the first line of this file
`

const envPassword = "KITEX_ETCD_PASSWORD"

type instancesOptions struct {
	endpoints       string
	prefix, service string
	watch, json     bool
	cacert          string
	cert, key       string
	user            string
	passwordFile    string
}

// instances is the command of that name.
func instances(args []string, stdout, stderr io.Writer) error {
	opts, err := parseInstancesArgs(args)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	klog.SetOutput(io.Discard) // what the Conn has to say, this command says itself
	conn, err := opts.connect()
	if err != nil {
		return err
	}
	defer conn.Close()
	inv := &inventory{conn: conn, opts: opts, stdout: stdout, stderr: stderr}
	if opts.watch {
		err = inv.watch(ctx)
	} else {
		err = inv.list(ctx)
	}
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func parseInstancesArgs(args []string) (*instancesOptions, error) {
	var o instancesOptions
	flags := flag.NewFlagSet("instances", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // run prints the error, to the right stream
	flags.StringVar(&o.endpoints, "etcd", "127.0.0.1:2379", "")
	flags.StringVar(&o.prefix, "prefix", etcd.DefaultPrefix, "")
	flags.StringVar(&o.service, "service", "", "")
	flags.BoolVar(&o.watch, "watch", false, "")
	flags.BoolVar(&o.json, "json", false, "")
	flags.StringVar(&o.cacert, "cacert", "", "")
	flags.StringVar(&o.cert, "cert", "", "")
	flags.StringVar(&o.key, "key", "", "")
	flags.StringVar(&o.user, "user", "", "")
	flags.StringVar(&o.passwordFile, "password-file", "", "")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil, err
		}
		return nil, fmt.Errorf("%w; kitex-etcd instances -h lists the flags", err)
	}
	switch {
	case flags.NArg() > 0:
		return nil, fmt.Errorf("instances %s: everything is given by flags; kitex-etcd instances -h lists them", flags.Arg(0))
	case strings.Contains(o.user, ":"):
		return nil, fmt.Errorf("-user takes the name only: others can see the arguments of a program; put the password into %s or a file", envPassword)
	case o.user == "" && o.passwordFile != "":
		return nil, errors.New("-password-file is of no use without -user")
	}
	return &o, nil
}

// connect makes the Conn, which checks the flags and does not wait for etcd.
func (o *instancesOptions) connect() (*etcd.Conn, error) {
	opts := []etcd.Option{etcd.WithEtcdServicePrefix(o.prefix)}
	if o.cacert != "" || o.cert != "" || o.key != "" {
		opts = append(opts, etcd.WithTLSOpt(o.cert, o.key, o.cacert))
	}
	if o.user != "" {
		password, err := o.password()
		if err != nil {
			return nil, err
		}
		opts = append(opts, etcd.WithAuthOpt(o.user, password))
	}
	return etcd.Connect(strings.Split(o.endpoints, ","), opts...)
}

func (o *instancesOptions) password() (string, error) {
	if o.passwordFile == "" {
		if password := os.Getenv(envPassword); password != "" {
			return password, nil
		}
		return "", fmt.Errorf("-user %s: put the password into the environment variable %s, or name a file that holds it with -password-file", o.user, envPassword)
	}
	content, err := os.ReadFile(o.passwordFile)
	if err != nil {
		return "", fmt.Errorf("-password-file: %w", err)
	}
	line, _, _ := bytes.Cut(content, []byte("\n"))
	if line = bytes.TrimSuffix(line, []byte("\r")); len(line) == 0 {
		return "", fmt.Errorf("-password-file: the first line of %s is empty: it has to be the password", o.passwordFile)
	}
	return string(line), nil
}
