// Package sni relays TLS over TCP, and QUIC, to upstreams that are chosen by the server name,
// without a key: it reads the ClientHello, which is not encrypted, dials an upstream, and
// copies bytes or datagrams in both directions. Certificates and keys stay with the upstreams.
//
//	client ── TCP, UDP ──> Server: ClientHello → Router → Route → upstream ── TCP, UDP ──> server
//
// # How a route is found
//
// A connection goes to the route with, in this order,
//
//  1. the exact server name,
//  2. the longest wildcard that fits: "*.a.example" fits x.a.example and x.y.a.example,
//     but not a.example,
//  3. the name "" if the ClientHello has no server name,
//  4. the name "*".
//
// Of several routes with one name, the first whose ALPN protocols the client offers goes
// before a route without ALPN protocols. If none fits, the next wider name is tried. A
// stream that is not TLS goes to the route with NotTLS. [Config.Router] can decide
// before all of them. A client without a route gets the TLS alert unrecognized_name
// (RFC 6066 §3), and one that does not speak TLS a reset. A QUIC client gets no answer.
//
// With Encrypted Client Hello the name is the outer one, that of the client-facing server.
//
// # What a TCP connection keeps
//
// All bytes are relayed as they are: the server's HelloRetryRequest and the client's second
// ClientHello go through. The end of one direction is passed on while the other one goes
// on (half-close), and a reset is passed on as a reset. A slow reader slows the writer
// down. On Linux the kernel moves the bytes, by splice(2). With [Config.Splice] it forwards the
// packets of large connections itself, and Go only watches them.
//
// # QUIC
//
// Initials of versions 1 and 2, and of drafts, are decrypted with the keys that everybody can
// derive (RFC 9001 §5.2), and the ClientHello is put together from them, in whatever order they
// arrive. Packets of versions that are not known go to the route "*" without ALPN, whose upstream
// can answer with Version Negotiation, and are dropped without one. From then on all datagrams are
// relayed as they are.
//
// Each address of a client has an upstream socket of its own: a flow. When a known connection ID
// comes from another address, because of a NAT or because the client migrates, the relay opens
// another flow to the same upstream address, and the upstream validates the path (RFC 9000 §9). The
// flow of the old address stays. The relay knows the IDs in the upstream's long headers, and those
// that the client has used. A client that migrates uses one that was only announced in an encrypted
// frame (RFC 9000 §9.5). If the connections of its source all go to one upstream address the
// packet goes there, too. Otherwise it is dropped: the relay cannot know better.
//
// A flow is confirmed when the client has shown that it receives what the upstream sends: it uses an
// ID of at least four bytes that the upstream has announced to it in a long header. An ID that the
// relay cannot know counts as well, after several answers of the client; such a flow makes room for
// others if there are too many. Until then the client gets at most three times what it has sent.
// If all IDs of an upstream are shorter than four bytes, its clients confirm by any of them, and are
// not found again at another address.
//
// # Bounds
//
// [Config] limits connections, those of one source, and those whose ClientHello is not
// complete. A source is an IPv4 address or 64 bits of IPv6. A [quota.Controller] can
// decide about sources as well. Nothing is logged for each connection above
// [slog.LevelDebug], and other lines are limited to one a second for each message.
package sni
