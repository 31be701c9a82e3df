package terminal

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/quicway/quicway/monitor"
)

// detailsFrame is the number of lines around the details: a title and the help.
const detailsFrame = 2

// details are what is shown of one connection.
type details struct {
	row    *row                // the latest
	whole  *monitor.Connection // nil: not known yet
	scroll scroll
}

func newDetails(r *row) *details { return &details{row: r} }

// take takes what a snapshot has of the connection. While the view is paused it takes only
// what is missing.
func (d *details) take(s *snapshot, paused bool) {
	if s.whole != nil && s.whole.Number == d.row.number && (d.whole == nil || !paused) {
		d.whole = s.whole
	}
	if paused {
		return
	}
	if i := slices.IndexFunc(s.rows, func(r *row) bool { return r.number == d.row.number }); i >= 0 {
		d.row = s.rows[i]
	}
}

// detailsLines returns the lines of the details.
func (m *model) detailsLines() []string {
	d := m.details
	page := max(m.height-detailsFrame, 1)
	all := d.lines(m.shown.at, m.width)
	d.scroll.lines = len(all)
	d.scroll.clamp(page)
	out := []string{m.state() + strong.Styled(d.title())}
	out = append(out, all[d.scroll.top:min(d.scroll.top+page, len(all))]...)
	for len(out) < page+1 {
		out = append(out, "")
	}
	keys := "↑↓ scroll  esc list  p pause  ? help  q quit"
	if rest := len(all) - d.scroll.top - page; rest > 0 {
		keys += fmt.Sprintf("  (%d more lines below)", rest)
	}
	return append(out, faint.Styled(keys))
}

// title returns the title of the details.
func (d *details) title() string {
	name := d.row.name
	if name == "-" {
		name = d.row.serverText
	}
	return fmt.Sprintf("Connection %d  %s  %s → %s", d.row.number, name, d.row.clientText, d.row.serverText)
}

// lines returns all lines of the details.
func (d *details) lines(now time.Time, width int) []string {
	p := &page{width: width}
	d.state(p)
	if d.whole == nil {
		p.line("")
		if d.row.removed {
			p.line("The connection ended before its details were asked for.")
		} else {
			p.line("Reading the connection...")
		}
		return p.lines
	}
	c := d.whole
	identity(p, c)
	negotiation(p, c)
	connectionIDs(p, c)
	d.roundTrips(p, c)
	d.traffic(p, c, now)
	paths(p, c)
	pathChanges(p, c)
	others(p, c)
	return p.lines
}

// state adds how far the connection has come, and how sure it is that it is QUIC.
func (d *details) state(p *page) {
	state, sure := d.row.state, d.row.sure
	if c := d.whole; c != nil {
		if e := c.Ended; e != nil {
			state += ": " + clean(e.String()) + ", at " + moment(e.Time) + unless(e.Phrase == "", `, "`+clean(e.Phrase)+`"`)
		}
		sure += unless(c.Evidence == "", ": "+clean(c.Evidence))
	}
	p.field("state", state+unless(!d.row.removed || state == removedState, "; no longer kept"))
	p.field("confidence", sure)
}

// identity adds what identifies the connection elsewhere.
func identity(p *page, c *monitor.Connection) {
	p.field("UID", clean(c.UID))
	p.field("Community ID", clean(c.CommunityID))
	p.field("history", clean(c.History))
}

// negotiation adds what the hellos say.
func negotiation(p *page, c *monitor.Connection) {
	versions := make([]string, len(c.Versions))
	for i, v := range c.Versions {
		versions[i] = v.String()
	}
	p.heading("Negotiation")
	p.field("version", clean(c.Version.String())+unless(len(versions) < 2, "; seen: "+cleanAll(versions)))
	p.field("server name", clean(c.ServerName))
	p.field("ALPN", cleanAll(c.ALPN)+unless(c.ALPNOmitted == 0, fmt.Sprintf(" and %d more", c.ALPNOmitted)))
	p.field("user agent", clean(c.UserAgent))
	p.field("JA4", clean(c.JA4))
	p.field("TLS", strings.Trim(strings.Join([]string{clean(c.TLSVersion), clean(c.Cipher), clean(c.Group)}, " "), " "))
	p.field("ECH", unless(!c.ECH, "yes: the server name may not be the real one"))
	p.field("post-quantum", unless(!c.PostQuantum && len(c.PostQuantumGroups) == 0,
		fmt.Sprintf("key share: %s; groups: %s", yesNo(c.PostQuantum), orDash(cleanAll(c.PostQuantumGroups)))))
	p.number("token, bytes", c.TokenLength)
	p.number("Retry packets", c.Retries)
	p.number("Version Negotiation", c.Negotiations)
	p.number("0-RTT packets", c.ZeroRTT)
}

// connectionIDs adds the connection IDs.
func connectionIDs(p *page, c *monitor.Connection) {
	p.heading("Connection IDs")
	original := c.OriginalIDs
	if len(original) == 0 && c.OriginalID != "" {
		original = []string{c.OriginalID}
	}
	p.field("original", cleanAll(original))
	p.field("in the handshake", strings.TrimPrefix(chosen("client", c.ClientID)+chosen("server", c.ServerID), ", "))
	p.field("of the client", cleanAll(c.ClientIDs))
	p.field("of the server", cleanAll(c.ServerIDs))
	p.number("changes on a path", c.Rotations)
}

// chosen returns the connection ID that a side has chosen, after a comma.
func chosen(side string, id *monitor.ID) string {
	if id == nil {
		return ""
	}
	return ", " + side + " " + orDash(clean(id.String()))
}

// roundTrips adds the round trips and their trend.
func (d *details) roundTrips(p *page, c *monitor.Connection) {
	p.heading("Round trips")
	h := c.Handshake
	p.field("spin bit", unless(c.SpinRTT == 0, roundTrip(c.SpinRTT.Duration())))
	p.field("handshake", unless(h == (monitor.HandshakeRTT{}), fmt.Sprintf("server side %s, client side %s",
		roundTrip(h.ServerSide.Duration()), roundTrip(h.ClientSide.Duration()))))
	p.field("samples", statistics(&c.RTT))
	if all := d.row.rtts; len(all) > 0 {
		p.field("trend", spark(all, min(maxSamples, p.width-labelWidth)))
		p.field("least, largest", fmt.Sprintf("%s, %s", milliseconds(slices.Min(all)), milliseconds(slices.Max(all))))
	}
}

// statistics returns the statistics of round trips, or nothing if there are none.
func statistics(s *monitor.RTTStats) string {
	return unless(s.Samples == 0, fmt.Sprintf("%d, least %s, median %s, jitter %s", s.Samples,
		roundTrip(s.Min.Duration()), roundTrip(s.Median.Duration()), roundTrip(s.Jitter.Duration())))
}

// traffic adds the counters and the times.
func (d *details) traffic(p *page, c *monitor.Connection, now time.Time) {
	p.heading("Traffic")
	p.field("from the client", traffic(c.FromClient)+unless(d.row.isOver(), ", "+amount(d.row.up)+"B/s"))
	p.field("from the server", traffic(c.FromServer)+unless(d.row.isOver(), ", "+amount(d.row.down)+"B/s"))
	p.number("glued packets", c.Glued)
	p.field("first packet", moment(c.First)+" ("+period(now.Sub(c.First))+" ago)")
	p.field("latest packet", moment(c.Last)+" ("+period(now.Sub(c.Last))+" ago)")
	p.field("duration", c.Duration.Duration().Round(time.Millisecond).String())
	p.field("direction", clean(c.Direction))
	p.number("interface", c.Interface)
}

// paths adds the paths.
func paths(p *page, c *monitor.Connection) {
	p.heading(count(len(c.Paths), "path") + unless(c.PathsDropped == 0, fmt.Sprintf(" and %d earlier", c.PathsDropped)))
	for i := range c.Paths {
		s := &c.Paths[i]
		state := "not validated"
		if s.Validated {
			state = "validated"
		}
		if s.Active {
			state += ", in use"
		}
		p.item(fmt.Sprintf("%s → %s  %s", address(s.Client), address(s.Server), state))
		p.more(fmt.Sprintf("%s to %s", moment(s.First), moment(s.Last)))
		p.more(fmt.Sprintf("from the client %s; from the server %s", traffic(s.FromClient), traffic(s.FromServer)))
		if s.SpinRTT != 0 || s.SpinServerSide != 0 || s.SpinClientSide != 0 {
			p.more(fmt.Sprintf("spin bit %s, server side %s, client side %s", roundTrip(s.SpinRTT.Duration()),
				roundTrip(s.SpinServerSide.Duration()), roundTrip(s.SpinClientSide.Duration())))
		}
		if text := statistics(&s.RTT); text != "" {
			p.more("round trips: " + text)
		}
	}
}

// pathChanges adds the changes of path.
func pathChanges(p *page, c *monitor.Connection) {
	p.heading(count(len(c.PathChanges), "path change") +
		unless(c.PathChangesOmitted == 0, fmt.Sprintf(" and %d later ones", c.PathChangesOmitted)))
	for i := range c.PathChanges {
		v := &c.PathChanges[i]
		p.item(fmt.Sprintf("%s  %v  %s → %s", moment(v.Time), v.Kind, address(v.From), address(v.To)))
		p.more(fmt.Sprintf("%v: %s", v.Confidence, clean(v.Evidence)))
	}
}

// known are the JSON names of the fields that the functions above show.
var known = strings.Fields(`number uid community_id history state ended confidence evidence version version_name versions odcid odcids client_ids server_ids client_id server_id rotations
	sni alpn alpn_omitted ja4 user_agent ech post_quantum post_quantum_groups cipher group tls_version paths paths_dropped
	path_changes path_changes_omitted handshake spin_rtt_ms rtt token_length duration_ms retries version_negotiations zero_rtt glued first last
	from_client from_server direction interface`)

// others adds the fields of a connection that are not known here, by their JSON names.
func others(p *page, c *monitor.Connection) {
	text, err := json.Marshal(c)
	if err != nil {
		return
	}
	var fields map[string]json.RawMessage
	if json.Unmarshal(text, &fields) != nil {
		return
	}
	for _, name := range known {
		delete(fields, name)
	}
	if len(fields) == 0 {
		return
	}
	p.heading("More")
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		value := string(fields[name])
		var text string
		if json.Unmarshal(fields[name], &text) == nil {
			value = text
		}
		p.field(clean(name), clean(value))
	}
}

func traffic(t monitor.Traffic) string {
	text := fmt.Sprintf("%d packets, %sB", t.Packets, amount(float64(t.Bytes)))
	if e := t.ECN; e != (monitor.ECN{}) {
		text += fmt.Sprintf(" (ECT(0) %d, ECT(1) %d, CE %d)", e.ECT0, e.ECT1, e.CE)
	}
	return text
}

func moment(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format("15:04:05.000")
}

func milliseconds(ms float32) string {
	return roundTrip(time.Duration(float64(ms) * float64(time.Millisecond)))
}

func yesNo(yes bool) string {
	if yes {
		return "yes"
	}
	return "no"
}

// unless returns a text unless there is nothing to say.
func unless(nothing bool, text string) string {
	if nothing {
		return ""
	}
	return text
}
