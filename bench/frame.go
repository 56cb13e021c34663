package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// A family is what is measured together: its sides, which take turns, and the rows that their turns fill.
type family struct {
	name   string
	about  string
	rounds int // 0 means 5
	quick  int // rounds of a quick run; 0 means as many
	rows   []row
	plots  []drawing
	// conclude returns what follows from the figures, as Markdown; may be nil.
	conclude func(reported) string
	// open makes the sides ready. What has to be undone is given to bench.cleanup.
	open func(b *bench) ([]side, error)
}

// A row is one quantity of all sides and what is expected of ours.
type row struct {
	name     string
	what     string
	unit     unit
	from     string  // the values that it summarises; empty means those called name
	quantile float64 // of the values; 0 means the median
	mean     bool    // instead of a quantile
	targets  []target
}

// A side is one of those compared.
type side struct {
	name string
	turn func(ctx context.Context) (values, error)
}

// values are what a turn measured, by name.
type values map[string][]float64

// eachSide returns ours and the predecessor, which take the same turn.
func eachSide(turn func(ctx context.Context, lib string) (values, error)) []side {
	var sides []side
	for _, lib := range []string{ours, before} {
		sides = append(sides, side{lib, func(ctx context.Context) (values, error) { return turn(ctx, lib) }})
	}
	return sides
}

// The sides that more than one family has.
const (
	ours    = "kitex-etcd"
	before  = "registry-etcd"
	gozero  = "go-zero"
	kratos  = "kratos"
	naming  = "etcd naming"
	nothing = "floor"
)

// target is a bound of our figure: at most limit, or at most times the figure of the side of, and plus besides.
type target struct {
	of    string
	times float64
	plus  float64
}

func atMost(limit float64) target             { return target{plus: limit} }
func timesOf(of string, times float64) target { return target{of: of, times: times} }

// bench is the run of one family.
type bench struct {
	ctx    context.Context
	quick  bool
	etcd   *etcdProcess
	shared *clientv3.Client // of the sides that bring none of their own

	mu       sync.Mutex // trials run beside each other
	cleanups []func()
}

// cleanup has f run when the family is done, the last one first.
func (b *bench) cleanup(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.cleanups = append(b.cleanups, f)
}

// pick returns full, or less in a quick run.
func (b *bench) pick(full, less int) int {
	if b.quick {
		return less
	}
	return full
}

func (b *bench) close() {
	for _, f := range slices.Backward(b.cleanups) {
		f()
	}
}

// result is what the turns of one side added up to.
type result struct {
	Side   string  `json:"side"`
	Figure float64 `json:"figure"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
	Values int     `json:"values"`
}

// measure has the sides of f take turns and returns the values of each.
func measure(ctx context.Context, f family, quick bool, progress io.Writer) (all map[string]values, err error) {
	b := &bench{ctx: ctx, quick: quick}
	defer b.close()
	if b.etcd, err = startEtcd(); err != nil {
		return nil, err
	}
	b.cleanup(b.etcd.close)
	sides, err := f.open(b)
	if err != nil {
		return nil, err
	}
	all = make(map[string]values)
	rounds := cmp.Or(f.rounds, 5)
	if quick {
		rounds = cmp.Or(f.quick, rounds)
	}
	for round := range rounds {
		for _, s := range sides {
			begin := time.Now()
			v, err := s.turn(ctx)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", s.name, err)
			}
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			if all[s.name] == nil {
				all[s.name] = make(values)
			}
			for name, found := range v {
				all[s.name][name] = append(all[s.name][name], found...)
			}
			fmt.Fprintf(progress, "  %-14s round %d of %d  %-18s %6.1f s\n", f.name, round+1, rounds, s.name, time.Since(begin).Seconds())
		}
	}
	return all, nil
}

// results summarises the values of every side that the row has, ours first.
func (r row) results(all map[string]values) []result {
	var rs []result
	from := r.from
	if from == "" {
		from = r.name
	}
	for name, v := range all {
		found := slices.Sorted(slices.Values(v[from]))
		if len(found) == 0 {
			continue
		}
		figure := quantile(found, cmp.Or(r.quantile, 0.5))
		if r.mean {
			figure = mean(found)
		}
		rs = append(rs, result{name, figure, found[0], found[len(found)-1], len(found)})
	}
	order := []string{ours, before, gozero, kratos, naming}
	place := func(r result) int {
		if i := slices.Index(order, r.Side); i >= 0 {
			return i
		}
		return len(order) // what only some families have
	}
	slices.SortFunc(rs, func(a, b result) int {
		return cmp.Or(place(a)-place(b), len(a.Side)-len(b.Side), strings.Compare(a.Side, b.Side)) // 500 before 2000
	})
	return rs
}

func mean(values []float64) float64 {
	var sum float64
	for _, v := range values {
		sum += v
	}
	return sum / float64(len(values))
}

// quantile of sorted values.
func quantile(sorted []float64, q float64) float64 {
	return sorted[max(0, int(math.Ceil(q*float64(len(sorted))))-1)]
}

// benchmark measures f, which is called often: its time, allocations and bytes, as name, name_allocs and name_bytes.
func benchmark(name string, f func() error) (values, error) {
	var failed error
	res := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := f(); err != nil {
				failed = err
				b.FailNow()
			}
		}
	})
	if failed == nil && res.N == 0 {
		failed = errors.New("the benchmark did not run")
	}
	return values{
		name:             {float64(res.T.Nanoseconds()) / float64(max(res.N, 1))},
		name + "_allocs": {float64(res.AllocsPerOp())},
		name + "_bytes":  {float64(res.AllocedBytesPerOp())},
	}, failed
}

// await polls until done says so. Everything waited for here comes within seconds, or is broken.
func await(ctx context.Context, what string, limit time.Duration, done func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for !done() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: waited %v in vain", what, limit)
		case <-time.After(5 * time.Millisecond):
		}
	}
	return nil
}

// within returns how long it takes from begin until done says so, or limit when that is not enough.
func within(ctx context.Context, begin time.Time, limit time.Duration, done func() bool) float64 {
	_ = await(ctx, "", limit-time.Since(begin), done)
	return float64(min(time.Since(begin), limit))
}
