package main

import (
	"bufio"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/quicway/quicway/monitor"
)

// table has a line for each connection, followed by a line for each of its path changes. It keeps
// texts, which are much smaller than connections.
type table struct{ lines []line }

// line is that of a connection, and those of its path changes.
type line struct {
	cells string // separated by tabs
	moves string // lines
}

// headline has the names of the columns.
const headline = "CLIENT\tSERVER\tVERSION\tSURE\tNAME\tALPN\tRTT\tPACKETS\tBYTES\tFOR"

// add adds a connection.
func (t *table) add(c *monitor.Connection) {
	name, alpn := "-", "-"
	if c.ServerName != "" {
		name = printable(c.ServerName)
	}
	if len(c.ALPN) > 0 {
		alpn = printable(strings.Join(c.ALPN, ","))
	}
	t.lines = append(t.lines, line{
		cells: fmt.Sprintf("%v\t%v\t%v\t%v\t%s\t%s\t%s\t%d\t%s\t%v",
			c.Paths[0].Client, c.Paths[0].Server, c.Version, c.Confidence, name, alpn, rtt(c),
			c.FromClient.Packets+c.FromServer.Packets, size(c.FromClient.Bytes+c.FromServer.Bytes),
			c.Last.Sub(c.First).Round(time.Millisecond)),
		moves: moves(c.PathChanges),
	})
}

// print prints the lines. Columns are as wide as their longest cell. If there are no connections it
// prints nothing. Errors are those of out's next Flush.
func (t *table) print(out *bufio.Writer) {
	if len(t.lines) == 0 {
		return
	}
	widths := make([]int, strings.Count(headline, "\t")+1)
	for _, r := range append(t.lines, line{cells: headline}) {
		i := 0
		for cell := range strings.SplitSeq(r.cells, "\t") {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
			i++
		}
	}
	printCells(out, headline, widths)
	for _, r := range t.lines {
		printCells(out, r.cells, widths)
		out.WriteString(r.moves)
	}
}

// printCells prints a line. Two spaces or more are between its cells.
func printCells(out *bufio.Writer, cells string, widths []int) {
	i := 0
	for cell := range strings.SplitSeq(cells, "\t") {
		out.WriteString(cell)
		if i++; i < len(widths) {
			out.WriteString(strings.Repeat(" ", widths[i-1]+2-utf8.RuneCountInString(cell)))
		}
	}
	out.WriteByte('\n')
}

// moves returns a line for each change of path.
func moves(changes []monitor.PathChange) string {
	var out strings.Builder
	for _, m := range changes {
		from := "?" // it is not known which connection has moved
		if m.From.IsValid() {
			from = m.From.String()
		}
		fmt.Fprintf(&out, "  %v %s → %v (%v: %s)\n", m.Kind, from, m.To, m.Confidence, m.Evidence)
	}
	return out.String()
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
