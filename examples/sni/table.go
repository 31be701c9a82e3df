package main

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/quicway/quicway/relay/sni"
)

// rows is the number of connections in the table.
const rows = 20

// printTable prints the counters, and the connections with the most bytes.
func printTable(w io.Writer, server *sni.Server) {
	s := server.Stats()
	var out bytes.Buffer
	fmt.Fprintf(&out, "%s  %d connections, %d without ClientHello; %d accepted, %d relayed, %d reset, %d idle; failed: %s\n",
		time.Now().Format(time.TimeOnly), s.Open, s.Waiting, s.Accepted, s.Relayed, s.Reset, s.Idle, failures(s.Failed))
	all := slices.SortedFunc(server.Connections(), func(a, b sni.Connection) int {
		return cmp.Or(cmp.Compare(b.FromClient+b.FromUpstream, a.FromClient+a.FromUpstream), a.Client.Compare(b.Client))
	})
	table := tabwriter.NewWriter(&out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(table, "CLIENT\tNAME\tALPN\tROUTE\tUPSTREAM\tFROM CLIENT\tFROM UPSTREAM\tAGE")
	for _, c := range all[:min(len(all), rows)] {
		// The name and the protocols come from strangers: %q keeps control characters
		// from the terminal.
		fmt.Fprintf(table, "%v\t%.60q\t%.40q\t%s\t%s\t%d\t%d\t%v\n", c.Client, c.ServerName, strings.Join(c.ALPN, ","), c.Route, c.Upstream,
			c.FromClient, c.FromUpstream, time.Since(c.Began).Round(time.Second))
	}
	table.Flush()
	if more := len(all) - rows; more > 0 {
		fmt.Fprintf(&out, "and %d more\n", more)
	}
	fmt.Fprintln(&out)
	_, _ = out.WriteTo(w)
}

// failures formats the reasons that have occurred.
func failures(all map[sni.Failure]uint64) string {
	var parts []string
	for _, f := range slices.Sorted(maps.Keys(all)) {
		if all[f] > 0 {
			parts = append(parts, fmt.Sprintf("%v %d", f, all[f]))
		}
	}
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, ", ")
}
