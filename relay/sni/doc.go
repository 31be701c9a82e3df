// Package sni relays TLS over TCP to upstreams that are chosen by the server name, without
// a key: it reads the ClientHello, which is not encrypted, dials an upstream, and copies
// bytes in both directions. Certificates and keys stay with the upstreams.
//
//	client ── TCP ──> Server: ClientHello → Router → Route → upstream ── TCP ──> server
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
// (RFC 6066 §3), and one that does not speak TLS a reset.
//
// With Encrypted Client Hello the name is the outer one, that of the client-facing server.
//
// # What a connection keeps
//
// All bytes are relayed as they are: the server's HelloRetryRequest and the client's second
// ClientHello go through. The end of one direction is passed on while the other one goes
// on (half-close), and a reset is passed on as a reset. A slow reader slows the writer
// down. On Linux the kernel moves the bytes, by splice(2).
//
// # Bounds
//
// [Config] limits connections, those of one source, and those whose ClientHello is not
// complete. A source is an IPv4 address or 64 bits of IPv6. A [quota.Controller] can
// decide about sources as well. Nothing is logged for each connection above
// [slog.LevelDebug], and other lines are limited to one a second for each message.
package sni
