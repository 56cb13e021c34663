package main

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
)

// A drawing shows the values of all sides, which are times.
type drawing struct {
	title string
	from  string // the name of the values
	// each is the name of values of which there is one for each trial: drawn is how many from there are in a trial until
	// a time, in seconds. Without it, drawn is which share of them is not greater, in milliseconds on a logarithmic axis.
	each string
}

// file is where d is drawn, in the directory of the report.
func (d drawing) file() string { return filepath.Join("plots", d.from+".svg") }

// draw writes d as SVG.
func (d drawing) draw(dir string, all map[string]values) error {
	p := plot.New()
	p.Title.Text = d.title
	p.Legend.Top, p.Legend.Left = true, true
	p.Y.Min = 0
	unit := float64(time.Second)
	p.X.Label.Text, p.Y.Label.Text = "seconds", "in a trial so far"
	if d.each == "" {
		unit = float64(time.Millisecond)
		p.X.Label.Text, p.Y.Label.Text = "milliseconds", "share"
		p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
		p.Legend.Top, p.Legend.XOffs, p.Legend.YOffs = false, 6*vg.Centimeter, vg.Centimeter // between fast and slow
	}
	var end float64
	for _, v := range all {
		for _, x := range v[d.from] {
			end = max(end, x/unit)
		}
	}
	for i, s := range (row{from: cmp.Or(d.each, d.from)}).results(all) {
		found := slices.Sorted(slices.Values(all[s.Side][d.from]))
		line, err := plotter.NewLine(d.steps(found, unit, float64(s.Values), end))
		if err != nil {
			return fmt.Errorf("plot %s of %s: %w", d.from, s.Side, err)
		}
		line.Color, line.Width = plotutil.Color(i), vg.Points(1.5)
		if s.Side == nothing {
			line.Dashes = plotutil.Dashes(1)
		}
		p.Add(line)
		p.Legend.Add(s.Side, line)
	}
	path := filepath.Join(dir, d.file())
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return p.Save(18*vg.Centimeter, 10*vg.Centimeter, path)
}

// steps returns how many of the sorted values, divided by of, there are up to each of them, and at the end.
func (d drawing) steps(sorted []float64, unit, of, end float64) plotter.XYs {
	var xys plotter.XYs
	if d.each != "" {
		xys = append(xys, plotter.XY{})
	}
	for i, x := range sorted {
		xys = append(xys, plotter.XY{X: x / unit, Y: float64(i) / of}, plotter.XY{X: x / unit, Y: float64(i+1) / of})
	}
	return append(xys, plotter.XY{X: end, Y: float64(len(sorted)) / of})
}
