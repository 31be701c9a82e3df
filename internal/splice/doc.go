// Package splice forwards the packets of two TCP connections in the kernel, so that each end talks
// to the other without userspace in between. A relay in userspace accepts one connection, dials the
// other, and copies bytes; later it hands both to this package, which keeps every byte in its place
// of the stream. The relay can get the connections back at any time.
//
// Two programs run at the TCX hooks of an interface. The one at ingress turns a segment from one end
// into a segment that the other end expects: addresses, ports, sequence numbers, acknowledgements,
// SACK edges, timestamps and the window. The differences of the numbers of the two connections never
// change. The program at egress keeps our own sockets, which no longer take part, from speaking.
//
// The connections are a pair, and the packets of one direction a half. The programs do with the
// packets of a pair what its state says, which Go alone writes:
//
//	              takeover                       way back
//	OFF ──▶ QUIET ──▶ PENDING ──▶ ACTIVE ──▶ DRAIN ──▶ HOLD ──▶ OFF
//	 ▲        │                    │  ▲        │        │
//	 ├────────┘ not quiet in time  │  └────────┴────────┘ not all was acknowledged in time
//	 └──────────────────── CLOSED ◀┘ both ends have finished, or one has reset
//
//	         packets of the ends                        packets of our sockets
//	OFF      to our sockets                             sent
//	QUIET    noted; to our sockets                      sent; the window lets the end send nothing new
//	PENDING  forwarded; our socket gets the             sent; the timestamp is no older, and the window
//	         acknowledgement alone                      no larger, than what comes from the other end
//	ACTIVE   forwarded                                  dropped
//	DRAIN    forwarded; the window lets the other       dropped
//	         end send nothing new
//	HOLD     dropped                                    dropped
//	CLOSED   forwarded, until a SYN comes               dropped, until a SYN is sent
//
// The programs note how far each end has sent and acknowledged, and how it ends. They believe only
// what can be true, because whoever knows the addresses of a connection can send a packet with
// other numbers: data within the window, acknowledgements of what was sent, and a RST with exactly
// the expected number (RFC 5961). All other packets are forwarded too, and the ends decide.
//
// What the programs cannot forward makes Go take the pair back: a packet that is larger than the MTU
// on the other side, an ICMP message of a smaller path MTU, a TTL of 1, or TCP options in an unknown
// layout. The sender of a packet that is too big is told by ICMP, which needs CAP_NET_RAW. Fragments, IP
// options, extension headers and VLAN tags are left to the network stack.
//
// Forwarded packets are seen by TCX programs that were attached before, and not by those attached later
// or by netfilter.
package splice
