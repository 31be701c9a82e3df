package monitor

import (
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/quicway/quicway/internal/wire"
)

// Confidence says how sure it is that a connection is one.
type Confidence uint8

// The confidences, least first.
const (
	// Potential: it may be QUIC, but nothing says that it is nothing else.
	Potential Confidence = iota
	// GoogleQUIC: by its version it is Google's own, which is not looked into.
	GoogleQUIC
	// MidFlow: short headers alone, but with an ID of, or between the hosts of,
	// a connection that is known.
	MidFlow
	// HandshakeShaped: long headers of a known version that fit together, none
	// of which opens.
	HandshakeShaped
	// Proven: an Initial opens, or a Retry's tag verifies.
	Proven
)

var confidenceNames = [...]string{"potential", "gquic", "midflow", "handshake", "proven"}

// String returns the name that JSON has.
func (c Confidence) String() string { return name(confidenceNames[:], c) }

// MarshalText implements [encoding.TextMarshaler].
func (c Confidence) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// ChangeKind is what a change of path is.
type ChangeKind uint8

// The kinds.
const (
	// NoChange is the path that a connection began on.
	NoChange ChangeKind = iota
	// Rebinding: a NAT has given the client another port or address. The
	// connection IDs stay the same, for the client has not noticed.
	Rebinding
	// Migration: the client has moved (RFC 9000 §9), mostly with IDs that were
	// not seen before.
	Migration
	// Probe: another path is being tried (RFC 9000 §9.1).
	Probe
	// PreferredAddress: the server has moved (RFC 9000 §9.6).
	PreferredAddress
	// Multipath: several paths are used at a time.
	Multipath
)

var changeNames = [...]string{"none", "rebinding", "migration", "probe", "preferred_address", "multipath"}

// String returns the name that JSON has.
func (k ChangeKind) String() string { return name(changeNames[:], k) }

// MarshalText implements [encoding.TextMarshaler].
func (k ChangeKind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// Level is how sure a change of path is.
type Level uint8

// The levels.
const (
	Low    Level = iota // timing and addresses only
	Medium              // packets look as they do on such a path
	High                // an ID says so, and both sides use the path
)

var levelNames = [...]string{"low", "medium", "high"}

// String returns the name that JSON has.
func (l Level) String() string { return name(levelNames[:], l) }

// MarshalText implements [encoding.TextMarshaler].
func (l Level) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

func name[T ~uint8](names []string, v T) string {
	if int(v) < len(names) {
		return names[v]
	}
	return fmt.Sprintf("%d", uint8(v))
}

// Version is a version of QUIC. JSON has it in eight hex digits.
type Version uint32

// String returns the usual name, as "v1", "draft-29" or "Q046".
func (v Version) String() string { return wire.Version(v).String() }

// MarshalText implements [encoding.TextMarshaler].
func (v Version) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%08x", uint32(v)), nil }

// Connection is what is known of a connection: a copy, which belongs to whoever
// asked for it. Its JSON has these names, and further ones may come.
type Connection struct {
	// Number tells connections of one monitor apart.
	Number     uint64     `json:"number"`
	Confidence Confidence `json:"confidence"`
	// Evidence says why, in words that may change.
	Evidence string  `json:"evidence"`
	Version  Version `json:"version"`
	// Versions lists all that were tried, in their order.
	Versions []Version `json:"versions,omitempty"`
	// OriginalID is the Destination Connection ID of the client's first
	// Initial, and OriginalIDs has those of later attempts, after a Retry or a
	// Version Negotiation, too.
	OriginalID  string   `json:"odcid,omitempty"`
	OriginalIDs []string `json:"odcids,omitempty"`
	// ClientIDs and ServerIDs are the IDs of either side that were seen last.
	ClientIDs []string `json:"client_ids,omitempty"`
	ServerIDs []string `json:"server_ids,omitempty"`
	// Rotations counts new IDs on a path that did not change.
	Rotations int `json:"rotations,omitempty"`

	// TLS is what the hellos say, as far as they were read.
	TLS

	Paths       []Path       `json:"paths"`
	PathChanges []PathChange `json:"path_changes,omitempty"`

	Handshake HandshakeRTT `json:"handshake,omitzero"`
	// SpinRTT is the round trip by the spin bit of the path in use, 0 if it
	// does not spin.
	SpinRTT Milliseconds `json:"spin_rtt_ms,omitempty"`

	Retries      int `json:"retries,omitempty"`
	Negotiations int `json:"version_negotiations,omitempty"`
	// ZeroRTT counts 0-RTT packets.
	ZeroRTT int `json:"zero_rtt,omitempty"`
	// Glued counts packets that the system had put together and that could not
	// be told apart: the other counters have each as one.
	Glued int `json:"glued,omitempty"`

	// First and Last are the times of its first and its latest packet.
	First time.Time `json:"first"`
	Last  time.Time `json:"last"`
	// FromClient and FromServer count datagrams, and bytes of UDP payload.
	FromClient Traffic `json:"from_client"`
	FromServer Traffic `json:"from_server"`
	// Direction is that of the client's first packet through this host, and
	// Interface the one that it was seen on, 0 if the source does not tell.
	Direction string `json:"direction,omitempty"`
	Interface int    `json:"interface,omitempty"`
}

// TLS is what the hellos say: of a client's that was not read all but the last
// three are empty, of a server's these.
type TLS struct {
	ServerName string `json:"sni,omitempty"`
	// ALPN lists the protocols that the client offers, the first 16 of them.
	ALPN []string `json:"alpn,omitempty"`
	// JA4 is the fingerprint of the ClientHello, as FoxIO defines it.
	JA4 string `json:"ja4,omitempty"`
	// ECH says that the ClientHello has an encrypted_client_hello extension:
	// the name may not be the real one. Clients also send it for practice.
	ECH bool `json:"ech,omitempty"`
	// PostQuantum says that the client has sent a share for one of
	// PostQuantumGroups.
	PostQuantum       bool     `json:"post_quantum,omitempty"`
	PostQuantumGroups []string `json:"post_quantum_groups,omitempty"`
	// Cipher, Group and TLSVersion are what the server has chosen.
	Cipher     string `json:"cipher,omitempty"`
	Group      string `json:"group,omitempty"`
	TLSVersion string `json:"tls_version,omitempty"`
}

// Path is a pair of addresses that a connection uses.
type Path struct {
	Client netip.AddrPort `json:"client"`
	Server netip.AddrPort `json:"server"`
	// Validated says that packets went both ways. What was not may be somebody
	// else's, who has seen an ID.
	Validated bool `json:"validated"`
	// Active says that it is the one in use.
	Active     bool      `json:"active"`
	First      time.Time `json:"first"`
	Last       time.Time `json:"last"`
	FromClient Traffic   `json:"from_client"`
	FromServer Traffic   `json:"from_server"`
	// SpinRTT is the round trip by the spin bit, and SpinServerSide and
	// SpinClientSide its latest halves, as those of [HandshakeRTT].
	SpinRTT        Milliseconds `json:"spin_rtt_ms,omitempty"`
	SpinServerSide Milliseconds `json:"spin_server_side_ms,omitempty"`
	SpinClientSide Milliseconds `json:"spin_client_side_ms,omitempty"`
}

// PathChange is a change of path.
type PathChange struct {
	Kind       ChangeKind     `json:"kind"`
	Time       time.Time      `json:"time"`
	From       netip.AddrPort `json:"from"` // of the side that moved
	To         netip.AddrPort `json:"to"`
	Confidence Level          `json:"confidence"`
	// Evidence says why, in words that may change.
	Evidence string `json:"evidence"`
}

// Traffic counts datagrams and the bytes of their payloads.
type Traffic struct {
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}

// HandshakeRTT is the round trip of the handshake in its two halves, as far as
// they were seen (RFC 9312 §3.8.1): from where the packets were captured to the
// server and back, from the client's first Initial to the server's first answer
// that is not a Retry; and to the client and back, from there to the client's
// next packet. Either includes the time that the side took to answer.
type HandshakeRTT struct {
	ServerSide Milliseconds `json:"server_side_ms,omitempty"`
	ClientSide Milliseconds `json:"client_side_ms,omitempty"`
}

// Milliseconds is a duration that JSON has in milliseconds.
type Milliseconds time.Duration

// Duration returns it as package time has it.
func (m Milliseconds) Duration() time.Duration { return time.Duration(m) }

// String returns it as package time has it.
func (m Milliseconds) String() string { return time.Duration(m).String() }

// MarshalJSON gives a number.
func (m Milliseconds) MarshalJSON() ([]byte, error) {
	return fmt.Appendf(nil, "%.3f", float64(m)/1e6), nil
}

// LogValue implements [slog.LogValuer]: what one wants in a line of a log.
func (c Connection) LogValue() slog.Value {
	attrs := []slog.Attr{
		slog.Uint64("number", c.Number),
		slog.String("confidence", c.Confidence.String()),
		slog.String("version", c.Version.String()),
	}
	if len(c.Paths) > 0 {
		attrs = append(attrs, slog.Any("client", c.Paths[0].Client), slog.Any("server", c.Paths[0].Server))
	}
	if c.JA4 != "" { // the ClientHello was read
		attrs = append(attrs, slog.String("sni", c.ServerName), slog.Any("alpn", c.ALPN), slog.String("ja4", c.JA4))
	}
	return slog.GroupValue(append(attrs,
		slog.Int("paths", len(c.Paths)),
		slog.Int("path_changes", len(c.PathChanges)),
		slog.Uint64("packets", c.FromClient.Packets+c.FromServer.Packets))...)
}
