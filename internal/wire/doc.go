// Package wire parses QUIC packets as far as that is possible without the keys of a connection:
// the version-independent properties of RFC 8999, the headers of versions 1 (RFC 9000 §17) and 2
// (RFC 9369), and Initial packets, whose keys everybody can derive (RFC 9001 §5.2).
//
//	long header   1vvvvvvv | version (4) | len | DCID | len | SCID | ...
//	short header  0vvvvvvv | DCID (only the endpoint that has chosen it knows its length) | ...
//
// A parsed header refers to the datagram: nothing is copied or allocated. Packets are not
// trusted: a packet that is truncated or inconsistent causes an error, never a panic. The fixed
// bit is ignored, because it may be greased (RFC 9287).
package wire
