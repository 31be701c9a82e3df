// Package wire reads and writes QUIC packets as far as they can be read
// without the keys of a connection: the version-independent properties of
// RFC 8999, the headers of versions 1 (RFC 9000 §17) and 2 (RFC 9369), and
// Initial packets, whose protection is no secret (RFC 9001 §5.2).
//
//	long header   1vvvvvvv | version (4) | len | DCID | len | SCID | ...
//	short header  0vvvvvvv | DCID (its length is known to its maker) | ...
//
// Headers are views of the datagram that they were read from: nothing is
// copied or allocated. Nothing here trusts a packet: whatever is cut short or
// does not add up is an error, never a panic. The fixed bit may be greased
// (RFC 9287), so it never decides anything.
package wire
