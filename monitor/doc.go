// Package monitor sees which QUIC connections cross a host, and knows no key:
// from a capture ([OpenFile], [NewReader]), or live from interfaces (Linux): all
// packets by packet sockets ([Capture]), or by the kernel's own counting ([Kernel]).
// It changes and sends nothing.
//
//	Source → Packet → Tracker → Connections, Events, JSON lines
//
// A connection is one record, however many paths it has. What is known of it
// comes from what QUIC does not hide: the long headers (RFC 8999), Initials,
// whose keys follow from their first ID (RFC 9001 §5.2), the connection IDs of
// short headers, and the spin bit (RFC 9312 §3.8). Versions 1 and 2, drafts 18
// to 34, and those of mvfst, picoquic and Google with TLS are read; unknown
// versions are tried with all known keys; Google's own are named.
//
// # Whose is a packet
//
// A long header is the connection's whose IDs it has. If there is none, an
// Initial that opens with the keys of its own ID begins a connection, or
// another attempt of one that was told to use another version. Nothing that a
// stranger can make takes a record over: an Initial with the addresses of a live
// connection is a connection of its own beside it.
//
// A short header is looked up, in this order, by
//
//  1. its endpoints, if they are known; of several connections there, by ID;
//  2. its ID, once for each length of ID that is known at the endpoint that it
//     goes to, or comes from;
//  3. who talks to whom: it may be a path that is being tried, or a connection
//     that began before the capture;
//  4. its looks: many packets both ways with the same random ID.
//
// What of this holds is kept as "potential" until it does, and is none of the
// connections before. [Confidence] says how sure it is.
//
// # Changes of path
//
// A new ID on a path that stays is no change. The same ID from other endpoints
// is one, once both sides use them ([Path.Validated]): until then it may be
// anybody who has seen the ID. New IDs on new endpoints are a path being tried if
// both sides send full datagrams first, as RFC 9000 §8.2 has it, and a migration
// when the client's packets go there alone. See [PathChange].
//
// # Bounds
//
// Every table has a limit ([Config]), forgets what was not seen for longest, and
// counts that ([Stats]); what is idle by the packets' clock goes. The views
// ([Tracker.Flows], [Tracker.IDs], [Tracker.Destinations], [Tracker.Sources],
// [Tracker.Potential]) show all of them.
package monitor
