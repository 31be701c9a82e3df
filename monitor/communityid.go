package monitor

import (
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"net/netip"
)

// protocolUDP is the number of UDP (IANA, Protocol Numbers).
const protocolUDP = 17

// communityID returns the Community ID of the packets between two endpoints in either
// direction, in its version 1 (https://github.com/corelight/community-id-spec): the hash of
// the seed, the addresses, the protocol and the ports, the lesser endpoint first.
func communityID(seed uint16, protocol byte, a, b netip.AddrPort) string {
	if a.Compare(b) > 0 {
		a, b = b, a
	}
	in := binary.BigEndian.AppendUint16(make([]byte, 0, 40), seed)
	in = append(in, a.Addr().AsSlice()...)
	in = append(in, b.Addr().AsSlice()...)
	in = append(in, protocol, 0)
	in = binary.BigEndian.AppendUint16(in, a.Port())
	in = binary.BigEndian.AppendUint16(in, b.Port())
	sum := sha1.Sum(in)
	return "1:" + base64.StdEncoding.EncodeToString(sum[:])
}
