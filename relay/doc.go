// Package relay forwards QUIC packets between two peers that cannot reach each
// other, by Destination Connection ID, and without being able to read them.
//
// A [Server] owns one UDP port. The peers register themselves there over
// HTTP/3, which opens the NAT mappings that their packets need, and tell the
// relay the key from which their connection IDs are made (package cid). From
// then on whatever carries one of these IDs goes to the peer that made it, if
// it comes from the other peer of the same session.
//
// # How packets are sorted
//
// By the version-independent properties of QUIC (RFC 8999) alone:
//
//	short header, bit 7 of the ID set      control: the relay's own HTTP/3
//	short header, ID of a leg              forward to that leg
//	long header, DCID of a leg             forward to that leg, unless bit 7 of
//	                                       its SCID is set: then it is a relay's
//	long header, SCID of a leg             drop: its peer is not there yet
//	any other long header                  control
//	anything else                          drop
//
// What is forwarded may make one hop less than before (TTL, Hop Limit), and is
// dropped at its last, where the system tells: on Linux. Elsewhere a loop of relays
// is kept from coming to be, by the following, and ends with the TTL of its legs.
//
// A relay's own packets are not for another relay to forward, or it would validate
// that relay's address for somebody else. So a client should have connection IDs
// with bit 7 set, as those of [cid.Relay] are. What the relay writes to another ID
// goes only to the address at which the client made its handshake: plain clients of
// HTTP/3, whose IDs are random or empty, are served, but cannot move. They have to
// connect anew when their address changes.
//
// Packets are never errors. What is dropped is counted by [Reason] and never
// answered, so that the relay reflects nothing.
//
// # Who may do what
//
// Whoever holds the access token ([Config.Token], or what [Config.Authorize]
// accepts) may open a session. The answer holds a join token, good once, that
// admits the second leg. A leg is refreshed, moved or ended only by whoever
// knows its key. Its address is the one that the QUIC connection under its
// HTTP/3 requests has validated (RFC 9000 §8), never one that somebody names.
// Packets pass only between the two legs of one session.
package relay
