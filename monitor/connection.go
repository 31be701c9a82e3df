package monitor

import (
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/quicway/quicway/internal/wire"
)

// Confidence is how sure it is that a connection is QUIC.
type Confidence uint8

// The confidences, the least first.
const (
	// Potential: the packets may be QUIC or another protocol.
	Potential Confidence = iota
	// GoogleQUIC: the packets have one of Google's own versions, whose handshake is not
	// TLS. Only the client's first message is read, and nothing proves the rest.
	GoogleQUIC
	// MidFlow: only short headers were seen. They have an ID of another connection,
	// are between hosts that have one, or look like QUIC ([Connection.Evidence]).
	MidFlow
	// HandshakeShaped: there were long headers of a known version that fit
	// together, but no Initial can be decrypted.
	HandshakeShaped
	// Proven: an Initial was decrypted, or the tag of a Retry is right.
	Proven
)

var confidenceNames = [...]string{"potential", "gquic", "midflow", "handshake", "proven"}

// String returns the name in JSON.
func (c Confidence) String() string { return name(confidenceNames[:], c) }

// MarshalText implements [encoding.TextMarshaler].
func (c Confidence) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// ChangeKind is the kind of a change of path.
type ChangeKind uint8

// The kinds.
const (
	// NoChange is the kind of the connection's first path.
	NoChange ChangeKind = iota
	// Rebinding: a NAT has given the client another port or address. The connection
	// IDs stay the same because the client does not notice it.
	Rebinding
	// Migration: the client has migrated (RFC 9000 §9), mostly with new connection
	// IDs.
	Migration
	// Probe: the client probes another path (RFC 9000 §9.1).
	Probe
	// PreferredAddress: the client has migrated to another address of the server
	// (RFC 9000 §9.6).
	PreferredAddress
	// Multipath: the connection uses several paths at the same time.
	Multipath
)

var changeNames = [...]string{"none", "rebinding", "migration", "probe", "preferred_address", "multipath"}

// String returns the name in JSON.
func (k ChangeKind) String() string { return name(changeNames[:], k) }

// MarshalText implements [encoding.TextMarshaler].
func (k ChangeKind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// Level is how sure a change of path is.
type Level uint8

// The levels.
const (
	// Low: only timing and addresses show it, or only one side uses the path, or it is not known
	// which of several connections has changed its path.
	Low Level = iota
	// Medium: both sides use the path, and the packets look as after such a change.
	Medium
	// High: the connection ID shows it, and both sides use the path.
	High
)

var levelNames = [...]string{"low", "medium", "high"}

// String returns the name in JSON.
func (l Level) String() string { return name(levelNames[:], l) }

// MarshalText implements [encoding.TextMarshaler].
func (l Level) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// name returns the name of a value, or its number.
func name[T ~uint8](names []string, v T) string {
	if int(v) < len(names) {
		return names[v]
	}
	return fmt.Sprintf("%d", uint8(v))
}

// Version is a version of QUIC. In JSON it is a string of eight hex digits.
type Version uint32

// String returns the usual name, such as "v1", "draft-29" or "Q046". It is "unknown" for 0:
// the connection began before the capture.
func (v Version) String() string {
	if v == 0 {
		return "unknown"
	}
	return wire.Version(v).String()
}

// Name returns the name without a letter for "version": "1", "2" or "draft-29", or else what
// String returns. It is empty for 0.
func (v Version) Name() string {
	switch wire.Version(v) {
	case 0:
		return ""
	case wire.Version1:
		return "1"
	case wire.Version2:
		return "2"
	}
	return v.String()
}

// MarshalText implements [encoding.TextMarshaler].
func (v Version) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%08x", uint32(v)), nil }

// Connection is what is known of a connection. It is a copy, which the caller may
// change. The JSON names stay. Later versions may add fields.
type Connection struct {
	// Number identifies the connection within one monitor.
	Number uint64 `json:"number"`
	// UID identifies the connection in all monitors that see its beginning between the
	// same endpoints, and whenever they run: "C" and 17 digits to the base 62. It is a hash
	// of the endpoints and of the connection IDs in the client's first Initial. A monitor that
	// has not seen that Initial takes the IDs of the first long header that it sees, or only
	// the endpoints if there are none. The UID stays while the connection is kept.
	UID string `json:"uid"`
	// CommunityID is that of Paths[0] ([Path.CommunityID]).
	CommunityID string     `json:"community_id,omitempty"`
	Confidence  Confidence `json:"confidence"`
	// Evidence describes why the confidence is what it is, and if that is MidFlow how it is known which
	// end is the server. The text may change.
	Evidence string  `json:"evidence"`
	Version  Version `json:"version"`
	// VersionName is [Version.Name].
	VersionName string `json:"version_name,omitempty"`
	// State is how far the connection has come. Ended is how it has ended, or nil unless State is
	// StateEnded.
	State State   `json:"state"`
	Ended *Ending `json:"ended,omitempty"`
	// Versions lists all versions that were seen, in their order, at most four.
	Versions []Version `json:"versions,omitempty"`
	// OriginalID is the Destination Connection ID of the client's first Initial.
	// OriginalIDs has it and those of later Initials after a Retry or a Version
	// Negotiation.
	OriginalID  string   `json:"odcid,omitempty"`
	OriginalIDs []string `json:"odcids,omitempty"`
	// ClientID and ServerID are the connection IDs that client and server have chosen for
	// themselves in the handshake. nil: not seen. An ID may have no bytes.
	ClientID *ID `json:"client_id,omitempty"`
	ServerID *ID `json:"server_id,omitempty"`
	// TokenLength is the length of the first token in the client's Initials, in bytes. It is
	// from an earlier connection, or from a Retry.
	TokenLength int `json:"token_length,omitempty"`
	// ClientIDs and ServerIDs are the latest connection IDs of either side: the
	// destination IDs of packets that go there.
	ClientIDs []string `json:"client_ids,omitempty"`
	ServerIDs []string `json:"server_ids,omitempty"`
	// Rotations counts changes of the connection ID on a path.
	Rotations int `json:"rotations,omitempty"`

	// TLS is what the ClientHello and the ServerHello say. Of a connection with a version of Google's own
	// it has the server name of the client's first message, and UserAgent has the name of the client in
	// that message, at most 256 bytes of each.
	TLS
	UserAgent string `json:"user_agent,omitempty"`

	// Paths lists the paths that are kept, at most 16. PathsDropped is the number of
	// earlier ones.
	Paths        []Path `json:"paths"`
	PathsDropped int    `json:"paths_dropped,omitempty"`
	// PathChanges lists the first 16 changes of path. PathChangesOmitted is the number
	// of later ones.
	PathChanges        []PathChange `json:"path_changes,omitempty"`
	PathChangesOmitted int          `json:"path_changes_omitted,omitempty"`

	Handshake HandshakeRTT `json:"handshake,omitzero"`
	// SpinRTT is the round trip by the spin bit on the path in use. It is 0 if the
	// connection does not use the spin bit.
	SpinRTT Milliseconds `json:"spin_rtt_ms,omitempty"`
	// RTT is [Path.RTT] of the path in use.
	RTT RTTStats `json:"rtt,omitzero"`

	// History has a letter for each thing that was seen, as in Zeek's quic.log, at most 100.
	// Letters are capitals if the client has sent it, and small if the server has: I Initial,
	// H Handshake, Z 0-RTT, R Retry, S complete ClientHello or ServerHello, C CONNECTION_CLOSE
	// in an Initial, U version that is not read, X bytes after a packet that are none, and O the
	// first, second, fourth, eighth and so on short header.
	History string `json:"history,omitempty"`

	// Retries and Negotiations count Retry and Version Negotiation packets.
	Retries      int `json:"retries,omitempty"`
	Negotiations int `json:"version_negotiations,omitempty"`
	// ZeroRTT counts 0-RTT packets.
	ZeroRTT int `json:"zero_rtt,omitempty"`
	// Glued counts packets in which the system has put several datagrams together
	// that could not be told apart. The other counters count each as one datagram.
	Glued int `json:"glued,omitempty"`

	// First and Last are the times of the first and the latest packet.
	First time.Time `json:"first"`
	Last  time.Time `json:"last"`
	// Duration is the time from First to Last.
	Duration Milliseconds `json:"duration_ms"`
	// FromClient and FromServer count what either side has sent, on all paths, also on
	// those that are not kept any more. They never go down.
	FromClient Traffic `json:"from_client"`
	FromServer Traffic `json:"from_server"`
	// Direction is the direction of the client's packets, "in" or "out". Interface is
	// the index of the interface of the first packet. They are empty and 0 if the
	// source does not know them.
	Direction string `json:"direction,omitempty"`
	Interface int    `json:"interface,omitempty"`
}

// TLS is what is known from the handshake's hellos. If the ClientHello was not read
// all fields but the last three are zero. If the ServerHello was not read the last
// three are zero.
type TLS struct {
	// ServerName is the name in the server_name extension, at most 256 bytes of it. Those in the DNS have
	// at most 253.
	ServerName string `json:"sni,omitempty"`
	// ALPN lists the protocols that the client offers, at most 16. ALPNOmitted is the
	// number of further ones.
	ALPN        []string `json:"alpn,omitempty"`
	ALPNOmitted int      `json:"alpn_omitted,omitempty"`
	// JA4 is the fingerprint of the ClientHello, as FoxIO defines it.
	JA4 string `json:"ja4,omitempty"`
	// ECH reports whether the ClientHello has an encrypted_client_hello extension.
	// Then ServerName may not be the real name. Some clients send the extension
	// without using it (GREASE).
	ECH bool `json:"ech,omitempty"`
	// PostQuantum reports whether the client has sent a key share for a
	// post-quantum group. PostQuantumGroups lists those that it supports.
	PostQuantum       bool     `json:"post_quantum,omitempty"`
	PostQuantumGroups []string `json:"post_quantum_groups,omitempty"`
	// Cipher, Group and TLSVersion are the server's choice.
	Cipher     string `json:"cipher,omitempty"`
	Group      string `json:"group,omitempty"`
	TLSVersion string `json:"tls_version,omitempty"`
}

// Path is a pair of addresses over which packets of a connection go (RFC 9000 §9).
type Path struct {
	Client netip.AddrPort `json:"client"`
	Server netip.AddrPort `json:"server"`
	// Validated reports whether packets of the server were seen on the path, and packets
	// of the client unless the connection began here. The packets of another path may be
	// forged by an attacker who has seen a connection ID.
	Validated bool `json:"validated"`
	// Active reports whether it is the path in use.
	Active     bool      `json:"active"`
	First      time.Time `json:"first"`
	Last       time.Time `json:"last"`
	FromClient Traffic   `json:"from_client"`
	FromServer Traffic   `json:"from_server"`
	// SpinRTT is the round trip by the spin bit. SpinServerSide and SpinClientSide
	// are the latest values of its halves, as in [HandshakeRTT].
	SpinRTT        Milliseconds `json:"spin_rtt_ms,omitempty"`
	SpinServerSide Milliseconds `json:"spin_server_side_ms,omitempty"`
	SpinClientSide Milliseconds `json:"spin_client_side_ms,omitempty"`
	// RTT sums up the round trips of the path.
	RTT RTTStats `json:"rtt,omitzero"`
	// CommunityID is the Community ID of the path, version 1
	// (https://github.com/corelight/community-id-spec), with [Config.CommunityIDSeed].
	CommunityID string `json:"community_id"`
}

// RTTStats sums up the round trips that were measured on a path: by the handshake, if it was on
// this path and was no longer than one round trip, and by the spin bit in the direction with
// the smaller average. Each includes the time that the ends took to answer. A kernel that
// counts packets ([Kernel]) reports moving averages at most once a second, which are the
// samples then.
type RTTStats struct {
	// Samples is the number of round trips.
	Samples int `json:"samples"`
	// Min is the shortest one. Median is the median of the latest 32 by the spin bit and that of
	// the handshake.
	Min    Milliseconds `json:"min_ms"`
	Median Milliseconds `json:"median_ms"`
	// Jitter is the moving average of the differences between a round trip by the spin bit and the
	// next, with a weight of a sixteenth as in RFC 3550 §6.4.1.
	Jitter Milliseconds `json:"jitter_ms"`
}

// PathChange is a change of path.
type PathChange struct {
	Kind ChangeKind `json:"kind"`
	Time time.Time  `json:"time"`
	// From is the old address of the side that has moved, and To is its new address. From is
	// the zero value if it is not known which connection has moved.
	From       netip.AddrPort `json:"from"`
	To         netip.AddrPort `json:"to"`
	Confidence Level          `json:"confidence"`
	// Evidence describes what shows the change. The text may change.
	Evidence string `json:"evidence"`
	// Candidates is set if several connections may have moved here, and nothing shows which.
	// Then the path is kept as a connection of its own, of which this is the change, and
	// Candidates has the numbers of those that it may continue, at most 16. None of them has
	// got its path, its connection IDs or its packets. The list becomes shorter as connections
	// go on elsewhere. Once it is certain which one has moved, that connection takes over the
	// path with its packets, and the path's own connection ends with [EventMerged].
	// CandidatesOmitted is the number of further candidates.
	Candidates        []uint64 `json:"candidates,omitempty"`
	CandidatesOmitted int      `json:"candidates_omitted,omitempty"`
}

// Traffic counts datagrams and the bytes of their payloads. ECN counts those of the datagrams
// that are marked.
type Traffic struct {
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
	ECN     ECN    `json:"ecn,omitzero"`
}

// HandshakeRTT is the round trip of the handshake in two halves (RFC 9312 §3.8.1).
// ServerSide is the time from the client's first Initial to the server's first
// answer, or after a Retry or a Version Negotiation from the first Initial that follows
// it, so that each half is of one round trip. ClientSide is the time from that answer to the
// client's next packet that waits for it: not 0-RTT, nor an Initial without an acknowledgment to
// another ID than the server's. Both include the time that the side took to answer, and are
// 0 if the packets were not seen.
type HandshakeRTT struct {
	ServerSide Milliseconds `json:"server_side_ms,omitempty"`
	ClientSide Milliseconds `json:"client_side_ms,omitempty"`
}

// Milliseconds is a duration. In JSON it is a number of milliseconds.
type Milliseconds time.Duration

// Duration returns m as a [time.Duration].
func (m Milliseconds) Duration() time.Duration { return time.Duration(m) }

// String formats m like a [time.Duration].
func (m Milliseconds) String() string { return time.Duration(m).String() }

// MarshalJSON implements [encoding/json.Marshaler].
func (m Milliseconds) MarshalJSON() ([]byte, error) {
	return fmt.Appendf(nil, "%.3f", float64(m)/1e6), nil
}

// LogValue implements [slog.LogValuer] with the most important fields.
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
