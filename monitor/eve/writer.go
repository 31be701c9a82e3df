// Package eve writes QUIC connections as Suricata does in its EVE log
// (https://docs.suricata.io/en/latest/output/eve/eve-json-format.html): a line of JSON with
// the event_type "quic" when a ClientHello was read.
//
// After a Retry the client says hello again, and there is another line, as in Suricata. A connection
// whose ClientHello was not read gets a line without a name when it ends, if its version is known.
//
// The flow_id is a hash of the connection's UID, with 51 bits as in Suricata, and so is the same
// whenever a capture is read. Times are in UTC. Of the object "quic" there are version, sni and ja4.
package eve

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"io"
	"time"

	"github.com/quicway/quicway/monitor"
)

// Writer writes EVE records. It implements [monitor.Writer]. Counters are not part of the log.
type Writer struct{ json *json.Encoder }

var _ monitor.Writer = (*Writer)(nil)

// NewWriter returns a writer of records.
func NewWriter(out io.Writer) *Writer {
	w := &Writer{json.NewEncoder(out)}
	w.json.SetEscapeHTML(false)
	return w
}

// Event implements [monitor.Writer]. It writes a record of a connection whose ClientHello was read.
func (w *Writer) Event(e *monitor.Event) error {
	if e.Kind != monitor.EventIdentified || e.ServerHello {
		return nil
	}
	return w.json.Encode(recordOf(&e.Connection, e.Time))
}

// Connection implements [monitor.Writer]. It writes a record of a connection for which Event has
// written none, because its ClientHello was not read.
func (w *Writer) Connection(c *monitor.Connection) error {
	read := c.JA4 != "" || c.ServerName != "" || c.UserAgent != "" // the last two: of Google QUIC
	if read || c.Version == 0 {
		return nil
	}
	return w.json.Encode(recordOf(c, c.First))
}

// Stats implements [monitor.Writer]. It writes nothing.
func (w *Writer) Stats(*monitor.Stats) error { return nil }

// Close implements [monitor.Writer]. It writes nothing.
func (w *Writer) Close() error { return nil }

// record is a line of the log.
type record struct {
	Timestamp   string `json:"timestamp"`
	FlowID      uint64 `json:"flow_id"`
	EventType   string `json:"event_type"`
	SrcIP       string `json:"src_ip,omitempty"`
	SrcPort     uint16 `json:"src_port,omitempty"`
	DestIP      string `json:"dest_ip,omitempty"`
	DestPort    uint16 `json:"dest_port,omitempty"`
	Proto       string `json:"proto"`
	IPVersion   int    `json:"ip_v,omitempty"`
	CommunityID string `json:"community_id,omitempty"`
	QUIC        quic   `json:"quic"`
}

// quic is the part of a record that only QUIC has.
type quic struct {
	Version string `json:"version"`
	SNI     string `json:"sni,omitempty"`
	UA      string `json:"ua,omitempty"` // only Google's own versions have it
	JA4     string `json:"ja4,omitempty"`
}

// recordOf returns the record of a connection at the time of a packet of its client.
func recordOf(c *monitor.Connection, at time.Time) *record {
	r := &record{
		Timestamp: at.UTC().Format("2006-01-02T15:04:05.000000-0700"),
		FlowID:    flowID(c.UID),
		EventType: "quic",
		Proto:     "UDP",

		CommunityID: c.CommunityID,
		QUIC:        quic{Version: versionName(c.Version), SNI: c.ServerName, UA: c.UserAgent, JA4: c.JA4},
	}
	if len(c.Paths) > 0 {
		client, server := c.Paths[0].Client, c.Paths[0].Server
		r.SrcIP, r.SrcPort = client.Addr().String(), client.Port()
		r.DestIP, r.DestPort = server.Addr().String(), server.Port()
		if r.IPVersion = 6; client.Addr().Is4() {
			r.IPVersion = 4
		}
	}
	return r
}

// flowID returns a number of 51 bits, which all readers of JSON can represent.
func flowID(uid string) uint64 {
	h := fnv.New64a()
	io.WriteString(h, uid)
	return h.Sum64() & (1<<51 - 1)
}

// versionName returns the name of a version in Suricata: the number in hex unless it has another
// one.
func versionName(v monitor.Version) string {
	switch v {
	case 0x6b3343cf:
		return "v2"
	case 0x51303339, 0x51303433, 0x51303434, 0x51303435, 0x51303436:
		return v.String()
	}
	return fmt.Sprintf("%x", uint32(v))
}
