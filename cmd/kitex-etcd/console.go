package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
)

func (p *program) consoleCommand() *cobra.Command {
	var listen string
	var writable bool
	var hosts []string
	cmd := &cobra.Command{
		Use:   "console",
		Short: "A page in the browser: services, instances and changes",
		Long: `Serves a page for a browser: services, their instances, what is left of their leases, and changes as they come. With --write, servers
are drained and weighed from there.

Everybody who reaches the page sees what this program may read in etcd, and with --write does what it may write: the page has no
users and no passwords. So it listens on this host only. For others, put it behind a proxy that knows who they are, or listen on
another address if all who reach that may see it. The page answers to localhost and to IP addresses; --host adds a name.

What the page is made of, /api/…, is in docs/console.md.`,
		Example: "  kitex-etcd console\n  kitex-etcd console --listen 10.0.0.7:7379 --host registry.example.com",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			conn, err := p.connection.connect()
			if err != nil {
				return err
			}
			defer conn.Close()
			ln, err := net.Listen("tcp", listen)
			if err != nil {
				return fmt.Errorf("%w: --listen %s", err, listen)
			}
			return p.console(cmd.Context(), conn, ln, writable, hosts)
		},
	}
	cmd.Flags().StringVar(&listen, "listen", "127.0.0.1:7379", "the `address` to listen on; with another host than 127.0.0.1, others can see the page")
	cmd.Flags().BoolVar(&writable, "write", false, "let the page drain servers and change their weight")
	cmd.Flags().StringArrayVar(&hosts, "host", nil, "a `name` under which browsers reach the page; may be repeated")
	cmd.ValidArgsFunction = cobra.NoFileCompletions
	return cmd
}

// shutdownGrace is how long requests that are under way may take when the console ends.
const shutdownGrace = time.Second

// console serves the page on ln until ctx ends.
func (p *program) console(ctx context.Context, conn *etcd.Conn, ln net.Listener, writable bool, hosts []string) error {
	handler, wait := p.newConsole(ctx, conn, writable, hosts)
	defer wait()
	srv := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		IdleTimeout:       time.Minute,
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	go func() {
		<-ctx.Done()
		grace, cancel := context.WithTimeout(context.Background(), shutdownGrace)
		defer cancel()
		_ = srv.Shutdown(grace)
		_ = srv.Close()
	}()
	p.say("the console is at http://%s/", browsable(ln.Addr()))
	if addr, ok := ln.Addr().(*net.TCPAddr); ok && !addr.IP.IsLoopback() {
		may := "see it"
		if writable {
			may = "see it, drain servers and change their weight"
		}
		p.say("everybody who reaches %s can %s", ln.Addr(), may)
	}
	if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// browsable is an address that a browser on this host can open.
func browsable(addr net.Addr) string {
	host, port, err := net.SplitHostPort(addr.String())
	if ip := net.ParseIP(host); err != nil || ip == nil || !ip.IsUnspecified() {
		return addr.String()
	}
	return net.JoinHostPort("127.0.0.1", port)
}

// newConsole starts the hub, and returns the page's handler. wait waits for what was started, after ctx has ended.
func (p *program) newConsole(ctx context.Context, conn *etcd.Conn, writable bool, hosts []string) (h http.Handler, wait func()) {
	hub := newHub(ctx, conn, about{Cluster: strings.Join(endpointNames(p.connection.endpoints), ", "), Prefix: p.connection.prefix, Writable: writable})
	done := make(chan struct{})
	go func() { defer close(done); hub.run() }()
	fed := make(chan struct{})
	go func() { defer close(fed); hub.feed(ctx, conn) }()
	return newConsoleHandler(p, conn, hub, writable, hosts), func() { <-fed; <-done }
}

// endpointNames is the endpoints without what may be a secret in them.
func endpointNames(endpoints string) []string {
	names := strings.Split(endpoints, ",")
	for i, name := range names {
		if at := strings.LastIndexByte(name, '@'); at >= 0 {
			name = name[at+1:]
		}
		names[i] = strings.TrimPrefix(strings.TrimPrefix(name, "http://"), "https://")
	}
	return names
}
