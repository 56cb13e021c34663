package main

import "testing"

// TestMeasuresFaults: what must be zero of ours is measured, and is not of the predecessor.
func TestMeasuresFaults(t *testing.T) {
	for _, f := range []family{prefixesFamily(), certificateFamily(), wireFamily(10)} {
		f.quick = 1
		all, err := measure(t.Context(), f, true, t.Output())
		if err != nil {
			t.Fatal(err)
		}
		for _, row := range f.rows {
			got := make(map[string]float64)
			for _, r := range row.results(all) {
				got[r.Side] = r.Figure
			}
			mine, measured := got[ours]
			if !measured || mine != 0 || got[before] <= 0 {
				t.Errorf("%s: %v, want 0 of %s and more of %s", row.name, got, ours, before)
			}
		}
	}
}
