package main

import (
	"fmt"
	"io"
	"math"
	"strings"
)

// experiment returns a table of the experiment of the eQUIC paper with one of its attacks:
// all figures or, if compare is set, native XDP compared with two other defences.
func experiment(title, attack string, compare bool) table {
	name := "Experiment/" + attack + "/"
	t := table{
		title: "Kernel, quota under attack: " + title + " (root)",
		pkg:   "./quota", bench: "^BenchmarkExperiment$", flags: "-benchtime=1x",
	}
	if compare {
		t.rows = []row{
			{"than refused after the handshake", name + "native", name + "after-handshake"},
			{"than refused before the handshake", name + "native", name + "refuse"},
		}
		t.claims = []claim{
			{"good requests per second", "requests/s", "+30.9"},
			{"their duration (median; theirs: mean)", "p50-ms", "−65"},
			{"CPU of the server's process for each", "cpu-ms/request", "−26.4, of the filter"},
			{"system calls of the server for each", "syscalls/request", "−89"},
		}
		return t
	}
	t.columns = []column{
		{"requests/s", "requests/s", ""}, {"p50, ms", "p50-ms", ""}, {"p95, ms", "p95-ms", ""}, {"p99, ms", "p99-ms", ""}, {"served, %", "served-%", ""},
		{"server's CPU, %", "server-cpu-%", ""}, {"interrupts' CPU, %", "softirq-cpu-%", ""}, {"system calls/s", "syscalls/s", ""}, {"held live on, %", "held-%", ""},
	}
	for _, mode := range []struct{ label, name string }{
		{"no quota", "none"},
		{"refused after the handshake", "after-handshake"},
		{"refused before the handshake", "refuse"},
		{"dropped by the packet filter", "drop"},
		{"XDP, generic", "generic"},
		{"XDP, native", "native"},
		{"nftables", "nftables"},
		{"all UDP dropped, as by eQUIC", "equic"},
	} {
		t.rows = append(t.rows, row{label: mode.label, ours: name + mode.name})
	}
	return t
}

// printClaims writes the change of each figure in percent, as measured here and as
// reported by others.
func (t *table) printClaims(w io.Writer, r results) error {
	fmt.Fprint(w, "| percent more or less |")
	for _, row := range t.rows {
		fmt.Fprintf(w, " %s |", row.label)
	}
	fmt.Fprintf(w, " eQUIC's own |\n|---|%s---:|\n", strings.Repeat("---:|", len(t.rows)))
	for _, c := range t.claims {
		fmt.Fprintf(w, "| %s |", c.label)
		for _, row := range t.rows {
			ours, ok := r.median(row.ours, c.unit)
			peer, ok2 := r.median(row.peer, c.unit)
			if !ok || !ok2 || peer == 0 {
				fmt.Fprint(w, " not here |")
				continue
			}
			change := math.Round(100*(ours/peer-1)) + 0 // no negative zero
			fmt.Fprintf(w, " %s |", strings.Replace(fmt.Sprintf("%+.0f", change), "-", "−", 1))
		}
		fmt.Fprintf(w, " %s |\n", c.says)
	}
	return nil
}
