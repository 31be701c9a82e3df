// Package xdp is the kernel's part of Quicway: one XDP program for an interface,
// which does what Go has decided, and passes whatever it is not sure of. It knows
// addresses and connection IDs, and nothing of what they are for: packages relay
// and quota tell it what to do when a [Program] is in their Config, and package
// monitor when it is given one.
//
// It needs Linux 6.1, CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON. From Linux 6.18 on it
// does without CAP_PERFMON, but takes more than twice as long for a packet, because
// the kernel then guards it against speculation. These are the oldest versions that it
// is tested on: docs/kernels.md has a table. A stage that a kernel refuses is left
// out of the program, with a line in the log ([Program.StageErr]); [Load] returns
// ErrUnsupported if all are refused, and on other systems.
//
// # What the relay stage forwards
//
// UDP over IPv4 and IPv6, with a short QUIC header whose connection ID is a leg's,
// from the other leg, to the address that it uses. The next hop is asked of the
// kernel's routing table, about once a second for each leg, so forwarding must be
// enabled on the interface (net.ipv4.conf.IFACE.forwarding,
// net.ipv6.conf.IFACE.forwarding); if it is not, all packets are passed, for
// PassNoRoute.
//
// A veth hands on what is sent from native mode only if its other end has an XDP
// program too, as one that passes everything. Nobody can find that out from here, so
// Auto is Generic there, and on a bond. Packets must reach the interface with their
// checksums, which a virtual interface of the same host leaves to hardware that is
// not there: see tx-checksumming in ethtool(8).
//
// # What the quota stage drops
//
// With [Config.Quota], of UDP to a port that it guards: packets from denied
// prefixes, those beyond a source's rate, Initials that are too short, and Initials
// of new connections (QUIC versions 1 and 2) of sources that are turned away or make
// too many. Packets of connections that exist, continuing handshakes, and whatever
// it is not sure of pass. Its verdicts have an end, and hold only under a lease.
// In generic mode several packets that the stack has put together count as one.
//
// # What the monitor stage counts
//
// Package monitor reads it ([Config.Flows], [Program.Flows]). It comes before the
// other stages, sees all UDP, and passes all of it. What leaves by an interface is
// seen at its egress hook (TCX, Linux 6.6), but not what this host forwards, which
// was seen when it came in, nor what the relay stage sends.
package xdp

import (
	"fmt"
	"log/slog"
	"net/netip"

	"github.com/quicway/quicway/internal/ratelog"
)

// Defaults of [Config].
const (
	defaultSessions = 65536
	idsPerSession   = 10
	idsPerPinned    = 32
	defaultPrefixes = 1 << 18
	defaultSources  = 65536
	defaultAttempts = 65536
)

// Config configures a [Program]. The zero value works.
type Config struct {
	// Sessions bounds the sessions of a relay that the kernel forwards for;
	// further ones are left to Go. They take 256 bytes each, in advance. 0
	// means 65 536. A negative number leaves the relay stage out of the
	// program, which costs nothing then.
	Sessions int
	// IDs bounds the connection IDs that lead to them. They take about 96
	// bytes each, when there are any. 0 means ten for each session, or 32 with
	// Pin.
	IDs int
	// Quota puts the quota stage into the program: see [Program.Quota], and
	// quota.Config.XDP. Without it the stage costs nothing. Without
	// CAP_PERFMON it knows the lists and the rate of packets, and leaves
	// Initials to Go.
	Quota bool
	// Prefixes bounds, with Quota, those on the allow list, those on the deny
	// list, and exceptions. They take about 110 bytes each, when there are
	// any, and 32 in advance. 0 means 262 144.
	Prefixes int
	// Sources bounds, with Quota, those whose rates are kept, which take about
	// 100 bytes each, in advance; and those that are turned away, which take
	// as much when there are any. Of the former the one that has not been seen
	// for longest makes room for another. 0 means 65 536.
	Sources int
	// Attempts bounds, with Quota, the attempts that are remembered, and where
	// they were from: about 130 bytes each, in advance. Old ones make room for
	// others. 0 means 65 536.
	Attempts int
	// Flows switches the monitor stage on, for package monitor, and bounds the
	// flows that the kernel counts. They take about 470 bytes each, in advance;
	// the one that has been silent for longest makes room. [DefaultFlows] is
	// what monitor.Config has room for by default. Without CAP_PERFMON there is no
	// room for other stages beside it: the stage is left out unless Sessions is
	// negative and Quota false. 0 means off: then it costs nothing.
	Flows int
	// Pin is a directory on a BPF file system, as /sys/fs/bpf/quicway, which
	// is made if it is missing. With it the program, and all that it has been
	// told, stay in the kernel and at work when the process ends, in whatever
	// way, and the next one that loads with the same Pin takes them over: maps
	// at once, each interface when it is attached, without a packet between.
	// Maps of other sizes are not taken over; they work until then. The quota
	// stage begins anew with each program, as connections do with each process:
	// until another takes its place the old one goes on with what it has been
	// told, but not beyond its lease. Flows are not taken over either: the next
	// process sees them anew. [Unpin] ends it all. Empty means that everything
	// goes with the process.
	Pin string
	// Logger gets what happens to interfaces, and what is not taken over; never
	// a line per packet. Of lines of one kind 20 are logged at once, and then one
	// a second. nil discards.
	Logger *slog.Logger
}

// withDefaults returns a copy of c, which may be nil, with defaults filled in.
func (c *Config) withDefaults() (*Config, error) {
	var out Config
	if c != nil {
		out = *c
	}
	if out.Sessions == 0 {
		out.Sessions = defaultSessions
	}
	if out.IDs == 0 && out.Pin == "" {
		out.IDs = idsPerSession * max(out.Sessions, 0)
	}
	if out.IDs == 0 {
		out.IDs = idsPerPinned * max(out.Sessions, 0)
	}
	setDefault(&out.Prefixes, defaultPrefixes)
	setDefault(&out.Sources, defaultSources)
	setDefault(&out.Attempts, defaultAttempts)
	out.Logger = ratelog.New(out.Logger)
	if out.Sessions > maxSessions || out.IDs < 0 || out.IDs > maxIDs {
		return nil, fmt.Errorf("xdp: %w: %d sessions, %d IDs", ErrConfig, out.Sessions, out.IDs)
	}
	if min(out.Prefixes, out.Sources, out.Attempts) < 0 || max(out.Prefixes, out.Sources, out.Attempts) > maxEntries {
		return nil, fmt.Errorf("xdp: %w: %d prefixes, %d sources, %d attempts", ErrConfig, out.Prefixes, out.Sources, out.Attempts)
	}
	if out.Flows < 0 || out.Flows > maxFlows {
		return nil, fmt.Errorf("xdp: %w: %d flows, want 0 to %d", ErrConfig, out.Flows, maxFlows)
	}
	return &out, nil
}

func setDefault(field *int, value int) {
	if *field == 0 {
		*field = value
	}
}

// maxSessions is what a relay takes at most (relay.Config.MaxSessions), and maxIDs
// more than it has for them. maxEntries is that of a map of the quota stage.
const (
	maxSessions = 1 << 24
	maxIDs      = 1 << 28
	maxEntries  = 1 << 26
)

// NoteSize bounds a note on a session ([Program.PutNote]), in bytes. A pinned
// program has room for one for each session.
const NoteSize = 128

// Mode is how a program is attached to an interface.
type Mode uint8

// The modes.
const (
	// Auto is Native, or else Generic. With a relay stage it is Generic on a
	// veth and on a bond: see the package comment.
	Auto Mode = iota
	// Native runs in the driver, before the kernel has spent anything on a
	// packet.
	Native
	// Generic runs in the kernel's network stack, with any driver. It sees
	// packets that the stack has put together, and passes these.
	Generic
)

// String returns the mode in one word.
func (m Mode) String() string {
	switch m {
	case Native:
		return "native"
	case Generic:
		return "generic"
	}
	return "auto"
}

// MarshalText implements [encoding.TextMarshaler].
func (m Mode) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler]. It returns ErrConfig for
// what is no mode.
func (m *Mode) UnmarshalText(text []byte) error {
	for mode := Auto; mode <= Generic; mode++ {
		if mode.String() == string(text) {
			*m = mode
			return nil
		}
	}
	return fmt.Errorf("xdp: %w: mode %q is none of auto, native, generic", ErrConfig, text)
}

// Reason says what became of a packet.
type Reason uint8

// The reasons.
const (
	// Relayed: forwarded.
	Relayed Reason = iota
	// PassOther: not UDP to one of the relay's ports, nor of the quota's if
	// there is no relay stage, or wrapped in something (VLAN tags, options,
	// fragments) that is left to the kernel.
	PassOther
	// PassShort: too short for a short header.
	PassShort
	// PassLong: a long header, of a handshake.
	PassLong
	// PassControl: for the relay itself.
	PassControl
	// PassUnknown: an ID that is no leg's, or not known here.
	PassUnknown
	// PassSource: not from the other leg, or not to the address that it uses.
	PassSource
	// PassTTL: its TTL or hop limit would end here.
	PassTTL
	// PassMixed: between IPv4 and IPv6, or IPv6 without checksum.
	PassMixed
	// PassNoRoute: no next hop that is sure. See the package comment.
	PassNoRoute
	// EventLost counts events that there was no room for, not packets. They
	// are repeated.
	EventLost

	// Reasons of the quota stage, for packets to its ports. What it lets
	// pass is counted by the relay stage as well, if there is one.

	// QuotaOpen: not judged, because nobody has renewed the lease.
	QuotaOpen
	// QuotaAllowed: on the allow list.
	QuotaAllowed
	// QuotaOther: no Initial of a version that is known, or one that is
	// left to Go.
	QuotaOther
	// QuotaContinuing: an Initial of a handshake that the server has answered.
	QuotaContinuing
	// QuotaFlow: an Initial of an attempt that has been let in.
	QuotaFlow
	// QuotaNew: the first Initial of an attempt.
	QuotaNew
	// DropUntold counts, not packets, but times that Go could not be told of
	// drops for want of room. It is repeated.
	DropUntold
	// QuotaDenied: dropped, on the deny list.
	QuotaDenied
	// QuotaPacketRate: dropped, beyond the rate of packets.
	QuotaPacketRate
	// QuotaShortInitial: dropped, an Initial in less than 1200 bytes, which a
	// server must discard (RFC 9000 §14.1).
	QuotaShortInitial
	// QuotaTurnedAway: dropped, an attempt of a source that has all it may have.
	QuotaTurnedAway
	// QuotaAttemptRate: dropped, beyond the rate of attempts.
	QuotaAttemptRate

	numReasons
)

var reasonNames = [numReasons]string{
	"relayed", "pass_other", "pass_short", "pass_long", "pass_control", "pass_unknown",
	"pass_source", "pass_ttl", "pass_mixed", "pass_no_route", "event_lost",
	"quota_open", "quota_allowed", "quota_other", "quota_continuing", "quota_flow", "quota_new", "drop_untold",
	"quota_denied", "quota_packet_rate", "quota_short_initial", "quota_turned_away", "quota_attempt_rate",
}

// String returns a name fit for a metric's label.
func (r Reason) String() string {
	if r < numReasons {
		return reasonNames[r]
	}
	return fmt.Sprintf("reason %d", uint8(r))
}

// Verdict is what the program says about a packet that [Program.Test] shows it.
type Verdict uint32

// The verdicts, as in linux/bpf.h.
const (
	Aborted Verdict = iota
	Drop
	Pass
	TX
	Redirect
)

// Route is who is behind a connection ID.
type Route struct {
	// Session is the index of a session, and Leg the one of its two legs
	// that the ID leads to: 0 or 1.
	Session uint32
	Leg     uint8
	// Counter is that of the ID.
	Counter uint64
}

// Leg is one end of a session.
type Leg struct {
	// Remote is where it is, Local where it sees the relay. A leg that lacks
	// either is nowhere.
	Remote, Local netip.AddrPort
}

// Valid says whether packets can go to the leg.
func (l Leg) Valid() bool {
	return l.Remote.IsValid() && l.Local.IsValid() && l.Remote.Addr().Is4() == l.Local.Addr().Is4()
}

// Traffic is what the kernel has forwarded to a leg.
type Traffic struct {
	Packets, Bytes uint64 // of UDP payload
}

// Event tells that a leg has turned to an ID that is due: see [Program.SetDue].
type Event struct {
	// Session and Leg are as in [Route].
	Session uint32
	Leg     uint8
	// Counter is the low bits of the ID's.
	Counter uint32
}
