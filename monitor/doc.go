// Package monitor finds the QUIC connections in the packets that cross a host. It
// needs no keys, and it neither changes nor sends packets. Packets come from a
// capture file ([OpenFile], [NewReader]), from packet sockets ([Capture]), or from
// an XDP program that counts the packets of known connections itself ([Kernel]).
//
//	Source → Packet → Tracker → Connections, Events → Writer
//
// [Encoder] writes JSON lines. Packages zeek and eve write the logs of Zeek and Suricata.
//
// A connection has one entry, however many paths it has. The tracker reads what
// QUIC does not hide: long headers (RFC 8999), Initials, whose keys follow from the
// client's first Destination Connection ID (RFC 9001 §5.2), the connection IDs of
// short headers, and the spin bit (RFC 9312 §3.8). It reads versions 1 and 2,
// drafts 18 to 34, and the versions of mvfst, picoquic and Google that use TLS. It
// tries the keys of all of them on unknown versions. Of Google's
// own versions it reads the client's first message.
//
// # How a packet finds its connection
//
// A long header belongs to the connection that has its connection IDs. If there is
// none, an Initial that the keys of its own ID decrypt begins a connection. If a
// Version Negotiation has told a client to use another version, the next such
// Initial belongs to the same connection. A forged Initial with the addresses of a
// live connection begins a connection of its own beside it and does not change the
// live one.
//
// A short header finds its connection by, in this order,
//
//  1. its endpoints, if they are known. If several connections use them, the
//     connection ID decides;
//  2. its connection ID. There is one look-up for each length of ID that is known
//     at the destination or at the source;
//  3. the hosts, if they have a connection: this may be a path that is being
//     probed, or a connection that began before the capture;
//  4. its looks: many packets in both directions with the same random ID.
//
// Until one of them applies, a flow is "potential" and belongs to no connection.
// [Confidence] says how sure it is that a connection is QUIC.
//
// # Changes of path
//
// A new connection ID on the same path is no change of path. A known ID between
// other endpoints is one, once both sides use the new path ([Path.Validated]).
// Until then an attacker who has seen the ID may have forged the packets. New IDs
// between new endpoints are a probe if both sides send full datagrams first (RFC
// 9000 §8.2), and a migration once the client sends only there. See [PathChange].
//
// # Filters
//
// [Config.Filter] selects the connections that are reported. Nothing is kept of
// packets between endpoints that it excludes, unless a connection may move there. See
// [ParseFilter] and [Filter].
//
// # Bounds
//
// Every table has a limit ([Config]). When it is full, the entry that was seen
// longest ago is removed and counted ([Stats]). Idle entries are removed by the
// packets' clock. [Tracker.Flows], [Tracker.IDs], [Tracker.Destinations],
// [Tracker.Sources] and [Tracker.Potential] return copies of the tables.
package monitor
