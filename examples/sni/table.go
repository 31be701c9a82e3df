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
		time.Now().Format(time.TimeOnly), s.Open, s.Waiting, s.Accepted, s.Relayed, s.Reset, s.Idle, counted(s.Failed))
	q := s.QUIC
	fmt.Fprintf(&out, "%s  QUIC: %d flows, %d not confirmed; %d accepted, %d relayed, %d moved, %d idle; failed: %s; dropped: %s\n",
		time.Now().Format(time.TimeOnly), q.Flows, q.Waiting, q.Accepted, q.Relayed, q.Moved, q.Idle, counted(q.Failed), counted(q.Dropped))
	printSplice(&out, &s.Splice)
	all := slices.SortedFunc(server.Connections(), func(a, b sni.Connection) int {
		return cmp.Or(cmp.Compare(b.FromClient+b.FromUpstream, a.FromClient+a.FromUpstream), a.Client.Compare(b.Client))
	})
	table := tabwriter.NewWriter(&out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(table, "NETWORK\tCLIENT\tNAME\tALPN\tROUTE\tUPSTREAM\tFROM CLIENT\tFROM UPSTREAM\tAGE\tRELAYED IN")
	for _, c := range all[:min(len(all), rows)] {
		// The name and the protocols come from strangers: %q keeps control characters
		// from the terminal.
		fmt.Fprintf(table, "%s\t%v\t%.60q\t%.40q\t%s\t%s\t%d\t%d\t%v\t%s\n", c.Network, c.Client, c.ServerName, strings.Join(c.ALPN, ","), c.Route, c.Upstream,
			c.FromClient, c.FromUpstream, time.Since(c.Began).Round(time.Second), place(&c))
	}
	table.Flush()
	if more := len(all) - rows; more > 0 {
		fmt.Fprintf(&out, "and %d more\n", more)
	}
	fmt.Fprintln(&out)
	_, _ = out.WriteTo(w)
}

// place returns where a connection is relayed.
func place(c *sni.Connection) string {
	if c.InKernel {
		return "kernel"
	}
	return "userspace"
}

// printSplice prints the counters of the kernel path, if it has been used or cannot be.
func printSplice(w io.Writer, s *sni.SpliceStats) {
	switch {
	case s.Off != "":
		fmt.Fprintf(w, "          all in userspace: %s\n", s.Off)
	case s.Takeovers+s.Adopted > 0 || counted(s.NotTaken) != counted[string](nil):
		fmt.Fprintf(w, "          %d in the kernel; %d takeovers, %d adopted; left in userspace: %s; came back: %s\n",
			s.InKernel, s.Takeovers, s.Adopted, counted(s.NotTaken), counted(s.WaysBack))
	}
}

// counted formats the reasons that have occurred.
func counted[R cmp.Ordered](all map[R]uint64) string {
	var parts []string
	for _, reason := range slices.Sorted(maps.Keys(all)) {
		if all[reason] > 0 {
			parts = append(parts, fmt.Sprintf("%v %d", reason, all[reason]))
		}
	}
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, ", ")
}
