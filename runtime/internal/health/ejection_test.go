package health

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

var errTest = errors.New("a failure")

// fleet is a Tracker, its service's list, and a clock that is held.
type fleet struct {
	*Tracker
	t   testing.TB
	ids map[string]any
	now time.Time
}

func newFleet(t testing.TB, n int) *fleet {
	f := &fleet{Tracker: New(func() float64 { return 0.5 }), t: t, ids: make(map[string]any), now: time.Unix(1000, 0)}
	for i := range n {
		f.ids[addr(i)] = 0
	}
	f.list()
	return f
}

func addr(i int) string { return fmt.Sprint("h", i) }

func (f *fleet) list() {
	f.List(len(f.ids), func(a string) (any, bool) { id, ok := f.ids[a]; return id, ok })
}

func (f *fleet) report(i int, signals ...Signal) {
	for _, s := range signals {
		f.Report(addr(i), f.ids[addr(i)], s, "via", errTest, f.now)
	}
}

// eject has no connection made to one, while another answers.
func (f *fleet) eject(i, witness int) {
	f.report(i, NoConnection)
	f.report(witness, Answered)
	f.report(i, NoConnection)
}

func (f *fleet) pass(d time.Duration) []Probe {
	f.now = f.now.Add(d)
	probes, _ := f.Due(f.now)
	return probes
}

func (f *fleet) begin(addr string) bool {
	ok, _ := f.Begin(addr, f.now)
	return ok
}

func (f *fleet) wantExcluded(addrs ...string) {
	f.t.Helper()
	var got []string
	for a := range f.Excluded().addrs {
		got = append(got, a)
	}
	slices.Sort(got)
	f.Apply(f.Excluded())
	if !slices.Equal(got, addrs) {
		f.t.Fatalf("excluded are %v, want %v", got, addrs)
	}
}

// TestSignals: what it takes to be ejected, each beside an instance that answers.
func TestSignals(t *testing.T) {
	for name, tc := range map[string]struct {
		signals []Signal
		ejected bool
	}{
		"refused":                       {[]Signal{NoConnection, NoConnection}, true},
		"refused once":                  {[]Signal{NoConnection}, false}, // nobody answered since
		"one dial timeout":              {[]Signal{DialTimeout}, false},
		"two dial timeouts":             {[]Signal{DialTimeout, DialTimeout}, true},
		"an answer between":             {[]Signal{DialTimeout, Answered, DialTimeout}, false},
		"two calls without answer":      {[]Signal{NoAnswer, NoAnswer}, false},
		"three calls without answer":    {[]Signal{NoAnswer, NoAnswer, NoAnswer}, true},
		"an answer among the three":     {[]Signal{NoAnswer, NoAnswer, Answered, NoAnswer}, false},
		"an answer, and then all three": {[]Signal{NoAnswer, Answered, NoAnswer, NoAnswer, NoAnswer}, true},
		"connections closed at once":    {[]Signal{Closed, Closed, Closed, Closed}, false}, // may be load that is shed
	} {
		t.Run(name, func(t *testing.T) {
			f := newFleet(t, 3)
			for _, s := range tc.signals {
				f.wantExcluded() // not before the last
				f.report(0, s)
				if s != Answered {
					f.report(1, Answered)
				}
			}
			if tc.ejected {
				f.wantExcluded("h0")
				if got := f.Changes(); len(got) != 1 || got[0] != (Change{"h0", true, errTest}) {
					t.Errorf("changes %+v", got)
				}
			} else {
				f.wantExcluded()
			}
			if got := f.Quiet(); got != (tc.ejected || tc.signals[len(tc.signals)-1] == Answered) {
				t.Errorf("quiet: %v", got)
			}
		})
	}
}

// TestClosed: a server that answers nothing and closes connections is ejected when it has done so for a while.
func TestClosed(t *testing.T) {
	f := newFleet(t, 3)
	for range 3 {
		f.wantExcluded()
		f.report(0, Closed)
		f.report(1, Answered)
		f.pass(closedFor / 2)
	}
	f.wantExcluded("h0")
}

// TestWitness: an answer from before the first failure, or from the address itself, is none.
func TestWitness(t *testing.T) {
	f := newFleet(t, 3)
	f.report(1, Answered)
	f.report(0, NoConnection, NoConnection)
	f.wantExcluded()
	f.report(0, Answered, NoConnection)
	f.wantExcluded()
	f.report(2, Answered)
	f.wantExcluded() // it may be back as well
	f.report(0, NoConnection)
	f.wantExcluded("h0")
}

// TestFloor: half of the list, rounded up, and at least one, is always usable. Where more fail, all are.
func TestFloor(t *testing.T) {
	for n, most := range map[int]int{1: 0, 2: 1, 3: 1, 4: 2, 5: 2, 9: 4} {
		f := newFleet(t, n)
		for i := range n - 1 {
			f.eject(i, n-1)
			want := 0
			if i < most {
				want = i + 1
			}
			if got := f.Excluded().Len(); got != want {
				t.Errorf("%d of %d dead: %d are excluded, want %d", i+1, n, got, want)
			}
		}
		if got := f.Ejected(); got != n-1 {
			t.Errorf("%d of %d are known to be dead, want %d", got, n, n-1)
		}
	}
}

// TestUnreachable: an address without connections is probed about once a second until one is made.
func TestUnreachable(t *testing.T) {
	f := newFleet(t, 3)
	f.eject(0, 1)
	for range 5 {
		probes := f.pass(probeEvery)
		if len(probes) != 1 || probes[0] != (Probe{"h0", 0, "via"}) {
			t.Fatalf("probes %+v", probes)
		}
		f.Probed(probes[0], false)
		f.wantExcluded("h0")
		if len(f.pass(probeEvery/2)) != 0 {
			t.Fatal("probed twice in a second")
		}
		f.now = f.now.Add(-probeEvery / 2)
	}
	f.Probed(Probe{Addr: "h0", ID: 0}, true)
	f.wantExcluded()
	if got := f.Changes(); len(got) != 2 || got[1] != (Change{"h0", false, errTest}) {
		t.Errorf("changes %+v", got)
	}
}

// TestTrial: an address that does not answer is tried by one call, and by the next after 2 s.
// TestSuspects: a retry keeps away from those that failed and have not answered since, while at least half of the list is left.
func TestSuspects(t *testing.T) {
	f := newFleet(t, 4)
	expect := func(want ...string) {
		t.Helper()
		got := f.Suspects()
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Fatalf("%v, want %v", got, want)
		}
	}
	expect()
	f.report(0, Closed)
	f.report(1, NoAnswer)
	expect(addr(0), addr(1))
	f.report(2, Closed)
	expect() // too many
	f.report(2, Answered)
	f.report(0, Answered)
	expect(addr(1))
	f.eject(3, 2) // the ejected are out of the pickers, and count
	expect(addr(1))
	f.report(0, Closed)
	expect()

	f = newFleet(t, 100)
	for i := range maxSuspects + 1 {
		if f.report(i, NoAnswer); len(f.Suspects()) != (i+1)%(maxSuspects+1) {
			t.Fatalf("%d failed, and %d are suspect", i+1, len(f.Suspects()))
		}
	}
}

func TestTrial(t *testing.T) {
	f := newFleet(t, 3)
	f.report(0, NoAnswer, NoAnswer)
	f.report(1, Answered)
	f.report(0, NoAnswer)
	if f.begin("h0") {
		t.Fatal("an attempt went to an ejected address")
	}
	wait := firstTrial
	for range 3 {
		f.pass(wait)
		f.wantExcluded()
		if !f.begin("h0") || f.begin("h0") || !f.begin("h1") {
			t.Fatal("not just one call tries")
		}
		f.wantExcluded("h0")
		f.now = f.now.Add(300 * time.Millisecond)
		f.report(0, NoAnswer)
		wait = nextTrial - 300*time.Millisecond
		f.pass(wait - time.Millisecond)
		f.wantExcluded("h0")
		wait = time.Millisecond
	}
	f.pass(time.Millisecond)
	f.Begin("h0", f.now)
	f.report(0, Answered)
	f.wantExcluded()
	if f.Ejected() != 0 || !f.Quiet() {
		t.Error("it answered and is still suspect")
	}
}

// TestATrialWithoutOutcome ends nothing: another follows.
func TestATrialWithoutOutcome(t *testing.T) {
	f := newFleet(t, 3)
	f.report(0, NoAnswer, NoAnswer)
	f.report(1, Answered)
	f.report(0, NoAnswer)
	f.pass(firstTrial)
	f.Begin("h0", f.now)
	f.pass(nextTrial)
	if !f.begin("h0") {
		t.Error("no second trial")
	}
}

// TestAnotherRecord: a new record at the address is another server, and one that is gone needs no memory.
func TestAnotherRecord(t *testing.T) {
	f := newFleet(t, 5)
	f.eject(0, 2)
	f.eject(1, 2)
	f.wantExcluded("h0", "h1")
	f.ids["h0"] = 1
	delete(f.ids, "h1")
	f.list()
	f.wantExcluded()
	if n := f.Ejected(); n != 0 {
		t.Errorf("%d are ejected", n)
	}
}

// TestOldFailuresAreForgotten when none follows.
func TestOldFailuresAreForgotten(t *testing.T) {
	f := newFleet(t, 3)
	f.report(0, NoAnswer, NoAnswer)
	f.pass(memory)
	f.report(0, NoAnswer)
	f.report(1, Answered)
	f.wantExcluded()
}

// TestProperty: whatever happens, in whatever order, at least half of the list is usable, nobody is ejected without a
// witness, and everybody who answers again is back soon.
func TestProperty(t *testing.T) {
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 1))
		n := 1 + rng.IntN(9)
		f := newFleet(t, n)
		f.random = rng.Float64
		mute := rng.IntN(4) == 0 // nobody ever answers
		for step := range 400 {
			i := rng.IntN(n)
			switch rng.IntN(8) {
			case 0:
				for _, p := range f.pass(time.Duration(rng.IntN(1500)) * time.Millisecond) {
					f.Probed(p, false)
				}
			case 1:
				f.Begin(addr(i), f.now)
			case 2:
				for _, p := range f.pass(0) {
					f.Probed(p, !mute && rng.IntN(3) == 0)
				}
			case 3:
				f.ids[addr(i)] = step
				f.list()
			default:
				if s := Signal(rng.IntN(5)); s != Answered || !mute {
					f.report(i, s)
				}
			}
			if usable := n - f.Excluded().Len(); usable < (n+1)/2 || usable < 1 {
				t.Fatalf("seed %d, step %d: %d of %d are usable", seed, step, usable, n)
			}
			if mute && f.Ejected() > 0 {
				t.Fatalf("seed %d, step %d: ejected without a witness", seed, step)
			}
		}
		// All answer again. Whoever is tried, answers; whoever is probed, is reached.
		for began := f.now; f.Ejected() > 0; {
			for _, p := range f.pass(100 * time.Millisecond) {
				f.Probed(p, true)
			}
			for i := range n {
				if f.begin(addr(i)) {
					f.report(i, Answered)
				}
			}
			if f.now.Sub(began) > 3*time.Second {
				t.Fatalf("seed %d: %d are still ejected after %v of answers", seed, f.Ejected(), f.now.Sub(began))
			}
		}
	}
}

// TestAFleetsProbesAreSpread: a thousand clients eject one server in the same moment. What it sees of their probes when it is back
// is no wave: in no tenth of a second more than a third of them.
func TestAFleetsProbesAreSpread(t *testing.T) {
	const clients, tick = 1000, 10 * time.Millisecond
	var fleets []*fleet
	for range clients {
		f := newFleet(t, 3)
		f.random = rand.Float64
		f.eject(0, 1)
		fleets = append(fleets, f)
	}
	buckets := make([]int, 12)
	for i := range int(1200*time.Millisecond/tick) + 1 {
		for _, f := range fleets {
			for _, p := range f.pass(tick) {
				buckets[min(i/10, len(buckets)-1)]++
				f.Probed(p, true)
			}
		}
	}
	all := 0
	for _, n := range buckets {
		all += n
	}
	t.Logf("probes by tenths of a second: %v", buckets)
	if all != clients {
		t.Errorf("%d probes of %d clients, want one each", all, clients)
	}
	if most := slices.Max(buckets); most > clients/3 {
		t.Errorf("%d probes in a tenth of a second", most)
	}
}

func BenchmarkQuiet(b *testing.B) {
	f := newFleet(b, 100)
	b.ReportAllocs()
	for b.Loop() {
		if !f.Quiet() {
			b.Fatal("not quiet")
		}
	}
}

// TestLateFailures: calls that were under way when a record left the list, or another took its place at the address, tell of a
// server that is not called any more. They are no ground to eject anybody.
func TestLateFailures(t *testing.T) {
	t.Run("gone", func(t *testing.T) {
		f := newFleet(t, 3)
		id := f.ids["h0"]
		delete(f.ids, "h0")
		f.list()
		for range 4 {
			f.Report("h0", id, NoAnswer, "via", errTest, f.now)
			f.report(1, Answered)
		}
		if n := f.Ejected(); n != 0 || len(f.Changes()) != 0 || !f.Quiet() {
			t.Errorf("%d are ejected, of an address that is not listed", n)
		}
	})
	t.Run("replaced", func(t *testing.T) {
		f := newFleet(t, 3)
		f.ids["h0"] = 1
		f.list()
		for range 4 {
			f.Report("h0", 0, NoAnswer, "via", errTest, f.now)
			f.report(1, Answered)
		}
		f.wantExcluded()
		f.report(0, NoAnswer, NoAnswer)
		f.Report("h0", 0, Answered, "via", nil, f.now) // of the former server: tells nothing of this one
		f.report(1, Answered)
		f.report(0, NoAnswer)
		f.wantExcluded("h0")
	})
}

// BenchmarkReport is what an answer and a failure cost while many others are suspect.
func BenchmarkReport(b *testing.B) {
	for _, n := range []int{10, 1000} {
		for _, s := range []Signal{Answered, NoAnswer} {
			b.Run(fmt.Sprintf("suspects=%d/signal=%d", n, s), func(b *testing.B) {
				f := newFleet(b, 2*n)
				for i := range n {
					f.report(i, NoAnswer)
				}
				i := 2*n - 1
				if s != Answered {
					i = 0
				}
				a := addr(i)
				b.ReportAllocs()
				for b.Loop() {
					f.Report(a, 0, s, nil, errTest, f.now)
				}
			})
		}
	}
}
