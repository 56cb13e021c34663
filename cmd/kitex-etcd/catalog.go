package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sort"
	"strings"

	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
)

// catalog is what etcd holds of the services that were asked for, at one moment.
type catalog struct {
	records  []etcd.Record              // sorted by key
	marks    map[string]etcd.PlacedMark // by service and address
	revision int64
}

// at names an instance, in a map of marks.
func at(service, addr string) string { return service + "/" + addr }

// addressOf is the last part of a record's key, where its mark is looked for.
func addressOf(r etcd.Record) string { return r.Key[strings.LastIndexByte(r.Key, '/')+1:] }

// read reads the catalog. That the role may not read marks is no error: then there are none to be seen.
func read(ctx context.Context, conn *etcd.Conn, s selection) (*catalog, error) {
	records, revision, err := conn.Records(ctx, s.only())
	if err != nil {
		return nil, err
	}
	c := &catalog{revision: revision, marks: make(map[string]etcd.PlacedMark)}
	for _, r := range records {
		if s.record(r) {
			c.records = append(c.records, r)
		}
	}
	if marks, err := conn.Marks(ctx, s.only()); err == nil {
		for _, m := range marks {
			if s.service(m.Service) {
				c.marks[at(m.Service, m.Address)] = m
			}
		}
	}
	return c, nil
}

// mark is the mark of a record; the zero value wants nothing.
func (c *catalog) mark(r etcd.Record) etcd.PlacedMark { return c.marks[at(r.Service, addressOf(r))] }

// away is the marks of servers that have no record, sorted: those that are drained, and those that were and are stopped.
func (c *catalog) away() []etcd.PlacedMark {
	away := maps.Clone(c.marks)
	for _, r := range c.records {
		delete(away, at(r.Service, addressOf(r)))
	}
	return slices.SortedFunc(maps.Values(away), func(a, b etcd.PlacedMark) int { return strings.Compare(a.Key, b.Key) })
}

// missing says that a service which was asked for by its name is not there, and which is.
func (c *catalog) missing(ctx context.Context, conn *etcd.Conn, s selection) error {
	for _, name := range s.patterns {
		if isPattern(name) || slices.ContainsFunc(c.records, func(r etcd.Record) bool { return r.Service == name }) ||
			slices.ContainsFunc(slices.Collect(maps.Values(c.marks)), func(m etcd.PlacedMark) bool { return m.Service == name }) {
			continue
		}
		return fmt.Errorf("no server of %s is registered%s", printable(name), suggest(name, serviceNames(ctx, conn)))
	}
	return nil
}

// serviceNames is the services that are registered, as far as the role may know.
func serviceNames(ctx context.Context, conn *etcd.Conn) []string {
	records, _, err := conn.Records(ctx, "")
	if err != nil {
		return nil
	}
	names := make(map[string]bool)
	for _, r := range records {
		names[r.Service] = true
	}
	return slices.Sorted(maps.Keys(names))
}

// maxSuggestions bounds what an error offers.
const maxSuggestions = 5

// suggest is the end of a sentence: what there is in the place of a name, the likeliest first.
func suggest(name string, names []string) string {
	if len(names) == 0 {
		return ""
	}
	names = slices.Clone(names)
	sort.SliceStable(names, func(i, j int) bool { return distance(name, names[i]) < distance(name, names[j]) })
	more := ""
	if n := len(names) - maxSuggestions; n > 0 {
		names, more = names[:maxSuggestions], fmt.Sprintf(" and %d more", n)
	}
	for i := range names {
		names[i] = printable(names[i])
	}
	if len(names) == 1 {
		return "; there is " + names[0]
	}
	return "; there are " + strings.Join(names, ", ") + more
}

// distance is how many letters have to be added, removed or replaced to make b of a, whatever their case.
func distance(a, b string) int {
	a, b = strings.ToLower(a), strings.ToLower(b)
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		left := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replace := left
			if a[i] != b[j] {
				replace++
			}
			left = row[j+1]
			row[j+1] = min(replace, left+1, row[j]+1)
		}
	}
	return row[len(b)]
}
