package main

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/quicway/quicway/quota"
)

// printTable prints the counters, and the sources that were kept out most often.
func printTable(w io.Writer, controller *quota.Controller, mode string) {
	s := controller.Stats()
	var out bytes.Buffer
	if s.DryRun {
		mode += ", dry run"
	}
	fmt.Fprintf(&out, "%s  %s: %d connections, %d half open, %d sources; %d admitted, %d asked for a Retry; %d denied and %d allowed prefixes\n",
		time.Now().Format(time.TimeOnly), mode, s.Connections, s.HalfOpen, s.Sources, s.Admitted, s.Retried, s.Denied, s.Allowed)
	fmt.Fprintf(&out, "packets passed: %s\npackets dropped: %s\n  in the kernel: %s\nrefused: %s\n",
		reasons(s.Passed), reasons(s.Dropped), reasons(s.Kernel), reasons(s.Refused))
	table := tabwriter.NewWriter(&out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(table, "SOURCE\tCONNECTIONS\tHALF OPEN\tADMITTED\tREFUSED\tDROPPED")
	for _, top := range controller.Top(10) {
		fmt.Fprintf(table, "%v\t%d\t%d\t%d\t%d\t%d\n", top.Source, top.Connections, top.HalfOpen, top.Admitted, top.Refused, top.Dropped)
	}
	table.Flush()
	fmt.Fprintln(&out)
	_, _ = out.WriteTo(w)
}

// reasons formats the counters that are not zero, in the order of their reasons.
func reasons(all map[quota.Reason]uint64) string {
	var parts []string
	for _, why := range slices.Sorted(maps.Keys(all)) {
		if all[why] > 0 {
			parts = append(parts, fmt.Sprintf("%v %d", why, all[why]))
		}
	}
	if len(parts) == 0 {
		return "-"
	}
	return strings.Join(parts, ", ")
}
