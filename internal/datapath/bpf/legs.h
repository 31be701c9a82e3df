// The legs of sessions: where packets to a leg come from and go to. A leg is one cache line. What
// legs have in common, the addresses of the relay and the next hops, is in common.h.
//
// Only Go writes the addresses, while the program reads them without a lock. So a leg has a version,
// which is odd while Go changes it. The program reads the state of a leg, then its addresses and those
// of the relay, and then the state again: if the version is even and the same, all is of that version.
// That holds only if the reads are done in this order, for which there is read_fence, and if Go's
// stores become visible in their order: each of them is a release (legs_linux.go).
#pragma once
#include "common.h"
#include "fence.h"

// A state is the version; the numbers in locals of the address that the other leg sends to, and of
// the one that this leg sees; and the next hop (hops.h) with the time when it was looked up. The
// program changes the last two by compare-and-swap, so that they are of the version beside them.
#define LEG_AT_SHIFT 16
#define LEG_VIA_SHIFT 24
#define LEG_HOP_SHIFT 32
#define LEG_ASKED_SHIFT 48

struct leg {
	__be32 from[4]; // the other leg: only its packets are forwarded; IPv4 in the last word
	__be32 to[4];   // this leg
	__be16 from_port;
	__be16 to_port;
	__u16 due;  // IDs from this counter on are reported to Go: see is_due
	__u16 told; // when an ID was last reported, in ticks
	__u64 state;
	__u64 packets;
	__u64 bytes; // of UDP payload
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE); // Go reads and writes the values in place
	__type(key, __u32);
	__type(value, struct leg); // two for each session
	__uint(max_entries, 2);    // set before load
} legs SEC(".maps");

static __always_inline __u16 leg_version(__u64 state) { return state; }
static __always_inline __u16 leg_hop(__u64 state) { return state >> LEG_HOP_SHIFT; }
static __always_inline __u16 leg_asked(__u64 state) { return state >> LEG_ASKED_SHIFT; }

static __always_inline __u32 leg_at(__u64 state) { return state >> LEG_AT_SHIFT & (LOCALS - 1); }
static __always_inline __u32 leg_via(__u64 state) { return state >> LEG_VIA_SHIFT & (LOCALS - 1); }

// same4 and same6 say whether an endpoint has the address and port of a packet.
static __always_inline bool same4(__be32 *addr, __be16 port, __be32 other, __be16 other_port) {
	return addr[3] == other && port == other_port;
}

static __always_inline bool same6(__be32 *addr, __be16 port, __be32 *other, __be16 other_port) {
	return addr[0] == other[0] && addr[1] == other[1] && addr[2] == other[2] && addr[3] == other[3] && port == other_port;
}
