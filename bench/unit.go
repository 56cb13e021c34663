package main

import (
	"fmt"
	"strconv"
)

// unit is what a figure counts. Times are in nanoseconds, sizes in bytes.
type unit string

const (
	duration unit = "ns"
	size     unit = "B"
	count    unit = "count"
	perSec   unit = "1/s"
	sizeRate unit = "B/s"
)

// format prints v with three digits and a unit that fits.
func (u unit) format(v float64) string {
	switch u {
	case duration:
		return scale(v, 1000, "ns", "µs", "ms", "s")
	case size:
		return scale(v, 1000, "B", "kB", "MB", "GB")
	case sizeRate:
		return scale(v, 1000, "B/s", "kB/s", "MB/s")
	case perSec:
		return trim(v) + "/s"
	default:
		return trim(v)
	}
}

func scale(v, by float64, units ...string) string {
	for len(units) > 1 && (v >= by || v <= -by) {
		v, units = v/by, units[1:]
	}
	return trim(v) + " " + units[0]
}

// trim prints three digits that matter.
func trim(v float64) string {
	if v >= 1000 {
		return fmt.Sprintf("%.0f", v)
	}
	return strconv.FormatFloat(v, 'g', 3, 64)
}
