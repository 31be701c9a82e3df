// What the programs share with Go. Addresses and ports are in network byte order, and all other
// numbers in the byte order of the machine.
#pragma once
#include "skb.h"

// reason says what the programs have done with a packet of a flow. Packets of other connections
// are not counted.
enum reason {
	FORWARDED,       // to the other end
	WATCHED,         // passed to our socket while the state was QUIET
	COPIED,          // forwarded, and its acknowledgement given to our socket: PENDING
	NOT_COPIED,      // forwarded in PENDING, but our socket did not get the acknowledgement
	NO_NEIGHBOR,     // passed to our socket in PENDING: Go has set no link-layer address
	FORWARDED_SYN,   // a SYN of an end that has forgotten the connection
	PASSED_SYN,      // a SYN, passed to the network stack
	PASSED_TTL,      // passed to the network stack: the TTL or hop limit is 1 or less
	REOPENED,        // a SYN of a new connection with the addresses of a CLOSED pair
	DROPPED_HOLD,    // dropped in HOLD: the ends send it again
	DROPPED_TOO_BIG, // dropped: larger than the MTU to the other end
	DROPPED_CE,      // dropped: a mark of congestion that the other connection cannot carry
	BLANKED_OPTIONS, // forwarded without its options, whose layout the program does not know
	UNBELIEVED,      // forwarded, but not noted: its end could not have sent it
	TOO_BIG_ICMP,    // an ICMP message about a forwarded packet that was too big
	SILENCED,        // dropped at egress: a packet of our socket, for which the program speaks
	CLAMPED,         // a window of our socket that was reduced at egress
	EVENT_LOST,      // not a packet: the ring of events was full
	REASONS,
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, __u64);
	__uint(max_entries, REASONS);
} counters SEC(".maps");

static __always_inline void count(enum reason why) {
	__u32 key = why;
	__u64 *n  = bpf_map_lookup_elem(&counters, &key);
	if (n)
		++*n;
}

// state is what the programs do with the packets of a pair. Go alone writes it. doc.go has a
// picture.
enum state {
	OFF,     // nothing: the pair is not in use
	QUIET,   // pass them to our sockets, and let the ends send nothing new
	PENDING, // forward them, and give our sockets a copy of the acknowledgements
	ACTIVE,  // forward them
	DRAIN,   // forward them, and let the ends send nothing new
	HOLD,    // drop them
	CLOSED,  // forward what is late, until a SYN comes
};

// What the program has seen of a direction: bits of half.seen.
enum {
	SEEN_FIN      = 1 << 0, // its end has finished, at fin_end
	SEEN_FIN_ACK  = 1 << 1, // its end has acknowledged the other end's FIN
	SEEN_RST      = 1 << 2, // its end has reset the connection
	SEEN_OPTIONS  = 1 << 3, // options in a layout that the program does not know
	SEEN_TOO_BIG  = 1 << 4, // a packet that is larger than the MTU to the other end
	SEEN_ICMP     = 1 << 5, // an ICMP message that such a packet was too big for the path
	SEEN_TTL      = 1 << 6, // a packet with a TTL that cannot be decremented
	SEEN_REOPENED = 1 << 7, // a new connection has the addresses of a leg: pass all packets
};

// Properties of a pair: half.flags, the same in both halves.
enum {
	HALF_V6     = 1 << 0, // the addresses are IPv6
	HALF_NO_ECN = 1 << 1, // one of the connections has no ECN
};

// half is one direction of a pair: the packets that come from one end, and how they leave to the
// other. "This leg" is the connection to the end that sends them, and the other leg the one on
// which they leave.
//
// Packets of a direction usually come on one CPU, but may change to another. So what only grows is
// set by compare-and-swap, and Go may raise it so too. Bits of seen are set by an atomic or. What is
// written plainly is the same on all CPUs (fin_end), or its last value is as good as the one before
// (window, last).
struct half {
	// Written by Go while the state is OFF.
	__be32 src[4]; // addresses of the packets as they leave; IPv4 in the last word
	__be32 dst[4];
	__be16 sport;
	__be16 dport;
	__u32 seq_add;  // added to sequence numbers; subtracted from acknowledgements of the other half
	__u32 ts_add;   // added to TSval; subtracted from TSecr of the other half
	__u32 ifindex;  // of the other leg
	__u16 mtu;      // of the other leg, IP header included
	__u8 in_scale;  // window scale of the end that sends the packets
	__u8 out_scale; // window scale that we have announced on the other leg
	__u8 own_scale; // window scale that we have announced on this leg
	__u8 flags;
	__u8 macs[12]; // destination and source of the packets as they leave; used in PENDING

	// Set by Go to what its sockets know, and then kept by the programs. All numbers are those
	// of this leg.
	__u16 window;   // the last one, not scaled
	__u32 max_end;  // end of the data that the end has sent
	__u32 max_ack;  // what the end has acknowledged
	__u32 max_edge; // how far it lets the other end send, or our socket on the other leg has done so
	__u32 last_ts;  // the highest TSval
	__u32 fin_end;  // end of the data, with the FIN
	__u32 seen;
	__u32 last; // time of the last packet: the coarse monotonic clock, in units of 2^20 ns
	__u64 packets;
	__u64 bytes;         // of payload
	__u64 retransmitted; // the part of bytes that was below max_end
};

struct pair {
	__u32 state;
	__u32 generation; // Go increments it for each new pair
	struct half halves[2];
	__u64 note; // for Go
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE); // Go reads and writes the values in place
	__type(key, __u32);
	__type(value, struct pair);
	__uint(max_entries, 1); // set before load
} pairs SEC(".maps");

// flow_set is a set of the table of flows. A slot has in its high half the hash of the flow's
// addresses, and in its low half the pair and the direction, as (pair << 1 | direction) + 1, or 0
// if the slot is free. Go alone writes the slots.
#define SLOTS 8

struct flow_set {
	__u64 slots[SLOTS];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct flow_set);
	__uint(max_entries, 1); // set before load
} flows SEC(".maps");

// set_mask is the number of sets, a power of two, minus 1. Set before load.
volatile const __u32 set_mask = 0;

// hash_keys are random. Set before load.
#define HASH_KEYS 10
volatile const __u64 hash_keys[HASH_KEYS];

// live is the number of flows in the table. While it is 0, the programs do nothing.
volatile __u32 live;

// event asks Go to look at a pair. Go finds all that is in the events also in the pairs, so a lost
// event only delays Go.
enum what {
	FINISHED, // both ends have finished, and each has acknowledged the other's FIN
	RESET,    // an end has reset the connection
	WANTED,   // the pair should go back to userspace: see the bits of seen
	RENEWED,  // a new connection has the addresses of a CLOSED pair
};

struct event {
	__u32 pair;
	__u32 generation;
	__u8 what;
	__u8 direction; // whose packet it was; of an ICMP message: the direction that was too big
	__u16 mtu;      // of an ICMP message; otherwise 0
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 64 * 1024);
} events SEC(".maps");
