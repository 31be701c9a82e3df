package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/quicway/quicway/monitor"
)

// printTable prints a line for each connection, and one for each move.
func printTable(out io.Writer, all []monitor.Connection, s *monitor.Stats) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	if len(all) > 0 {
		fmt.Fprintln(w, "CLIENT\tSERVER\tVERSION\tSURE\tNAME\tALPN\tRTT\tPACKETS\tBYTES\tFOR")
	}
	for i := range all {
		c := &all[i]
		name, alpn := "-", "-"
		if c.ServerName != "" {
			name = printable(c.ServerName)
		}
		if len(c.ALPN) > 0 {
			alpn = printable(strings.Join(c.ALPN, ","))
		}
		if len(c.Paths) == 0 {
			continue
		}
		fmt.Fprintf(w, "%v\t%v\t%v\t%v\t%s\t%s\t%s\t%d\t%s\t%v\n",
			c.Paths[0].Client, c.Paths[0].Server, c.Version, c.Confidence, name, alpn, rtt(c),
			c.FromClient.Packets+c.FromServer.Packets, size(c.FromClient.Bytes+c.FromServer.Bytes),
			c.Last.Sub(c.First).Round(time.Millisecond))
		for _, change := range c.PathChanges {
			fmt.Fprintf(w, "  %v\t%v\t→ %v\t(%v: %s)\n", change.Kind, change.From, change.To, change.Confidence, change.Evidence)
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "%d connections; %d packets, %d datagrams, %d of them QUIC's; %d lost before they could be seen\n",
		len(all), s.Packets, s.Datagrams, s.Tracked, s.SourceDropped)
	return err
}

// rtt is the round trip that is known: by the spin bit, or by the handshake.
func rtt(c *monitor.Connection) string {
	d := c.SpinRTT.Duration()
	if d == 0 {
		d = c.Handshake.ServerSide.Duration() + c.Handshake.ClientSide.Duration()
	}
	if d == 0 {
		return "-"
	}
	return d.Round(10 * time.Microsecond).String()
}

// size is a number of bytes as people read it.
func size(n uint64) string {
	units := [...]string{"B", "KiB", "MiB", "GiB", "TiB"}
	f, i := float64(n), 0
	for f >= 1024 && i < len(units)-1 {
		f, i = f/1024, i+1
	}
	return strconv.FormatFloat(f, 'f', min(i, 1), 64) + " " + units[i]
}

// printable quotes what a stranger has sent, if a terminal might act on it.
func printable(s string) string {
	if quoted := strconv.Quote(s); quoted != `"`+s+`"` {
		return quoted
	}
	return s
}
