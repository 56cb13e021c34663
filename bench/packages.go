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
		about: "One record with three tags. Ours, as the package's own benchmark has it, checks besides that what it reads can be dialled, and " +
			"writes the bytes that encoding/json writes, as sonic.ConfigStd does; sonic is with its defaults, which write tags in " +
			"any order, and escape and check less",
		rows: []row{
			{name: "decode", what: "time of reading it", unit: duration, targets: []target{timesOf(library, 1), timesOf(same, 1)}},
			{name: "decode_allocs", what: "allocations", unit: count},
			{name: "encode", what: "time of writing it", unit: duration, targets: []target{timesOf(library, 1), timesOf(same, 1)}},
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

// generateFamily is the command beside Kitex's. One run of the benchmark has both sides, one after the other.
func generateFamily() family {
	const kitex = "kitex"
	sides := []struct{ name, sub, tool string }{{kitex, "by=kitex", "by=kitex"}, {ours, "by=kitex-etcd-gen/tree=new", "by=kitex-etcd-gen"}}
	f := family{name: "generate", about: "Code for 100 services: Kitex's, and ours besides", quick: 1}
	for _, generated := range []struct {
		idls string
		most float64 // of Kitex's time
	}{{"100", 0.02}, {"1", 0.08}} {
		name := "generate_" + generated.idls
		f.rows = append(f.rows,
			row{name: name, what: "time, with the services in " + generated.idls + " IDLs", unit: duration, targets: []target{timesOf(kitex, generated.most)}},
			row{name: name + "_cpu", what: "processor time of it", unit: duration})
	}
	f.rows = append(f.rows,
		row{name: "generate_start", what: "time of -version", unit: duration, targets: []target{atMost(5e6)}},
		row{name: "generate_start_memory", what: "most memory of it", unit: size, targets: []target{atMost(8e6)}},
		row{name: "generate_binary", what: "size of the program", unit: size, targets: []target{atMost(8e6)}},
		row{name: "generate_packages", what: "packages to build for it", unit: count, targets: []target{atMost(120)}})
	f.open = func(*bench) ([]side, error) {
		var found, started map[string]map[string]float64
		var turns []side
		for i, s := range sides {
			turns = append(turns, side{s.name, func(ctx context.Context) (values, error) {
				if i == 0 {
					var err error
					if found, err = goBench(ctx, "./golden", "BenchmarkServices", "1x"); err != nil {
						return nil, err
					}
					if started, err = goBench(ctx, "./golden", "BenchmarkStart", "20x"); err != nil {
						return nil, err
					}
				}
				v := make(values)
				for _, idls := range []string{"100", "1"} {
					metrics := found["idls="+idls+"/"+s.sub]
					if metrics == nil {
						return nil, fmt.Errorf("BenchmarkServices says nothing of %s with %s IDLs", s.sub, idls)
					}
					v["generate_"+idls] = []float64{metrics["ns/op"]}
					v["generate_"+idls+"_cpu"] = []float64{metrics["cpu-ms/op"] * 1e6}
				}
				metrics := started[s.tool]
				if metrics == nil {
					return nil, fmt.Errorf("BenchmarkStart says nothing of %s", s.tool)
				}
				v["generate_start"], v["generate_start_memory"] = []float64{metrics["ns/op"]}, []float64{metrics["B-rss"]}
				v["generate_binary"], v["generate_packages"] = []float64{metrics["B-binary"]}, []float64{metrics["packages"]}
				return v, nil
			}})
		}
		return turns, nil
	}
	return f
}
