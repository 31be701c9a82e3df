// Package quota limits who may open QUIC connections, how many, and how fast. Floods
// from forged source addresses do not get around the limits, nor use up those of the
// addresses that they forge.
//
// A [Controller] holds the limits and the state. It decides at each stage of a
// connection, the cheapest first:
//
//	datagram     deny list, packet rate, first Initial of an attempt?  drop
//	attempt      quota of the source, rate of attempts                 drop or refuse
//	address      too many half-open attempts?                          Retry (RFC 9000 §8.1.2)
//	connection   number of connections, rate of new ones               refuse
//	request      rates of source and connection, deny list             429 (RFC 6585 §4), 403
//
// [Controller.Transport] returns a transport with all stages but the last, and
// [Controller.Handler] puts the last before an [http.Handler]. [Controller.Route] gives a
// part of a server request limits of its own. A program that limits something other than
// connections of quic-go uses [Controller.Admit].
//
// # Sources
//
// There are limits for a source, which is an IPv4 address or an IPv6 /64; for a site,
// which is an IPv6 /48; and for all sources together. Since many users may share one
// IPv4 address, the default limits of a source are wide. [Override] makes exceptions for
// the longest matching prefix.
//
// All prefixes, of sources, overrides, lists, events and errors, are of type [netip.Prefix].
// The package returns them without bits beyond their length, and IPv4 mapped into IPv6 as
// IPv4. It takes them in any form, except from text: see [ParsePrefix]. A prefix on a list
// may be of any length. That of an Override may not be longer than a source.
//
// Behind a load balancer that replaces the addresses of clients by its own, all clients
// look alike. Let it keep them if it can. If the server can learn the addresses, set
// [Config].SourceOf. Otherwise make the balancer's addresses Shared ([Override]), so that
// only the limits of a connection and of all sources together hold.
//
// # Address validation
//
// The source address of a UDP packet can be forged, until a handshake shows that the
// peer receives packets there (address validation, RFC 9000 §8.1). So attempts from
// addresses that are not validated have a pool of their own. When that is full, or when
// attempts come too fast, further ones are answered with a Retry, which takes no memory.
// Attempts that come back with the Retry token have another pool. Both count as
// connections of the source only when their handshake is complete.
//
// An off-path attacker that forges a victim's address can fill a pool that the victim
// does not need. It cannot use up the victim's connections or their rate. It can use up
// two other rates: AttemptRate, beyond which new attempts of that address are dropped,
// and PacketRate, if it is set, beyond which all of its packets are. These two protect
// the server. Set them far above what a source needs.
//
// # Existing connections
//
// Only the first packets of an attempt are limited by a quota. The filter passes packets
// of existing connections, handshakes under way, QUIC versions other than 1 and 2, and
// everything else that is not certainly an Initial of a new connection, unless the
// address is denied or beyond its packet rate. There is no packet rate by default.
//
// An attempt counts once, even if its ClientHello takes two datagrams. Its slot belongs
// to the address that it was admitted from, also after the connection has migrated. It
// is free again when the connection's context is done.
//
// # In the kernel
//
// With [Config].XDP, the kernel drops packets that the packet filter would drop: those
// from denied addresses and those beyond the rates of a source, and, if Excess is Drop,
// new attempts of a source that has all its connections. All that the kernel knows
// expires. It drops packets only while this process renews a lease, so that a crash
// lets everything in. Each controller starts with an empty state in the kernel.
//
// All methods may be called concurrently. A Controller has no goroutines and need not be
// closed, unless it uses XDP.
package quota
