// Package p2p connects two peers that cannot reach each other, with one QUIC
// connection.
//
// An [Endpoint] dials and accepts connections over one UDP socket for each address
// family. A [Conn] is a *quic.Conn, and stays the same one from the first packet to
// the last, whatever path its packets take.
//
// # How peers meet
//
// The one that dials makes an [Offer]: a line of text with its whole first flight,
// where to answer it, and the right to do so, once. It goes through the relay's
// mailbox, to whoever has the [PeerID] that was dialed, or by any way of the
// caller's ([DialConfig]). The other answers it ([Endpoint.Accept],
// [Endpoint.AcceptOffer]), and that is the handshake. Both prove their keys
// ([Identity]) in TLS 1.3, without a certificate authority, unless [Config.TLS]
// says otherwise.
//
// # Which way packets go
//
// A connection begins on the relay (package relay), which can read none of it.
// Then both sides tell each other their addresses, inside the connection, open
// their NATs with probes, and migrate to the best direct path (RFC 9000 §9). When
// that dies the connection returns to the relay, and tries again. It survives a
// change of network at either side, and the relay's restart. [Conn.Path] and
// [Conn.PathEvents] tell; [PathPolicy] says what may be.
//
// The peer learns the addresses of this host, unless [RelayOnly] is set or
// [Config.LocalCandidates] says otherwise; the relay learns which connection IDs
// are of one connection, and where packets come from.
//
// # Who closes
//
// Closing an endpoint ends its connections; closing a connection leaves the
// endpoint, but for those that [Dial] and [Accept] make. All methods may be called
// concurrently. Calls that wait return [ErrClosed], which wraps net.ErrClosed,
// once the endpoint is closed.
package p2p
