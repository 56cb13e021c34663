package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/bytedance/sonic"
)

// What a program cannot reach from outside its package is measured by the benchmarks there.

const root = ".." // of the project, from where this module's `go run .` runs

// goBench runs one benchmark of a package once, and returns its metrics by the names of the sub-benchmarks.
func goBench(ctx context.Context, pkg, name, benchtime string) (map[string]map[string]float64, error) {
	if _, err := os.Stat(filepath.Join(root, "runtime", "conn.go")); err != nil {
		return nil, fmt.Errorf("the project is not in %s; run this in its folder bench: %w", root, err)
	}
	cmd := exec.CommandContext(ctx, "go", "test", "-run=^$", "-bench=^"+name+"$", "-benchtime="+benchtime, pkg)
	cmd.Dir = root
	out, err := cmd.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("%s: %w\n%s", cmd, err, out)
	}
	found := make(map[string]map[string]float64)
	for line := range strings.Lines(string(out)) {
		// BenchmarkX/sub=1-8  1000  12.3 ns/op  4 allocs/op
		fields := strings.Fields(line)
		if len(fields) < 4 || !strings.HasPrefix(line, name+"/") {
			continue
		}
		sub := strings.TrimPrefix(fields[0], name+"/")
		if i := strings.LastIndexByte(sub, '-'); i >= 0 {
			sub = sub[:i] // the number of processors
		}
		found[sub] = make(map[string]float64)
		for i := 2; i+1 < len(fields); i += 2 {
			if found[sub][fields[i+1]], err = strconv.ParseFloat(fields[i], 64); err != nil {
				return nil, fmt.Errorf("%s printed %q: %w", cmd, line, err)
			}
		}
	}
	return found, nil
}

// codecFamily is one record, read and written.
func codecFamily() family {
	const library, same, standard = "sonic", "sonic.ConfigStd", "encoding/json"
	type record struct {
		Network string            `json:"network"`
		Address string            `json:"address"`
		Weight  int               `json:"weight"`
		Tags    map[string]string `json:"tags"`
	}
	value := []byte(kitexRecord("bench", address(1)).value)
	var r record
	of := func(name string, unmarshal func([]byte, any) error, marshal func(any) ([]byte, error)) side {
		return side{name, func(context.Context) (values, error) {
			v, err := benchmark("decode", func() error { return unmarshal(value, new(record)) })
			if err != nil {
				return nil, err
			}
			w, err := benchmark("encode", func() error {
				_, err := marshal(&r)
				return err
			})
			maps.Copy(v, w)
			return v, err
		}}
	}
	return family{
		name:  "codec",
		quick: 1,
		about: "One record with three tags. Ours, as the package's own benchmark has it, checks besides that what it reads can be dialled. It writes " +
			"the bytes that encoding/json writes. So does sonic.ConfigStd, which it is measured against; sonic with its defaults writes tags in any order, " +
			"and escapes and checks less",
		rows: []row{
			{name: "decode", what: "time of reading it", unit: duration, targets: []target{timesOf(same, 1.1)}},
			{name: "decode_allocs", what: "allocations", unit: count},
			{name: "encode", what: "time of writing it", unit: duration, targets: []target{timesOf(same, 1.1)}},
			{name: "encode_allocs", what: "allocations", unit: count},
		},
		open: func(*bench) ([]side, error) {
			return []side{
				{ours, codecTurn},
				of(library, sonic.Unmarshal, sonic.Marshal),
				of(same, sonic.ConfigStd.Unmarshal, sonic.ConfigStd.Marshal),
				of(standard, json.Unmarshal, json.Marshal),
			}, json.Unmarshal(value, &r)
		},
	}
}

func codecTurn(ctx context.Context) (values, error) {
	found, err := goBench(ctx, "./runtime/internal/record", "BenchmarkRecord", "200ms")
	if err != nil {
		return nil, err
	}
	v := make(values)
	for _, op := range []string{"decode", "encode"} {
		metrics := found["op="+op+"/codec=ours"]
		if metrics == nil {
			return nil, fmt.Errorf("BenchmarkRecord says nothing of %s", op)
		}
		v[op], v[op+"_allocs"] = []float64{metrics["ns/op"]}, []float64{metrics["allocs/op"]}
	}
	return v, nil
}

// attemptFamily is what a call pays for ejection when all is well.
func attemptFamily() family {
	const without = "without ejection"
	return family{
		name:  "attempt",
		quick: 1,
		about: "Kitex's instance middleware around nothing, for an attempt that succeeds while no instance is suspect, as the package's own benchmark has it: " +
			"with the one of ejection, and without",
		rows: []row{
			{name: "attempt", what: "time", unit: duration, targets: []target{{of: without, times: 1, plus: 5}}},
			{name: "attempt_allocs", what: "allocations", unit: count, targets: []target{atMost(0)}},
		},
		open: func(*bench) ([]side, error) {
			return benchmarked("./runtime/internal/picking", "BenchmarkAttempt",
				[]sub{{ours, map[string]string{"attempt": "state=quiet"}}, {without, map[string]string{"attempt": "state=without"}}}), nil
		},
	}
}

// routeFamily is what a pick pays for lanes and zones.
func routeFamily() family {
	return family{
		name:  "route",
		quick: 1,
		about: "One pick of 1,000 instances in 100 lanes, as the package's own benchmark has it: of a balancer with Lane or Prefer, and of Kitex's own alone",
		rows: []row{
			{name: "route_lane", what: "time of a pick with Lane", unit: duration, targets: []target{{of: stock, times: 1, plus: 40}}},
			{name: "route_lane_allocs", what: "allocations", unit: count, targets: []target{atMost(0)}},
			{name: "route_prefer", what: "time of a pick with Prefer", unit: duration, targets: []target{{of: stock, times: 1, plus: 40}}},
			{name: "route_prefer_allocs", what: "allocations", unit: count, targets: []target{atMost(0)}},
		},
		open: func(*bench) ([]side, error) {
			return benchmarked("./runtime/internal/picking", "BenchmarkRoute", []sub{
				{ours, map[string]string{"route_lane": "route=lane", "route_prefer": "route=prefer"}},
				{stock, map[string]string{"route_lane": "route=none", "route_prefer": "route=none"}},
			}), nil
		},
	}
}

// sub says which sub-benchmark measures each of a side's values.
type sub struct {
	side string
	of   map[string]string
}

// benchmarked are sides that one benchmark measures together, one after the other, in the turn of the first.
func benchmarked(pkg, name string, subs []sub) []side {
	var found map[string]map[string]float64
	var sides []side
	for i, s := range subs {
		sides = append(sides, side{s.side, func(ctx context.Context) (values, error) {
			if i == 0 {
				var err error
				if found, err = goBench(ctx, pkg, name, "200ms"); err != nil {
					return nil, err
				}
			}
			v := make(values)
			for value, sub := range s.of {
				metrics := found[sub]
				if metrics == nil {
					return nil, fmt.Errorf("%s says nothing of %s", name, sub)
				}
				v[value], v[value+"_allocs"] = []float64{metrics["ns/op"]}, []float64{metrics["allocs/op"]}
			}
			return v, nil
		}})
	}
	return sides
}
