// Package tunnel carries UDP datagrams over a TCP connection, as CONNECT-UDP (RFC 9298) with the
// capsule protocol (RFC 9297) says. It has what both ends of a tunnel share: the capsules, a
// queue that never blocks, the URI of the request, and the addresses that stand for tunnels.
// HTTP and TLS are those of the standard library.
//
// A datagram is one DATAGRAM capsule:
//
//	type    varint  0x00
//	length  varint  of what follows
//	context varint  0: a UDP payload (RFC 9298 §4)
//	payload
package tunnel
