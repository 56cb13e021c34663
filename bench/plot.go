package main

import (
	"cmp"
	"errors"
	"fmt"
	"image/color"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// A drawing shows the values of all sides, which are times.
type drawing struct {
	title string
	from  string // the name of the values
	// each is the name of values of which there is one for each trial: drawn is how many from there are in a trial until
	// a time, in seconds; what says of what. Without it, drawn is which share of them is not greater, in milliseconds on a logarithmic axis.
	each, what string
}

// file is where d is drawn, in the directory of the report.
func (d drawing) file() string { return filepath.Join("plots", d.from+".svg") }

// colors are the sides' in every plot; of sides that have none, the second half is dashed and
// has the colors of the first.
var colors = map[string]color.Color{
	ours:    color.RGBA{R: 0x00, G: 0x5a, B: 0xb5, A: 0xff},
	before:  color.RGBA{R: 0xdc, G: 0x32, B: 0x20, A: 0xff},
	gozero:  color.RGBA{R: 0x2c, G: 0xa0, B: 0x2c, A: 0xff},
	kratos:  color.RGBA{R: 0xe6, G: 0x9f, B: 0x00, A: 0xff},
	naming:  color.RGBA{R: 0x8e, G: 0x44, B: 0xad, A: 0xff},
	nothing: color.Gray{0x60},
}

// ticks are the default ones, with labels that have no more digits than they need.
type ticks struct{}

func (ticks) Ticks(least, greatest float64) []plot.Tick {
	all := plot.DefaultTicks{}.Ticks(least, greatest)
	for i, t := range all {
		if !t.IsMinor() {
			all[i].Label = trim(t.Value)
		}
	}
	return all
}

// logTicks are those of a logarithmic axis: 1, 2, 5, 10, or powers of ten alone where there are many.
type logTicks struct{}

func (logTicks) Ticks(least, greatest float64) []plot.Tick {
	labels := []int{1, 2, 5}
	if greatest > 1000*least {
		labels = labels[:1]
	}
	var all []plot.Tick
	for power := math.Pow(10, math.Floor(math.Log10(least))); power <= greatest; power *= 10 {
		for n := 1; n < 10; n++ {
			t := plot.Tick{Value: float64(n) * power}
			if slices.Contains(labels, n) {
				t.Label = trim(t.Value)
			}
			if least <= t.Value && t.Value <= greatest {
				all = append(all, t)
			}
		}
	}
	return all
}

// wrapped breaks a title that is too long for the plot in two.
func wrapped(title string) string {
	const line = 60
	if len(title) <= line {
		return title
	}
	if i := strings.LastIndexByte(title[:line], ' '); i > 0 {
		return title[:i] + "\n" + title[i+1:]
	}
	return title
}

// draw writes d as SVG.
func (d drawing) draw(dir string, all map[string]values) error {
	p := plot.New()
	p.Title.Text, p.Title.Padding = wrapped(d.title), 3*vg.Millimeter
	legend := plot.NewLegend()
	legend.Top, legend.Left, legend.Padding = true, true, vg.Millimeter
	unit := float64(time.Second)
	p.X.Label.Text, p.Y.Label.Text = "seconds since the fault", cmp.Or(d.what, "failed attempts")+" in a trial so far"
	p.X.Tick.Marker, p.Y.Tick.Marker = ticks{}, ticks{}
	if d.each == "" {
		unit = float64(time.Millisecond)
		p.X.Label.Text, p.Y.Label.Text = "milliseconds, on a logarithmic axis", "share that is not slower"
		p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, logTicks{}
	}
	grid := plotter.NewGrid()
	grid.Horizontal.Color, grid.Vertical.Color = color.Gray{0xdd}, color.Gray{0xdd}
	p.Add(grid)
	var end float64
	for _, v := range all {
		for _, x := range v[d.from] {
			end = max(end, x/unit)
		}
	}
	sides := (row{from: cmp.Or(d.each, d.from)}).results(all)
	half := (len(sides) + 1) / 2
	for i, s := range sides {
		found := slices.Sorted(slices.Values(all[s.Side][d.from]))
		line, err := plotter.NewLine(d.steps(found, unit, float64(s.Values), end))
		if err != nil {
			return fmt.Errorf("plot %s of %s: %w", d.from, s.Side, err)
		}
		line.Width, line.Color = vg.Points(1.5), colors[s.Side]
		if line.Color == nil {
			line.Color, line.Dashes = plotutil.Color(i%half), plotutil.Dashes(i/half)
		}
		if s.Side == nothing {
			line.Dashes = plotutil.Dashes(1)
		}
		p.Add(line)
		legend.Add(s.Side, line)
	}
	p.Y.Min, p.Y.Max = 0, p.Y.Max*1.05 // lines at the edges are seen
	path := filepath.Join(dir, d.file())
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	const width, height, beside = 21 * vg.Centimeter, 10 * vg.Centimeter, 5 * vg.Centimeter
	canvas, err := draw.NewFormattedCanvas(width, height, "svg")
	if err != nil {
		return err
	}
	page := draw.New(canvas)
	page.SetColor(color.White) // dark pages show through otherwise
	page.Fill(page.Rectangle.Path())
	p.Draw(draw.Crop(page, 2*vg.Millimeter, -beside, 2*vg.Millimeter, -2*vg.Millimeter))
	legend.Draw(draw.Crop(page, width-beside+4*vg.Millimeter, 0, 0, -vg.Centimeter))
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = canvas.WriteTo(file)
	return errors.Join(err, file.Close())
}

// steps returns how many of the sorted values, divided by of, there are up to each of them, and at the end.
func (d drawing) steps(sorted []float64, unit, of, end float64) plotter.XYs {
	var xys plotter.XYs
	if d.each != "" {
		xys = append(xys, plotter.XY{})
	}
	every := 1 + len(sorted)/1000 // more points are not seen
	for i, x := range sorted {
		if i%every != 0 && i != len(sorted)-1 {
			continue
		}
		xys = append(xys, plotter.XY{X: x / unit, Y: float64(i) / of}, plotter.XY{X: x / unit, Y: float64(i+1) / of})
	}
	return append(xys, plotter.XY{X: end, Y: float64(len(sorted)) / of})
}
