package main

import (
	"context"
	"fmt"
)

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
