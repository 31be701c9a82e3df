// Package quotatest holds the decisions of the quota's packet filter as a table, for tests
// of its implementations in Go and in the kernel.
package quotatest

import (
	"github.com/quicway/quicway/internal/test/wiretest"
	"github.com/quicway/quicway/internal/wire"
)

// Case is a datagram, the state of the filter that receives it, and the decision.
type Case struct {
	Name     string
	IDLen    int // length of the server's connection IDs; 0: 4
	State    State
	From     string // empty: 192.0.2.1:1000
	Datagram Datagram

	Pass   bool
	Reason string // a quota.Reason's name
	// Answers says that the decision depends on refusals that are sent. An
	// implementation that sends none may decide otherwise.
	Answers bool
}

// State is the state of the filter before the datagram.
type State struct {
	Allow, Deny []Entry
	// Admitted and Refused: the datagram's attempt (address, port, and connection ID)
	// was let in, or answered with a refusal.
	Admitted, Refused bool
	// Neighbour: another attempt from the same address and port was let in.
	Neighbour bool
	// Retried: an attempt from the same address and port, with the same token and
	// another connection ID, was let in.
	Retried bool
	// Excess: the source has all the connections that it may have.
	Excess bool
	// Answered: the source has had all the refusals that are sent to it.
	Answered bool
	// NoPackets and NoAttempts: the source has used up its rate.
	NoPackets, NoAttempts bool
}

// Entry is an entry of a list.
type Entry struct {
	Prefix  string
	Expired bool
}

// Datagram describes a datagram.
type Datagram struct {
	Raw     []byte // if set, the whole datagram
	Version wire.Version
	Type    wire.Type
	ID      int       // length of the Destination Connection ID
	Token   int       // length of the token
	Size    int       // of the datagram; 0: 1200
	Then    wire.Type // type of a second packet; OneRTT: none
	Cut     int       // if not 0, the datagram is cut to this length
}

// Build returns the bytes of the datagram, which are always the same.
func (d *Datagram) Build() []byte {
	if d.Raw != nil {
		return d.Raw
	}
	size := d.Size
	if size == 0 {
		size = 1200
	}
	var b []byte
	if d.Then != wire.OneRTT {
		b = d.packet(nil, d.Type, 62)
		b = d.packet(b, d.Then, size-len(b)-d.overhead(d.Then))
	} else {
		b = d.packet(nil, d.Type, size-d.overhead(d.Type))
	}
	if d.Cut > 0 {
		b = b[:d.Cut]
	}
	return b
}

// overhead returns the length of a header, for a payload of 64 to 16 383 bytes.
func (d *Datagram) overhead(t wire.Type) int { return len(d.packet(nil, t, 64)) - 64 }

func (d *Datagram) packet(b []byte, t wire.Type, payload int) []byte {
	version := d.Version
	if version == 0 {
		version = wire.Version1
	}
	if t == wire.OneRTT {
		return append(b, append([]byte{0x40}, make([]byte, max(payload, 0))...)...)
	}
	if !version.Known() {
		t = wire.Unknown
	}
	first, _ := wiretest.FirstByte(version, t, 0)
	h := wire.Header{Type: t, First: first, Version: version, DstID: sequence(d.ID), SrcID: sequence(4), Token: sequence(d.Token), RetryTag: sequence(16)}
	b, err := wiretest.AppendLong(b, &h, make([]byte, max(payload, 0)))
	if err != nil {
		panic(err) // the case is invalid
	}
	return b
}

// sequence returns n bytes: 1, 2, 3, and so on.
func sequence(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i + 1)
	}
	return b
}

// first and first2 are the first datagram of a ClientHello, in QUIC versions 1 and 2;
// retried is the one after a Retry, and short has a short header.
var (
	first   = Datagram{Type: wire.Initial, ID: 12, Size: 1280}
	first2  = Datagram{Version: wire.Version2, Type: wire.Initial, ID: 12, Size: 1280}
	retried = Datagram{Type: wire.Initial, ID: 4, Token: 105, Size: 1280}
	short   = Datagram{Type: wire.OneRTT, Size: 1200}
)

// Cases are all decisions, in the order of the steps of the filter. The numbers are those
// of these steps.
var Cases = []Case{
	// 1, 2: the lists.
	{Name: "allowed", State: State{Allow: []Entry{{Prefix: "192.0.2.0/24"}}}, Datagram: first, Pass: true, Reason: "allowed"},
	{Name: "allowed and denied", State: State{Allow: []Entry{{Prefix: "192.0.2.0/24"}}, Deny: []Entry{{Prefix: "192.0.2.1/32"}}}, Datagram: first, Pass: true, Reason: "allowed"},
	{Name: "allowed, beyond all limits", State: State{Allow: []Entry{{Prefix: "192.0.2.0/24"}}, Excess: true, NoPackets: true, NoAttempts: true}, Datagram: first, Pass: true, Reason: "allowed"},
	{Name: "denied", State: State{Deny: []Entry{{Prefix: "192.0.2.0/24"}}}, Datagram: first, Reason: "denied"},
	{Name: "denied, established", State: State{Deny: []Entry{{Prefix: "192.0.2.0/24"}}, Admitted: true}, Datagram: short, Reason: "denied"},
	{Name: "denied, not QUIC", State: State{Deny: []Entry{{Prefix: "0.0.0.0/0"}}}, Datagram: Datagram{Raw: []byte("hello")}, Reason: "denied"},
	{Name: "denied, IPv6", From: "[2001:db8::1]:1000", State: State{Deny: []Entry{{Prefix: "2001:db8::/64"}}}, Datagram: first, Reason: "denied"},
	{Name: "neighbour of the denied prefix", State: State{Deny: []Entry{{Prefix: "192.0.2.2/31"}}}, Datagram: first, Pass: true, Reason: "new"},
	{Name: "other address family than the denied", From: "[2001:db8::1]:1000", State: State{Deny: []Entry{{Prefix: "0.0.0.0/0"}}}, Datagram: first, Pass: true, Reason: "new"},
	{Name: "IPv4, and all of IPv6 denied", State: State{Deny: []Entry{{Prefix: "::/0"}}}, Datagram: first, Pass: true, Reason: "new"},
	{Name: "IPv4, and all of IPv6 allowed", State: State{Allow: []Entry{{Prefix: "::/0"}}, Deny: []Entry{{Prefix: "0.0.0.0/0"}}}, Datagram: first, Reason: "denied"},
	{Name: "denied entry has expired", State: State{Deny: []Entry{{Prefix: "192.0.2.0/24", Expired: true}}}, Datagram: first, Pass: true, Reason: "new"},
	{Name: "denied by the shorter prefix", State: State{Deny: []Entry{{Prefix: "192.0.2.1/32", Expired: true}, {Prefix: "192.0.0.0/16"}}}, Datagram: first, Reason: "denied"},
	{Name: "allowed entry has expired", State: State{Allow: []Entry{{Prefix: "192.0.2.0/24", Expired: true}}, Deny: []Entry{{Prefix: "192.0.2.0/24"}}}, Datagram: first, Reason: "denied"},

	// 3: packets of any kind.
	{Name: "too many packets, new", State: State{NoPackets: true}, Datagram: first, Reason: "packet_rate"},
	{Name: "too many packets, established", State: State{NoPackets: true}, Datagram: short, Reason: "packet_rate"},
	{Name: "too many packets, admitted", State: State{NoPackets: true, Admitted: true}, Datagram: first, Reason: "packet_rate"},

	// 4: packets other than Initials.
	{Name: "empty", Datagram: Datagram{Raw: []byte{}}, Pass: true, Reason: "other"},
	{Name: "not QUIC", Datagram: Datagram{Raw: []byte("hello")}, Pass: true, Reason: "other"},
	{Name: "short header", Datagram: short, Pass: true, Reason: "other"},
	{Name: "short header of a source over quota", State: State{Excess: true, Answered: true, NoAttempts: true}, Datagram: short, Pass: true, Reason: "other"},
	{Name: "Handshake of a source over quota", State: State{Excess: true, Answered: true}, Datagram: Datagram{Type: wire.Handshake, ID: 4}, Pass: true, Reason: "other"},
	{Name: "short Handshake", Datagram: Datagram{Type: wire.Handshake, ID: 4, Size: 100}, Pass: true, Reason: "other"},
	{Name: "0-RTT of a source over quota", State: State{Excess: true, Answered: true}, Datagram: Datagram{Type: wire.ZeroRTT, ID: 12}, Pass: true, Reason: "other"},
	{Name: "0-RTT, v2", State: State{Excess: true, Answered: true}, Datagram: Datagram{Version: wire.Version2, Type: wire.ZeroRTT, ID: 12}, Pass: true, Reason: "other"},
	{Name: "0-RTT before an Initial", State: State{Excess: true, Answered: true}, Datagram: Datagram{Type: wire.ZeroRTT, ID: 12, Then: wire.Initial}, Pass: true, Reason: "other"},
	{Name: "Handshake before an Initial", State: State{Excess: true, Answered: true}, Datagram: Datagram{Type: wire.Handshake, ID: 4, Then: wire.Initial}, Pass: true, Reason: "other"},
	{Name: "Handshake, v2", State: State{Excess: true, Answered: true}, Datagram: Datagram{Version: wire.Version2, Type: wire.Handshake, ID: 4}, Pass: true, Reason: "other"},
	{Name: "Retry", State: State{Excess: true, Answered: true}, Datagram: Datagram{Type: wire.Retry, ID: 12, Token: 60}, Pass: true, Reason: "other"},
	{Name: "unknown version", State: State{Excess: true, Answered: true}, Datagram: Datagram{Version: 0x1a2a3a4a, ID: 12}, Pass: true, Reason: "other"},
	{Name: "Version Negotiation", State: State{Excess: true, Answered: true}, Datagram: Datagram{Raw: []byte{0xc0, 0, 0, 0, 0, 4, 1, 2, 3, 4, 4, 1, 2, 3, 4, 0, 0, 0, 1}}, Pass: true, Reason: "other"},
	{Name: "ID longer than any", State: State{Excess: true, Answered: true}, Datagram: Datagram{Raw: append([]byte{0xc0, 0, 0, 0, 1, 21}, make([]byte, 1300)...)}, Pass: true, Reason: "other"},
	{Name: "header cut short", Datagram: Datagram{Type: wire.Initial, ID: 12, Cut: 15}, Pass: true, Reason: "other"},
	{Name: "length beyond the datagram", Datagram: Datagram{Type: wire.Initial, ID: 12, Size: 1300, Cut: 1250}, Pass: true, Reason: "other"},

	// 5: Initials that are too short for a server.
	{Name: "short Initial", Datagram: Datagram{Type: wire.Initial, ID: 12, Size: 1199}, Reason: "short_initial"},
	{Name: "shortest Initial", Datagram: Datagram{Type: wire.Initial, ID: 12, Size: 1200}, Pass: true, Reason: "new"},
	{Name: "short Initial, admitted", State: State{Admitted: true}, Datagram: Datagram{Type: wire.Initial, ID: 12, Size: 1199}, Reason: "short_initial"},
	{Name: "short Initial, v2", Datagram: Datagram{Version: wire.Version2, Type: wire.Initial, ID: 12, Size: 600}, Reason: "short_initial"},

	// 6: continuing handshakes, with an ID that no client may choose.
	{Name: "continuing", Datagram: Datagram{Type: wire.Initial, ID: 4}, Pass: true, Reason: "continuing"},
	{Name: "continuing, over quota", State: State{Excess: true, Answered: true, NoAttempts: true}, Datagram: Datagram{Type: wire.Initial, ID: 4}, Pass: true, Reason: "continuing"},
	{Name: "continuing, coalesced, over quota", State: State{Excess: true, Answered: true}, Datagram: Datagram{Type: wire.Initial, ID: 4, Then: wire.Handshake}, Pass: true, Reason: "continuing"},
	{Name: "continuing, longest such ID", Datagram: Datagram{Type: wire.Initial, ID: 7}, Pass: true, Reason: "continuing"},
	{Name: "continuing, no ID", Datagram: Datagram{Type: wire.Initial, ID: 0}, Pass: true, Reason: "continuing"},

	// 7: known attempts.
	{Name: "second datagram of the last attempt that was let in", State: State{Admitted: true, Excess: true, Answered: true, NoAttempts: true}, Datagram: first, Pass: true, Reason: "flow"},
	{Name: "the same, v2", State: State{Admitted: true, Excess: true, Answered: true, NoAttempts: true}, Datagram: first2, Pass: true, Reason: "flow"},
	{Name: "the same, after a Retry", State: State{Admitted: true, Excess: true, Answered: true, NoAttempts: true}, Datagram: retried, Pass: true, Reason: "flow"},
	{Name: "second datagram of a refused attempt", State: State{Refused: true}, Datagram: first, Reason: "repeated", Answers: true},

	// 8: continuing handshakes, where the server's IDs are as long as those of clients.
	{Name: "continuing, long ID", IDLen: 12, State: State{Neighbour: true, Excess: true, Answered: true}, Datagram: first, Pass: true, Reason: "continuing"},
	{Name: "long ID of an unknown client", IDLen: 12, Datagram: first, Pass: true, Reason: "new"},
	{Name: "long ID of an unknown client, over quota", IDLen: 12, State: State{Excess: true, Answered: true}, Datagram: first, Reason: "connections"},
	{Name: "another ID from the same port, over quota", IDLen: 16, State: State{Neighbour: true, Excess: true, Answered: true}, Datagram: first, Reason: "connections"},
	{Name: "continuing after a Retry", State: State{Retried: true, Excess: true, Answered: true, NoAttempts: true}, Datagram: retried, Pass: true, Reason: "continuing"},
	{Name: "the token of another, with an ID that is not the server's", State: State{Retried: true, Excess: true, Answered: true}, Datagram: Datagram{Type: wire.Initial, ID: 12, Token: 105}, Reason: "connections"},
	{Name: "a token from a port that is known", State: State{Neighbour: true, Excess: true, Answered: true}, Datagram: retried, Reason: "connections"},
	{Name: "long ID with a token, over quota", IDLen: 12, State: State{Neighbour: true, Excess: true, Answered: true}, Datagram: Datagram{Type: wire.Initial, ID: 12, Token: 50}, Reason: "connections"},

	// 9: over quota.
	{Name: "over quota", State: State{Excess: true, Answered: true}, Datagram: first, Reason: "connections"},
	{Name: "over quota, v2", State: State{Excess: true, Answered: true}, Datagram: first2, Reason: "connections"},
	{Name: "over quota, IPv6", From: "[2001:db8::1]:1000", State: State{Excess: true, Answered: true}, Datagram: first, Reason: "connections"},
	{Name: "over quota, with a token", State: State{Excess: true, Answered: true}, Datagram: retried, Reason: "connections"},
	{Name: "over quota, coalesced with 0-RTT", State: State{Excess: true, Answered: true}, Datagram: Datagram{Type: wire.Initial, ID: 8, Then: wire.ZeroRTT}, Reason: "connections"},
	{Name: "over quota, from a port that is known", State: State{Excess: true, Answered: true, Neighbour: true}, Datagram: first, Reason: "connections"},
	{Name: "over quota, and a refusal may be sent", State: State{Excess: true}, Datagram: first, Pass: true, Reason: "connections", Answers: true},

	// 10, 11: attempts.
	{Name: "too many attempts", State: State{NoAttempts: true}, Datagram: first, Reason: "attempt_rate"},
	{Name: "too many attempts, with a token", State: State{NoAttempts: true}, Datagram: retried, Reason: "attempt_rate"},
	{Name: "new", Datagram: first, Pass: true, Reason: "new"},
	{Name: "new, v2", Datagram: first2, Pass: true, Reason: "new"},
	{Name: "new, IPv6", From: "[2001:db8::1]:1000", Datagram: first, Pass: true, Reason: "new"},
	{Name: "new, greased bit", Datagram: greased(), Pass: true, Reason: "new"},
	{Name: "new, longest ID", Datagram: Datagram{Type: wire.Initial, ID: 20}, Pass: true, Reason: "new"},
	{Name: "new, shortest ID", Datagram: Datagram{Type: wire.Initial, ID: 8}, Pass: true, Reason: "new"},
	{Name: "new, with a token", Datagram: retried, Pass: true, Reason: "new"},
	{Name: "new, coalesced with 0-RTT", Datagram: Datagram{Type: wire.Initial, ID: 8, Then: wire.ZeroRTT}, Pass: true, Reason: "new"},
}

// greased is a first Initial with the fixed bit cleared (RFC 9287 §3.1).
func greased() Datagram {
	b := first.Build()
	b[0] &^= 0x40
	return Datagram{Raw: b}
}
