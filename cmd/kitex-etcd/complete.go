package main

import (
	"context"
	"slices"
	"time"

	"github.com/spf13/cobra"

	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
)

// completeTimeout bounds what a shell waits for.
const completeTimeout = time.Second

// completeServices completes any number of names of services, from etcd.
func (p *program) completeServices(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	var names []string
	p.whileCompleting(cmd, func(ctx context.Context, conn *etcd.Conn) {
		for _, name := range serviceNames(ctx, conn) {
			if !slices.Contains(args, name) {
				names = append(names, name)
			}
		}
	})
	return names, cobra.ShellCompDirectiveNoFileComp
}

// completeServer completes a service and then addresses of its servers, those that are drained included.
func (p *program) completeServer(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 0 {
		return p.completeServices(cmd, args, toComplete)
	}
	var addrs []string
	p.whileCompleting(cmd, func(ctx context.Context, conn *etcd.Conn) {
		c, err := read(ctx, conn, selection{patterns: args[:1]})
		if err != nil {
			return
		}
		for _, addr := range c.addresses() {
			if !slices.Contains(args[1:], addr) {
				addrs = append(addrs, addr)
			}
		}
	})
	return addrs, cobra.ShellCompDirectiveNoFileComp
}

// addresses is those of records and marks, sorted.
func (c *catalog) addresses() (addrs []string) {
	for _, r := range c.records {
		addrs = append(addrs, addressOf(r))
	}
	for _, m := range c.away() {
		addrs = append(addrs, m.Address)
	}
	slices.Sort(addrs)
	return addrs
}

func (p *program) whileCompleting(cmd *cobra.Command, f func(context.Context, *etcd.Conn)) {
	conn, err := p.connection.connect()
	if err != nil {
		return
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(cmd.Context(), completeTimeout)
	defer cancel()
	f(ctx, conn)
}
