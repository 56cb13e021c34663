package main

import (
	"cmp"
	"strconv"
	"strings"
	"time"

	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
)

// snapshot prints the instances in a file of WithSnapshots. It asks no etcd.
func (p *program) snapshot(file string, args []string) error {
	if err := p.checkOutput(); err != nil {
		return err
	}
	selected, err := p.selection(args)
	if err != nil {
		return err
	}
	s, err := etcd.ReadSnapshot(file)
	if err != nil {
		return err
	}
	endpoints := make([]string, len(s.Endpoints))
	for i, endpoint := range s.Endpoints {
		endpoints[i] = printable(endpoint)
	}
	p.say("%s of program %s, prefix %s: confirmed %s ago by cluster %s at %s",
		printable(s.Service), printable(s.Program), printable(s.Prefix), duration(time.Since(s.Confirmed)), printable(s.Cluster), strings.Join(endpoints, ","))
	var records []etcd.Record
	for _, r := range s.Instances {
		if selected.record(r) {
			records = append(records, r)
		}
	}
	if !p.tabular() {
		for _, r := range records {
			if err := p.object(newInstance(r)); err != nil {
				return err
			}
		}
		return nil
	}
	titles := []string{"SERVICE", "ADDRESS", "WEIGHT"}
	if p.output == "wide" {
		titles = append(titles, "NETWORK")
	}
	t := newTable(p.stdout, p.output == "table", append(titles, "TAGS")...)
	row := func(r etcd.Record) []string {
		cells := []string{printable(r.Service), printable(r.Address), strconv.Itoa(r.Weight)}
		if p.output == "wide" {
			cells = append(cells, printable(r.Network))
		}
		return append(cells, cmp.Or(tags(r.Tags), "-"))
	}
	for _, r := range records {
		t.fit(row(r)...)
	}
	if err := t.header(); err != nil {
		return err
	}
	for _, r := range records {
		if err := t.row("", row(r)...); err != nil {
			return err
		}
	}
	return nil
}
