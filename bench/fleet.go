package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

const fleet = 100000

// concludeFleet extends the straight lines through the smallest and the largest crowd to a fleet.
func concludeFleet(rf reported) string {
	figures := make(map[string]map[int]float64) // by row and way, and number
	var counts []int
	for _, r := range rf.Rows {
		for _, s := range r.Sides {
			way, number, _ := strings.Cut(s.Side, " × ")
			n, err := strconv.Atoi(number)
			if err != nil {
				continue
			}
			if figures[r.Name+way] == nil {
				figures[r.Name+way] = make(map[int]float64)
			}
			figures[r.Name+way][n] = s.Figure
			counts = append(counts, n)
		}
	}
	if len(counts) == 0 || slices.Min(counts) == slices.Max(counts) {
		return ""
	}
	few, many := slices.Min(counts), slices.Max(counts)
	proxies := (fleet + many - 1) / many
	slope := func(row, way string) float64 {
		f := figures[row+way]
		return (f[many] - f[few]) / float64(many-few)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "### Fleet of %d clients\n\n", fleet)
	fmt.Fprintf(&b, "Calculated from the rows above, not measured. f(n) is the figure with n clients. The slope is (f(%d) − f(%d)) / %d, so "+
		"f(%d) = f(%d) + slope × %d. All clients watch the service that changes; if only w of them do, a change costs f(w). Clients that register also "+
		"keep a lease alive, which these figures do not include.\n\n",
		many, few, many-few, fleet, many, fleet-many)
	fmt.Fprintf(&b, "| etcd, %s | f(%d) | f(%d) | slope for each client | f(%d) |\n|---|--:|--:|--:|--:|\n", direct, few, many, fleet)
	rows := []struct {
		name, what string
		unit       unit
	}{
		{"fanout_conns", "connections", count},
		{"fanout_memory", "memory", size},
		{"fanout_rest_cpu", "processor time for each second at rest", duration},
		{"fanout_change_cpu", "processor time for each change", duration},
		{"fanout_rest_bytes", "messages at rest", sizeRate},
		{"fanout_change_bytes", "messages for each change", size},
	}
	for _, r := range rows {
		f := figures[r.name+direct]
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", r.what, r.unit.format(f[few]), r.unit.format(f[many]),
			r.unit.format(slope(r.name, direct)), r.unit.format(f[many]+slope(r.name, direct)*float64(fleet-many)))
	}
	fmt.Fprintf(&b, "\nThrough k = %d proxies with %d clients each. A proxy watches the service once for all its clients, and passes on each request of "+
		"theirs. So the rows at rest grow with the clients, by the slope with proxies. The other rows grow with the proxies: etcd sees each proxy "+
		"as one client, and each after the first adds the slope of a direct client.\n\n", proxies, many)
	fmt.Fprintf(&b, "| etcd, %s | f(%d) | f(%d) | and | f(%d) |\n|---|--:|--:|--:|--:|\n", proxied, few, many, fleet)
	for _, r := range rows {
		f := figures[r.name+proxied]
		times, each := proxies-1, slope(r.name, direct)
		if strings.HasPrefix(r.name, "fanout_rest") {
			times, each = fleet-many, slope(r.name, proxied)
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s × %d | %s |\n", r.what, r.unit.format(f[few]), r.unit.format(f[many]), r.unit.format(each), times,
			r.unit.format(f[many]+each*float64(times)))
	}
	fmt.Fprintf(&b, "\nEach of the %d proxies: %s of memory, %s for each second at rest, %s for each change, as measured with %d clients.\n", proxies,
		size.format(figures["fanout_proxy_memory"+proxied][many]), duration.format(figures["fanout_proxy_rest_cpu"+proxied][many]),
		duration.format(figures["fanout_proxy_change_cpu"+proxied][many]), many)
	return b.String()
}
