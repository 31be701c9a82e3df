package main

import (
	"fmt"
	"io"
	"strings"
)

// table is one table of figures.
type table struct {
	title string
	pkg   string // or several; or a program that prints what go test does
	bench string // of go test; empty: pkg is a program
	unit  string // of the figures, as go test prints it
	flags string // for the command; if set, figures are printed with their spread
	ours  string // title of the column of our figures
	peer  string // title of the column of the figures to compare with, if any
	rows  []row

	// pairs makes a table with a row and a column for each name. bench is then a test
	// that prints the figure of each pair, in ms. none is printed instead of 0.
	pairs []string
	none  string

	// columns makes a table with a column for each unit. Figures may be missing.
	columns []column
	// claims makes a table that compares a benchmark with others, in percent, next to
	// what others have reported.
	claims []claim
}

// column is a column of a table: one figure of each row. With base each figure is divided by that
// of the benchmark base in the same run.
type column struct{ title, unit, base string }

// claim is the change of a figure in percent that others have reported (says).
type claim struct{ label, unit, says string }

// row is a row of a table, with the names of its benchmarks.
type row struct {
	label string
	ours  string
	peer  string // empty: nothing to compare with
}

// command returns the arguments of the go command that prints the figures.
func (t *table) command() []string {
	if t.bench == "" {
		return append([]string{"run", t.pkg}, strings.Fields(t.flags)...)
	}
	if t.pairs != nil {
		return append([]string{"test", "-count", "1", "-v", "-run", "^Test" + t.bench + "$"}, strings.Fields(t.pkg)...)
	}
	return append([]string{"test", "-run", "^$", "-bench", t.bench, "-benchmem"}, strings.Fields(t.flags+" "+t.pkg)...)
}

// printPairs writes a table with all pairs.
func (t *table) printPairs(w io.Writer, r results) error {
	fmt.Fprintf(w, "| | %s |\n|---|%s\n", strings.Join(t.pairs, " | "), strings.Repeat("---:|", len(t.pairs)))
	for _, a := range t.pairs {
		fmt.Fprintf(w, "| %s |", a)
		for _, b := range t.pairs {
			name := strings.ReplaceAll(t.bench+"/"+a+"/"+b, " ", "_")
			f, ok := r.median(name, t.unit)
			if !ok {
				return fmt.Errorf("no figure for %s in %s", name, t.unit)
			}
			cell := figure(f)
			if f == 0 {
				cell = t.none
			}
			fmt.Fprintf(w, " %s |", cell)
		}
		fmt.Fprintln(w)
	}
	return nil
}

// print writes the table in Markdown.
func (t *table) print(w io.Writer, r results) error {
	fmt.Fprintf(w, "\n**%s**\n\n", t.title)
	switch {
	case t.pairs != nil:
		return t.printPairs(w, r)
	case t.columns != nil:
		return t.printColumns(w, r)
	case t.claims != nil:
		return t.printClaims(w, r)
	}
	if t.peer == "" {
		fmt.Fprintf(w, "| | %s | allocations |\n|---|---:|---:|\n", t.ours)
	} else {
		fmt.Fprintf(w, "| | %s | %s | ratio | allocations |\n|---|---:|---:|---:|---:|\n", t.ours, t.peer)
	}
	for _, row := range t.rows {
		ours, ok := r.median(row.ours, t.unit)
		if !ok {
			return fmt.Errorf("no figure for %s in %s", row.ours, t.unit)
		}
		allocs, _ := r.median(row.ours, "allocs/op")
		fmt.Fprintf(w, "| %s | %s", row.label, figure(ours))
		if t.flags != "" {
			least, greatest := r.spread(row.ours, t.unit)
			fmt.Fprintf(w, " (%s to %s)", figure(least), figure(greatest))
		}
		fmt.Fprint(w, " |")
		if row.peer != "" {
			peer, ok := r.median(row.peer, t.unit)
			if !ok {
				return fmt.Errorf("no figure for %s in %s", row.peer, t.unit)
			}
			fmt.Fprintf(w, " %s | %.2f |", figure(peer), ours/peer)
		} else if t.peer != "" {
			fmt.Fprint(w, " | |")
		}
		fmt.Fprintf(w, " %s |\n", figure(allocs))
	}
	return nil
}
