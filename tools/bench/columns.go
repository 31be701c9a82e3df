package main

import (
	"fmt"
	"io"
	"strings"
)

// printColumns writes a table with a column for each unit. Each cell is the median, with
// the least and the greatest figure. A unit that begins with "of-" is that of a ratio.
func (t *table) printColumns(w io.Writer, r results) error {
	fmt.Fprint(w, "| |")
	for _, c := range t.columns {
		fmt.Fprintf(w, " %s |", c.title)
	}
	fmt.Fprintf(w, "\n|---|%s\n", strings.Repeat("---:|", len(t.columns)))
	for _, row := range t.rows {
		fmt.Fprintf(w, "| %s |", row.label)
		for _, c := range t.columns {
			name, format := row.ours, figure
			if strings.HasPrefix(c.unit, "of-") {
				format = ratio
			}
			if c.base != "" {
				name, format = r.relative(row.ours, c.base, c.unit), ratio
			}
			f, ok := r.median(name, c.unit)
			if !ok { // the benchmark has said why
				fmt.Fprint(w, " not here |")
				continue
			}
			least, greatest := r.spread(name, c.unit)
			fmt.Fprintf(w, " %s (%s–%s) |", format(f), format(least), format(greatest))
		}
		fmt.Fprintln(w)
	}
	return nil
}
