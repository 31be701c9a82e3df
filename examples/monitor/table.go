package main

import (
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/quicway/quicway/monitor"
)

// printTable prints a line for each connection, followed by a line for each of its path
// changes, and the counters.
func printTable(out io.Writer, all []monitor.Connection, s *monitor.Stats) error {
	var rows bytes.Buffer
	w := tabwriter.NewWriter(&rows, 0, 8, 2, ' ', 0)
	if len(all) > 0 {
		fmt.Fprintln(w, "CLIENT\tSERVER\tVERSION\tSURE\tNAME\tALPN\tRTT\tPACKETS\tBYTES\tFOR")
	}
	for i := range all {
		printRow(w, &all[i])
	}
	if err := w.Flush(); err != nil {
		return err
	}
	n := -1 // the headline
	for row := range strings.Lines(rows.String()) {
		if _, err := io.WriteString(out, row); err != nil {
			return err
		}
		if n >= 0 {
			printMoves(out, all[n].PathChanges)
		}
		n++
	}
	_, err := fmt.Fprintf(out, "%d connections; %d packets, %d datagrams, %d of them QUIC; %d packets lost\n",
		len(all), s.Packets, s.Datagrams, s.Tracked, s.SourceDropped)
	return err
}

// printRow prints the line of a connection.
func printRow(w io.Writer, c *monitor.Connection) {
	name, alpn := "-", "-"
	if c.ServerName != "" {
		name = printable(c.ServerName)
	}
	if len(c.ALPN) > 0 {
		alpn = printable(strings.Join(c.ALPN, ","))
	}
	fmt.Fprintf(w, "%v\t%v\t%v\t%v\t%s\t%s\t%s\t%d\t%s\t%v\n",
		c.Paths[0].Client, c.Paths[0].Server, c.Version, c.Confidence, name, alpn, rtt(c),
		c.FromClient.Packets+c.FromServer.Packets, size(c.FromClient.Bytes+c.FromServer.Bytes),
		c.Last.Sub(c.First).Round(time.Millisecond))
}

// printMoves prints a line for each change of path.
func printMoves(out io.Writer, moves []monitor.PathChange) {
	for _, m := range moves {
		from := "?" // it is not known which connection has moved
		if m.From.IsValid() {
			from = m.From.String()
		}
		fmt.Fprintf(out, "  %v %s → %v (%v: %s)\n", m.Kind, from, m.To, m.Confidence, m.Evidence)
	}
}

// rtt returns the round trip by the spin bit, or else by the handshake.
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

// size formats a number of bytes with a unit.
func size(n uint64) string {
	units := [...]string{"B", "KiB", "MiB", "GiB", "TiB"}
	f, i := float64(n), 0
	for f >= 1024 && i < len(units)-1 {
		f, i = f/1024, i+1
	}
	return strconv.FormatFloat(f, 'f', min(i, 1), 64) + " " + units[i]
}

// maxCell is the limit of bytes of a name in the table. Names come from the network.
const maxCell = 60

// printable shortens a name from the network, and quotes it if it has characters that a
// terminal might act on.
func printable(s string) string {
	if len(s) > maxCell {
		s = strings.ToValidUTF8(s[:maxCell], "") + "…"
	}
	if quoted := strconv.Quote(s); quoted != `"`+s+`"` {
		return quoted
	}
	return s
}
