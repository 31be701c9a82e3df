// Package p2p connects two peers behind NATs or firewalls with one QUIC connection.
//
// An [Endpoint] dials and accepts connections over one UDP socket for each address
// family. A [Conn] is a *quic.Conn, and stays the same one when it migrates between the
// relay and direct paths.
//
// # How peers meet
//
// The dialer makes an [Offer]: a line of text that holds the first flight of its QUIC
// handshake, the relay's address, and the right to answer once. The offer goes to the
// accepter through the relay's mailbox, addressed to a [PeerID], or by any means of the
// application's ([DialConfig.Deliver]). The accepter answers it ([Endpoint.Accept],
// [Endpoint.AcceptOffer]), which completes the handshake. Both sides prove their keys
// ([Identity]) in TLS 1.3, without a certificate authority. [Config.TLS] replaces that.
//
// # Paths
//
// A connection begins on the relay (package relay), which cannot decrypt it. Then both
// sides tell each other their addresses inside the connection, open their NATs with
// probes, and migrate to the best direct path (RFC 9000 §9). When a direct path dies, the
// connection returns to the relay and searches again. It survives a change of network at
// either side, and a restart of the relay. [Conn.Path] and [Conn.PathEvents] report the
// path. [PathPolicy] restricts it.
//
// The peer learns the addresses of this host, except with [RelayOnly] and those that
// [Config.LocalCandidates] or [Config.LocalInterfaces] exclude. The relay learns which
// connection IDs belong to one connection, and the addresses that packets come from.
//
// # Closing
//
// Closing an endpoint closes its connections. Closing a connection leaves the endpoint
// open, except for those that the functions [Dial] and [AcceptOffer] make. All methods
// may be called concurrently. Calls that wait return [ErrClosed], which wraps
// net.ErrClosed, when the endpoint is closed.
package p2p
