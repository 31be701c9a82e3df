package terminal

import (
	"slices"
	"strings"
)

// bars are the heights of a sparkline.
var bars = [...]string{"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"}

// spark draws the latest values, one a cell, between the least and the largest of them.
func spark(values []float32, width int) string {
	values = values[max(len(values)-max(width, 0), 0):]
	if len(values) == 0 {
		return ""
	}
	low, high := slices.Min(values), slices.Max(values)
	var out strings.Builder
	for _, v := range values {
		i := len(bars) / 2
		if high > low {
			i = int((v - low) / (high - low) * float32(len(bars)-1))
		}
		out.WriteString(bars[i])
	}
	return out.String()
}
