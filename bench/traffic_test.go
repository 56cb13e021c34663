package main

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/cloudwego/kitex/client"
)

// TestTraffic: the client of each library calls the servers that it finds, and what fails is counted where it belongs.
func TestTraffic(t *testing.T) {
	e, err := startEtcd()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.close)
	for _, lib := range callingLibs {
		t.Run(lib, func(t *testing.T) {
			t.Parallel()
			b := &bench{ctx: t.Context(), quick: true, etcd: e}
			defer b.close()
			v, ways, err := behindProxies(t.Context(), b, lib, "bench-test-"+lib, 2)
			if err != nil {
				t.Fatal(err)
			}
			traffic, err := v.traffic(t.Context(), b, lib, "bench-test-"+lib, callerOptions{timeout: time.Second, options: []client.Option{longPool()}})
			if err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			for _, w := range ways {
				w.shut()
			}
			if err := await(t.Context(), "failures", 10*time.Second, func() bool { return len(traffic.failedCalls(began)) > 20 }); err != nil {
				t.Fatal(err)
			}
			if len(traffic.failedAttempts(v.addr, began)) == 0 {
				t.Error("no attempt at the victim failed")
			}
		})
	}
}

func TestFailedOutcomes(t *testing.T) {
	begin := time.Now()
	at := func(addr string, begun, ended time.Duration, err error) outcome {
		return outcome{addr, begin.Add(begun), begin.Add(ended), err}
	}
	broken := errors.New("broken")
	all := []outcome{
		at("a", -3, -2, broken), // before
		at("a", -1, 1, broken),  // was under way
		at("a", 2, 3, nil),
		at("b", 3, 4, broken),
		at("", 4, 5, broken), // nobody knows where
	}
	if got := failed(all, "a", begin); !slices.Equal(got, []float64{-1, 4}) {
		t.Errorf("at a: %v", got)
	}
	if got := failed(all, "", begin); !slices.Equal(got, []float64{-1, 3, 4}) {
		t.Errorf("anywhere: %v", got)
	}
}
