package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/pflag"

	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
)

const envPassword = "KITEX_ETCD_PASSWORD"

// connection is the flags that say how to reach etcd.
type connection struct {
	endpoints         string
	prefix            string
	cacert, cert, key string
	user              string
	passwordFile      string
}

// flags defines each flag with an environment variable, which is KITEX_ETCD_ and its name.
func (c *connection) flags(flags *pflag.FlagSet) {
	for _, f := range []struct {
		value                *string
		name, usual, meaning string
	}{
		{&c.endpoints, "endpoints", "127.0.0.1:2379", "the etcd cluster: `host:port`, or several with commas; https://host:port for TLS with the system's certificate authorities"},
		{&c.prefix, "prefix", etcd.DefaultPrefix, "what the keys begin with"},
		{&c.cacert, "cacert", "", "a `file` with the certificate authorities that verify etcd"},
		{&c.cert, "cert", "", "a `file` with a client certificate for etcd"},
		{&c.key, "key", "", "a `file` with its key"},
		{&c.user, "user", "", "the etcd `user`; the password comes from " + envPassword},
		{&c.passwordFile, "password-file", "", "a `file` whose first line is the password"},
	} {
		env := "KITEX_ETCD_" + strings.ToUpper(strings.ReplaceAll(f.name, "-", "_"))
		flags.StringVar(f.value, f.name, cmp.Or(os.Getenv(env), f.usual), f.meaning+" ["+env+"]")
	}
}

// connect makes the Conn, which checks the flags and does not wait for etcd.
func (c *connection) connect() (*etcd.Conn, error) {
	switch {
	case strings.Contains(c.user, ":"):
		return nil, fmt.Errorf("--user takes the name only: others can see the arguments of a program; put the password into %s or a file", envPassword)
	case c.user == "" && c.passwordFile != "":
		return nil, errors.New("--password-file needs --user")
	}
	opts := []etcd.Option{etcd.WithEtcdServicePrefix(c.prefix)}
	if c.cacert != "" || c.cert != "" || c.key != "" {
		opts = append(opts, etcd.WithTLSOpt(c.cert, c.key, c.cacert))
	}
	if c.user != "" {
		password, err := c.password()
		if err != nil {
			return nil, err
		}
		opts = append(opts, etcd.WithAuthOpt(c.user, password))
	}
	return etcd.Connect(strings.Split(c.endpoints, ","), opts...)
}

func (c *connection) password() (string, error) {
	if c.passwordFile == "" {
		if password := os.Getenv(envPassword); password != "" {
			return password, nil
		}
		return "", fmt.Errorf("--user %s: put the password into the environment variable %s, or name a file that holds it with --password-file", c.user, envPassword)
	}
	content, err := os.ReadFile(c.passwordFile)
	if err != nil {
		return "", fmt.Errorf("--password-file: %w", err)
	}
	line, _, _ := bytes.Cut(content, []byte("\n"))
	if line = bytes.TrimSuffix(line, []byte("\r")); len(line) == 0 {
		return "", fmt.Errorf("--password-file: the first line of %s is empty: it has to be the password", c.passwordFile)
	}
	return string(line), nil
}
