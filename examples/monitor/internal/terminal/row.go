package terminal

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/quicway/quicway/monitor"
)

// Limits of what is kept for a row.
const (
	maxSamples  = 60                     // round trips
	minInterval = 500 * time.Millisecond // over which a rate is measured
)

// silentAfter is the silence after which a connection is silent, as in [monitor.StateSilent].
const silentAfter = 30 * time.Second

// row is what the list shows of a connection at one moment. It does not change, so that
// snapshots share it. Its texts are printable ASCII.
type row struct {
	number         uint64
	client, server netip.AddrPort // of the path in use
	confidence     monitor.Confidence
	rtt            time.Duration // 0: not known
	rtts           []float32     // in milliseconds, the latest last
	up, down       float64       // bytes a second from the client, and from the server
	packets        uint64
	first          time.Time
	moves          int
	moved          time.Time // when the latest change of path was noticed; zero: never
	ended          time.Time // when the end was noticed; zero: it has not ended
	removed        bool      // the monitor does not keep the connection any more
	label
	mark mark
}

// label has the texts of a row, which seldom change.
type label struct {
	source                 labelSource
	clientText, serverText string
	name, alpn, version    string
	sure, state            string
	lower                  string // all of them in lower case, for the filter
}

// labelSource is what a label is made from.
type labelSource struct {
	client, server netip.AddrPort
	name           string
	alpn           int // the number of protocols
	version        monitor.Version
	confidence     monitor.Confidence
	state          monitor.State
	moved, removed bool // removed: the state is removedState
}

// mark is where the measurement of the rates began.
type mark struct {
	at       time.Time
	up, down uint64
}

// newRow returns the row of a connection. before is its row in the previous snapshot, or nil.
func newRow(c *monitor.Connection, before *row, now time.Time) *row {
	r := &row{
		number: c.Number, confidence: c.Confidence, rtt: connectionRTT(c),
		packets: c.FromClient.Packets + c.FromServer.Packets,
		first:   c.First, moves: len(c.PathChanges) + c.PathChangesOmitted,
	}
	if p := pathInUse(c); p != nil {
		r.client, r.server = p.Client, p.Server
	}
	if before == nil {
		r.mark.at = c.First
		before = &row{mark: r.mark}
	}
	r.moved, r.rtts = before.moved, before.rtts
	if c.State == monitor.StateEnded || before.removed {
		r.ended = before.ended
		if r.ended.IsZero() {
			r.ended = now
		}
	}
	if r.moves > before.moves {
		r.moved = now
	}
	if r.rtt > 0 && r.rtt != before.rtt {
		kept := r.rtts[max(len(r.rtts)-maxSamples+1, 0):]
		r.rtts = append(slices.Clip(kept), float32(r.rtt)/float32(time.Millisecond))
	}
	r.measure(c, before, now)
	r.describe(c, stateAt(c, now), &before.label)
	return r
}

// measure sets the rates.
func (r *row) measure(c *monitor.Connection, before *row, now time.Time) {
	elapsed := now.Sub(before.mark.at)
	if elapsed < minInterval {
		r.up, r.down, r.mark = before.up, before.down, before.mark
		return
	}
	r.mark = mark{at: now, up: c.FromClient.Bytes, down: c.FromServer.Bytes}
	r.up = more(before.mark.up, r.mark.up) / elapsed.Seconds()
	r.down = more(before.mark.down, r.mark.down) / elapsed.Seconds()
}

// more returns by how much a counter has grown. If the monitor has taken the client for the server both
// directions are exchanged, and one of them may be less than before.
func more(before, now uint64) float64 { return float64(max(now, before) - before) }

// describe sets the label. It is the label before unless something has changed.
func (r *row) describe(c *monitor.Connection, state monitor.State, before *label) {
	source := labelSource{
		client: r.client, server: r.server, name: c.ServerName, alpn: len(c.ALPN), version: c.Version,
		confidence: c.Confidence, state: state, moved: r.moves > 0,
	}
	if source == before.source && before.lower != "" {
		r.label = *before
		return
	}
	r.label = label{
		source: source, clientText: address(r.client), serverText: address(r.server),
		name: orDash(clean(c.ServerName)), alpn: orDash(cleanAll(c.ALPN)), version: clean(c.Version.String()),
		sure: c.Confidence.String(), state: state.String(),
	}
	words := []string{r.clientText, r.serverText, clean(strings.ToLower(c.ServerName)), r.alpn, r.version, r.sure}
	if source.moved {
		words = append(words, "moved")
	}
	words = append(words, r.state) // the last word, see end
	r.lower = strings.ToLower(strings.Join(words, " "))
}

// removedState is the state of a connection that the monitor has removed, and of which it is not
// known that it has ended: it made room for another one.
const removedState = "removed"

// stateAt returns the state of a connection. The monitor's clock is that of the packets, and
// stands still if there are none. The view is live, and takes the time instead.
func stateAt(c *monitor.Connection, now time.Time) monitor.State {
	if c.State < monitor.StateSilent && now.Sub(c.Last) >= silentAfter {
		return monitor.StateSilent
	}
	return c.State
}

// end returns the row of a connection that the monitor has removed.
func (r *row) end(now time.Time) *row {
	out := *r
	out.up, out.down, out.removed = 0, 0, true
	if out.ended.IsZero() {
		out.ended = now
	}
	if out.source.state != monitor.StateEnded {
		out.lower = strings.TrimSuffix(out.lower, out.state) + removedState
		out.source.state, out.source.removed, out.state = monitor.StateEnded, true, removedState
	}
	return &out
}

// isOver reports whether the connection has ended.
func (r *row) isOver() bool { return !r.ended.IsZero() }

// matches reports whether each word is in the texts of a row. Words are in lower case.
func (r *row) matches(words []string) bool {
	for _, word := range words {
		if !strings.Contains(r.lower, word) {
			return false
		}
	}
	return true
}

// pathInUse returns the active path, or the latest one, or nil if there is none.
func pathInUse(c *monitor.Connection) *monitor.Path {
	for i := range c.Paths {
		if c.Paths[i].Active {
			return &c.Paths[i]
		}
	}
	if len(c.Paths) == 0 {
		return nil
	}
	return &c.Paths[len(c.Paths)-1]
}

// connectionRTT returns the round trip by the spin bit, or else by the handshake, or 0.
func connectionRTT(c *monitor.Connection) time.Duration {
	if d := c.SpinRTT.Duration(); d != 0 {
		return d
	}
	return c.Handshake.ServerSide.Duration() + c.Handshake.ClientSide.Duration()
}

// address formats an address. It leaves out the zone, which is a text from the system.
func address(a netip.AddrPort) string {
	if !a.IsValid() {
		return "-"
	}
	return netip.AddrPortFrom(a.Addr().WithZone(""), a.Port()).String()
}
