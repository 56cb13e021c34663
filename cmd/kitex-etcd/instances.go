package main

import (
	"cmp"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
)

func (p *program) instancesCommand() *cobra.Command {
	var snapshot string
	cmd := p.listing(&cobra.Command{
		Use:   "instances [SERVICE…]",
		Short: "A line for each instance",
		Long: `Prints the instances that are registered in etcd, of all services or of those named; SERVICE may be a pattern such as 'Order*'.

LEASE is how long the record stays if its server is not heard of any more. A server renews it every third: what is marked with !
belongs to one that is late, dead or cut off. none stays until somebody deletes it. drained is a server that an operator's
mark keeps out of etcd; whether it still runs, etcd does not know. gone has a mark, which does not drain it, and is not registered.

AGE is how long ago the server's process was granted its lease: since it started to register, or since it lost a lease. It is not known
of servers of other libraries.

--snapshot FILE prints what a client stored with WithSnapshots, and asks no etcd.`,
		Example: `  kitex-etcd instances 'Order*' -l zone=a
  kitex-etcd instances Hello -o json | jq -r .address`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if snapshot != "" {
				return p.snapshot(snapshot, args)
			}
			return p.withConn(p.instances)(cmd, args)
		},
	})
	cmd.Flags().StringVar(&snapshot, "snapshot", "", "print what a client stored in this `file`, without etcd")
	return cmd
}

func (p *program) instances(cmd *cobra.Command, conn *etcd.Conn, args []string) error {
	s, err := p.selection(args)
	if err != nil {
		return err
	}
	c, err := read(cmd.Context(), conn, s)
	if err != nil {
		return err
	}
	if err := c.missing(cmd.Context(), conn, s); err != nil {
		return err
	}
	away := c.away()
	if len(s.tags) > 0 {
		away = nil // of what is not there, the tags are not known
	}
	if len(c.records)+len(away) == 0 {
		p.say("nothing is registered below %s/", p.connection.prefix)
		return nil
	}
	leases, wait := askLeases(cmd.Context(), conn, c.records)
	defer leases.explain(p)
	defer wait()
	defer leases.progress(p)()
	if p.tabular() {
		return p.instanceTable(c, away, leases)
	}
	for _, r := range c.records {
		i := newInstance(r).marked(c.mark(r))
		if answer := leases.of(r.Lease); answer != nil && answer.err == nil {
			i.TTL, i.Granted = &answer.ttl, answer.granted
		}
		if err := p.object(i); err != nil {
			return err
		}
	}
	for _, m := range away {
		if err := p.object(instance{}.marked(m)); err != nil {
			return err
		}
	}
	return nil
}

// widestLease is the room for LEASE, whose answers come while rows are printed.
const widestLease = "9s of 10s !"

// instanceTable prints each row as soon as etcd told about its lease.
func (p *program) instanceTable(c *catalog, away []etcd.PlacedMark, leases *leases) error {
	titles := []string{"SERVICE", "ADDRESS", "WEIGHT", "LEASE", "AGE"}
	now := time.Now()
	if p.output == "wide" {
		titles = append(titles, "NETWORK", "REVISION", "MARK")
	}
	t := newTable(p.stdout, p.output == "table", append(titles, "TAGS")...)
	row := func(r etcd.Record, lease string) []string {
		cells := []string{printable(r.Service), printable(r.Address), strconv.Itoa(r.Weight), lease, age(r.Since, now)}
		if p.output == "wide" {
			cells = append(cells, r.Network, strconv.FormatInt(r.Revision, 10), cmp.Or(markText(c.mark(r)), "-"))
		}
		return append(cells, cmp.Or(tags(r.Tags), "-"))
	}
	awayRow := func(m etcd.PlacedMark) []string {
		state := "drained"
		if m.Err != nil || !m.Drain {
			state = "gone"
		}
		cells := []string{printable(m.Service), printable(m.Address), "-", state, "-"}
		if p.output == "wide" {
			return append(cells, "-", strconv.FormatInt(m.Revision, 10), markText(m), "-")
		}
		return append(cells, sentence(m.Reason))
	}
	for _, r := range c.records {
		if r.Err == nil {
			t.fit(row(r, widestLease)...)
		}
	}
	for _, m := range away {
		t.fit(awayRow(m)...)
	}
	if err := t.header(); err != nil {
		return err
	}
	next := 0
	for _, r := range c.records {
		for ; next < len(away) && at(away[next].Service, away[next].Address) < at(r.Service, addressOf(r)); next++ {
			if err := t.row(dim, awayRow(away[next])...); err != nil {
				return err
			}
		}
		if r.Err != nil {
			p.say("clients ignore the key %q: %v", r.Key, r.Err)
			continue
		}
		answer := leases.of(r.Lease)
		color := ""
		if answer.late() {
			color = red
		}
		if err := t.row(color, row(r, answer.text())...); err != nil {
			return err
		}
	}
	for _, m := range away[next:] {
		if err := t.row(dim, awayRow(m)...); err != nil {
			return err
		}
	}
	return nil
}

// markText is what an operator wants, in words; empty: nothing.
func markText(m etcd.PlacedMark) string {
	var words []string
	switch {
	case m.Key == "":
		return ""
	case m.Err != nil:
		return "ignored: " + m.Err.Error()
	}
	if m.Drain {
		words = append(words, "drain")
	}
	if m.Weight != 0 {
		words = append(words, "weight "+strconv.Itoa(m.Weight))
	}
	text := cmp.Or(strings.Join(words, ", "), "nothing")
	if m.Reason != "" {
		text += " (" + sentence(m.Reason) + ")"
	}
	return text
}
