package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
)

func (p *program) servicesCommand() *cobra.Command {
	return p.listing(&cobra.Command{
		Use:   "services [SERVICE…]",
		Short: "A line for each service",
		Long: `Prints the services that are registered in etcd, all or those named; SERVICE may be a pattern such as 'Order*'.

DRAINED counts the servers that an operator's mark keeps out of etcd. OLDEST and YOUNGEST registered before and after the others: etcd
knows the order, not the time. ZONES and LANES count the instances by their tags zone and lane.`,
		Example: "  kitex-etcd services -o wide",
		RunE:    p.withConn(p.services),
	})
}

// service is what is printed of one service.
type service struct {
	Service   string         `json:"service" yaml:"service"`
	Instances int            `json:"instances" yaml:"instances"`
	Drained   int            `json:"drained" yaml:"drained"`
	Weighed   int            `json:"weighed" yaml:"weighed"` // have a weight that a mark gives
	Ignored   int            `json:"ignored,omitempty" yaml:"ignored,omitempty"`
	Oldest    string         `json:"oldest,omitempty" yaml:"oldest,omitempty"`
	Youngest  string         `json:"youngest,omitempty" yaml:"youngest,omitempty"`
	Zones     map[string]int `json:"zones,omitempty" yaml:"zones,omitempty"`
	Lanes     map[string]int `json:"lanes,omitempty" yaml:"lanes,omitempty"`

	oldest, youngest int64 // when, in revisions
}

func (p *program) services(cmd *cobra.Command, conn *etcd.Conn, args []string) error {
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
	all := c.services(len(s.tags) == 0)
	if len(all) == 0 {
		p.say("nothing is registered below %s/", p.connection.prefix)
		return nil
	}
	if p.tabular() {
		return p.serviceTable(all)
	}
	for _, svc := range all {
		if err := p.object(svc); err != nil {
			return err
		}
	}
	return nil
}

// services counts by service, sorted; those without a record too, if away is set.
func (c *catalog) services(away bool) []*service {
	byName := make(map[string]*service)
	of := func(name string) *service {
		if byName[name] == nil {
			byName[name] = &service{Service: name, Zones: make(map[string]int), Lanes: make(map[string]int)}
		}
		return byName[name]
	}
	for _, r := range c.records {
		svc := of(r.Service)
		if r.Err != nil {
			svc.Ignored++
			continue
		}
		svc.Instances++
		if m := c.mark(r); m.Weight != 0 {
			svc.Weighed++
		}
		if svc.oldest == 0 || r.Created < svc.oldest {
			svc.Oldest, svc.oldest = r.Address, r.Created
		}
		if r.Created >= svc.youngest {
			svc.Youngest, svc.youngest = r.Address, r.Created
		}
		if zone, ok := r.Tags["zone"]; ok {
			svc.Zones[zone]++
		}
		if lane, ok := r.Tags["lane"]; ok {
			svc.Lanes[lane]++
		}
	}
	if away {
		for _, m := range c.away() {
			if m.Err == nil && m.Drain {
				of(m.Service).Drained++
			}
		}
	}
	return slices.SortedFunc(maps.Values(byName), func(a, b *service) int { return strings.Compare(a.Service, b.Service) })
}

func (p *program) serviceTable(all []*service) error {
	titles := []string{"SERVICE", "INSTANCES", "DRAINED", "ZONES"}
	if p.output == "wide" {
		titles = []string{"SERVICE", "INSTANCES", "DRAINED", "WEIGHED", "IGNORED", "OLDEST", "YOUNGEST", "LANES", "ZONES"}
	}
	t := newTable(p.stdout, p.output == "table", titles...)
	row := func(s *service) []string {
		zones := cmp.Or(counts(s.Zones), "-")
		cells := []string{printable(s.Service), strconv.Itoa(s.Instances), strconv.Itoa(s.Drained)}
		if p.output == "table" {
			if lanes := counts(s.Lanes); lanes != "" {
				zones += " lanes " + lanes
			}
			return append(cells, zones)
		}
		return append(cells, strconv.Itoa(s.Weighed), strconv.Itoa(s.Ignored), cmp.Or(printable(cmp.Or(s.Oldest, "-"))), printable(cmp.Or(s.Youngest, "-")), cmp.Or(counts(s.Lanes), "-"), zones)
	}
	for _, s := range all {
		t.fit(row(s)...)
	}
	if err := t.header(); err != nil {
		return err
	}
	for _, s := range all {
		if err := t.row("", row(s)...); err != nil {
			return err
		}
	}
	return nil
}

// counts prints a map of counts in the order of its names.
func counts(m map[string]int) string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(m)) {
		all = append(all, fmt.Sprintf("%s:%d", printable(name), m[name]))
	}
	return strings.Join(all, ",")
}
