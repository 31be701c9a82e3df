// Package relay implements a relay for QUIC: it forwards packets between two peers that
// cannot reach each other directly. It routes a packet by its Destination Connection ID,
// and cannot decrypt it.
//
// A [Server] has one UDP port. The peers connect to it over HTTP/3, which also opens the
// NAT mappings for their packets. These are control connections. Over its control
// connection a peer registers a leg of a session, and tells the relay the key from which
// it makes its connection IDs (package cid). From then on the relay forwards packets with
// one of these IDs to that peer, if they come from the other peer of the same session.
//
// # How packets are sorted
//
// The relay only reads what all versions of QUIC have in common (RFC 8999):
//
//	short header, bit 7 of the ID is set   to the relay's own HTTP/3
//	short header, ID of a leg              forward to that leg
//	long header, DCID of a leg             forward to that leg, or drop if bit 7 of
//	                                       the SCID is set: a relay has sent it
//	long header, SCID of a leg             drop: the other leg is not registered
//	for a leg without the other leg        hold for a second: the sender may be about to
//	                                       register, and gets it forwarded then
//	any other long header                  to the relay's own HTTP/3
//	anything else                          drop
//
// A forwarded packet has a hop limit (or TTL) that is lower by one than before, and a
// packet whose hop limit is 1 is dropped, so packets cannot circulate between relays for
// ever. This works on Linux, where the system reports the hop limit. Elsewhere the rules
// of the next paragraph prevent such loops, and a loop ends with the TTL of its legs.
//
// Relays do not forward the packets of other relays. If they did, a relay would validate
// the address of another relay for one of that relay's clients. So clients should use
// connection IDs with bit 7 set, like those of [cid.Relay]. The relay's own packets to
// other IDs only go to addresses at which the client has completed a handshake.
// Ordinary HTTP/3 clients, whose IDs are random or empty, can use the relay, but their
// connections cannot migrate: they have to connect again when their address changes.
//
// The relay never answers a packet that it cannot forward, so that it reflects nothing.
// It counts such packets by [Reason].
//
// # Who may do what
//
// A client with the access token ([Config.Token], or a token that [Config.Authorize]
// accepts) may open a session as its dialer. The dialer gets a join token for the second
// leg, the accepter's, or makes one from the key of its leg. Only a client that knows the key of a leg can refresh, move or end
// the leg. The address of a leg is the one that its control connection has validated
// (RFC 9000 §8); a client cannot name another address. The relay forwards packets only
// between the two legs of one session.
package relay
