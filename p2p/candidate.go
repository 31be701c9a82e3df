package p2p

import (
	"fmt"
	"net/netip"

	"github.com/quic-go/quic-go/quicvarint"

	"github.com/quicway/quicway/internal/tunnel"
)

// CandidateKind says how an address of a peer became known.
type CandidateKind uint8

// The kinds of candidate.
const (
	// HostCandidate: an address of one of the peer's interfaces.
	HostCandidate CandidateKind = iota
	// ObservedCandidate: the peer's address as the relay sees it.
	ObservedCandidate
	// MappedCandidate: an address of the peer's gateway, which forwards the port.
	MappedCandidate
	// ReflexiveCandidate: an address that a probe of the peer has come from.
	ReflexiveCandidate
)

var candidateNames = [...]string{"host", "observed", "mapped", "reflexive"}

// String returns the kind in one word.
func (k CandidateKind) String() string {
	if int(k) < len(candidateNames) {
		return candidateNames[k]
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// candidate is an address at which a peer may be reachable.
type candidate struct {
	kind CandidateKind
	addr netip.AddrPort
}

// maxCandidates bounds the candidates that one side may name at a time.
const maxCandidates = 12

// Frames about addresses, after draft-seemann-quic-nat-traversal:
//
//	ADD_ADDRESS { Sequence (i), Kind (i), Address (128), Port (16) }
//	REMOVE_ADDRESS { Sequence (i) }
//	PUNCH_ME_NOW { Round (i) }
//	WISH { Policy (i) }
//
// Each side names its addresses at the beginning, and when they change. The other side
// probes a new address at once. PUNCH_ME_NOW says that the sender probes all addresses
// again, and asks the receiver to do the same. WISH is the sender's PathPolicy.
const (
	frameAddAddress    frameType = 0x10
	frameRemoveAddress frameType = 0x11
	framePunchMeNow    frameType = 0x12
	frameWish          frameType = 0x13
)

// addAddress makes an ADD_ADDRESS frame.
func addAddress(sequence uint64, c candidate) frame {
	b := quicvarint.Append(nil, sequence)
	b = quicvarint.Append(b, uint64(c.kind))
	return frame{frameAddAddress, appendAddress(b, c.addr)}
}

func parseAddAddress(payload []byte) (sequence uint64, c candidate, err error) {
	sequence, rest, err := cutVarint(payload)
	if err != nil {
		return 0, c, err
	}
	kind, rest, err := cutVarint(rest)
	if err != nil || len(rest) < addressSize {
		return 0, c, fmt.Errorf("%w: ADD_ADDRESS of %d bytes", errSignal, len(payload))
	}
	// An address of an unknown kind is used as well.
	c = candidate{CandidateKind(min(kind, 0xff)), addressFrom(rest)}
	return sequence, c, nil
}

// numbered makes a frame with one number.
func numbered(kind frameType, n uint64) frame { return frame{kind, quicvarint.Append(nil, n)} }

func cutVarint(b []byte) (n uint64, rest []byte, err error) {
	n, size, err := quicvarint.Parse(b)
	if err != nil {
		return 0, nil, fmt.Errorf("%w: number missing", errSignal)
	}
	return n, b[size:], nil
}

// isUnicast says whether an address is one that a peer can have: not loopback, link-local,
// multicast or reserved.
func isUnicast(a netip.AddrPort) bool {
	ip := a.Addr()
	return a.Port() != 0 && ip.IsValid() && !tunnel.IsAddress(ip) && ip.Zone() == "" && !ip.IsUnspecified() && !ip.IsLoopback() &&
		!ip.IsMulticast() && !ip.IsLinkLocalUnicast() && ip != broadcast && !isThisNetwork(ip)
}

var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// isThisNetwork says whether an address is in 0.0.0.0/8 (RFC 1122 §3.2.1.3), or in
// 240.0.0.0/4, which is reserved.
func isThisNetwork(ip netip.Addr) bool {
	return ip.Is4() && (ip.As4()[0] == 0 || ip.As4()[0] >= 240)
}

// privateRanges are the ranges that are not routed on the internet.
var privateRanges = []netip.Prefix{
	netip.MustParsePrefix("10.0.0.0/8"),
	netip.MustParsePrefix("172.16.0.0/12"),
	netip.MustParsePrefix("192.168.0.0/16"),
	netip.MustParsePrefix("100.64.0.0/10"),
	netip.MustParsePrefix("fc00::/7"),
}

// privateRangeOf returns the index of the private range that an address is in, or -1.
func privateRangeOf(ip netip.Addr) int {
	for i, r := range privateRanges {
		if r.Contains(ip) {
			return i
		}
	}
	return -1
}

// mayProbe says whether an address that the peer names may be probed by a host with
// addresses own. A private address may be probed only if this host has an address in the
// same range, where the peer could be a neighbor. Otherwise a peer could have this host
// send packets into networks that the peer cannot reach.
func mayProbe(a netip.AddrPort, own []candidate) bool {
	if !isUnicast(a) {
		return false
	}
	private := privateRangeOf(a.Addr())
	if private < 0 {
		return true
	}
	for _, c := range own {
		if c.kind == HostCandidate && privateRangeOf(c.addr.Addr()) == private {
			return true
		}
	}
	return false
}

// kindOf returns the kind of a direct path to an address.
func kindOf(a netip.Addr) PathKind {
	if a.IsPrivate() {
		return LAN
	}
	return Direct
}
