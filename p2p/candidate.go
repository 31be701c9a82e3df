package p2p

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/quic-go/quic-go/quicvarint"
)

// CandidateKind is how an address came to be one at which a peer may be reached.
type CandidateKind uint8

// The kinds of candidate.
const (
	// HostCandidate: an address of the peer's own interfaces.
	HostCandidate CandidateKind = iota
	// ObservedCandidate: what the relay sees of the peer.
	ObservedCandidate
	// MappedCandidate: a port that the peer's gateway forwards to it.
	MappedCandidate
	// ReflexiveCandidate: where a probe of the peer has come from.
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

// candidate is an address at which a side may be reached.
type candidate struct {
	kind CandidateKind
	addr netip.AddrPort
}

// maxCandidates bounds those of one side.
const maxCandidates = 12

// Frames about addresses, after draft-seemann-quic-nat-traversal:
//
//	ADD_ADDRESS { Sequence (i), Kind (i), Address (128), Port (16) }
//	REMOVE_ADDRESS { Sequence (i) }
//	PUNCH_ME_NOW { Round (i) }
//	WISH { Policy (i) }
//
// A side names its addresses at the beginning, and whenever they change. Whoever
// learns one of the other side begins to probe it at once; PUNCH_ME_NOW says that
// it is worth while to try all of them again, and that the sender does; WISH, what
// the sender's PathPolicy is.
const (
	frameAddAddress    frameType = 0x10
	frameRemoveAddress frameType = 0x11
	framePunchMeNow    frameType = 0x12
	frameWish          frameType = 0x13
)

// addAddress is that frame.
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
	// A kind that we do not know is an address all the same.
	c = candidate{CandidateKind(min(kind, 0xff)), addressFrom(rest)}
	return sequence, c, nil
}

// numbered is a frame of one number.
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
	return a.Port() != 0 && ip.IsValid() && ip.Zone() == "" && !ip.IsUnspecified() && !ip.IsLoopback() &&
		!ip.IsMulticast() && !ip.IsLinkLocalUnicast() && ip != broadcast && !isThisNetwork(ip)
}

var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// isThisNetwork is 0.0.0.0/8 (RFC 1122 §3.2.1.3), and 240.0.0.0/4, which is
// nobody's.
func isThisNetwork(ip netip.Addr) bool {
	return ip.Is4() && (ip.As4()[0] == 0 || ip.As4()[0] >= 240)
}

// privateRanges are the ranges that mean something else at each place.
var privateRanges = []netip.Prefix{
	netip.MustParsePrefix("10.0.0.0/8"),
	netip.MustParsePrefix("172.16.0.0/12"),
	netip.MustParsePrefix("192.168.0.0/16"),
	netip.MustParsePrefix("100.64.0.0/10"),
	netip.MustParsePrefix("fc00::/7"),
}

// realmOf returns the private range that an address is in, or -1.
func privateRangeOf(ip netip.Addr) int {
	for i, r := range privateRanges {
		if r.Contains(ip) {
			return i
		}
	}
	return -1
}

// mayProbe says whether an address that the peer names may be probed, from hosts
// with these addresses. A private one is only if we are in such a range ourselves,
// where it could be our neighbour's: a stranger shall not have us knock at doors
// that he cannot reach.
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

// kindOf is the kind of a path to an address.
func kindOf(a netip.Addr) PathKind {
	if a.IsPrivate() {
		return LAN
	}
	return Direct
}

// addrPortOf is a net.Addr of UDP, with IPv4 as such.
func addrPortOf(a net.Addr) netip.AddrPort {
	udp, ok := a.(*net.UDPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := udp.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
