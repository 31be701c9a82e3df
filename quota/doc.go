// Package quota decides who may open QUIC connections, how many, and how fast,
// in a way that a flood cannot talk around.
//
// A [Controller] holds the policy and the state. It is asked at each stage of a
// connection's life, the cheapest first:
//
//	datagram     deny list, packet rate, is it of a new attempt?   drop
//	attempt      quota of the source, rate of attempts             drop, or refuse
//	address      too many unfinished handshakes?                   Retry (RFC 9000 §8.1.2)
//	connection   live connections, rate of new ones                refuse
//	request      rate of a source, and of a connection; deny list  429 (RFC 6585 §4), 403
//
// [Controller.Protect] puts all but the last of these into a [quic.Transport],
// and [Controller.Handler] the last before an [http.Handler]. A program that
// counts something else of its peers' uses [Controller.Admit].
//
// # Sources
//
// Limits are kept for a source, which is an address of IPv4 or 64 bits of IPv6,
// for a site, which is 48 bits of IPv6, and for all together. Many users may
// share one IPv4 address, so the default limits of a source are wide, and
// [Override] makes exceptions by longest prefix.
//
// # What a stranger's address is worth
//
// The source of a UDP packet can be forged until the handshake shows that
// packets reach it (RFC 9000 §8.1). So what is counted for an address that has
// shown nothing goes to a pool of its own, and when that is full, or too many
// come at once, newcomers are sent a Retry, which costs no state. Those that come
// back with its token have another pool, and are counted as the source's own when
// their handshakes are complete: before that nothing is a proof. Whoever
// forges a victim's address therefore fills a pool that the victim does not
// need, and can't use up its connections or its rate of them. What it can use up
// is the rate of attempts, beyond which nothing new of that address is looked at,
// and of packets, if there is one, beyond which nothing is at all: these protect
// the server, and are to be set far above what a source needs.
//
// # What is never dropped
//
// Only the first packets of a new attempt are held against a quota. Packets of
// connections that exist, continuing handshakes, versions of QUIC other than 1
// and 2, and whatever else is not surely an Initial of a new connection pass,
// unless their address is denied or beyond its rate of packets, for which there
// is no limit by default.
//
// An attempt is counted once, though today's ClientHello comes in two datagrams.
// Its slot is kept for the address that it was admitted from, whatever address
// the connection migrates to, and is free again when the connection's context
// is done, for whatever reason.
//
// # In the kernel
//
// With [Config.XDP] the kernel drops, before it has spent anything on a packet,
// what the packet filter would drop: what the deny list and the rates of a source
// say, and, where the answer to an excess is Drop, new attempts of a source that
// has all its connections. Its verdicts have an end, and hold only under a lease
// that this process renews, so that a crash lets everybody in. It begins anew with
// each controller: nothing is taken over from a process before.
//
// All methods may be called concurrently. There is no goroutine behind a
// Controller, and nothing to close, unless it has an XDP program.
package quota
