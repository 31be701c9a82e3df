// What the legs of all sessions have in common. It is one value of one map, so that the program looks
// it up once for each packet.
#pragma once
#include "maps.h"

// local is an address of the relay. Go changes one only while no leg refers to it.
struct local {
	__be32 addr[4]; // IPv4 in the last word
	__be16 port;
	__u16 family; // 0: none
	__u32 unused[3];
};

// hop is a place in the table of next hops: hops.h.
struct hop {
	__u64 tenant;  // high half: generation; low half: the interface; 0: free
	__u32 epoch;   // as it was at the look-up
	__u32 since;   // when it got the place, in ticks
	__u32 macs[3]; // destination and source, as at the beginning of a frame
	__u16 mtu;
	__u16 unused;
};

#define LOCALS 256 // number 0 is none
#define HOPS 4096

struct common {
	struct local local[LOCALS];
	struct hop hop[HOPS];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE); // Go writes the addresses in place
	__type(key, __u32);
	__type(value, struct common);
	__uint(max_entries, 1);
} commons SEC(".maps");

static __always_inline struct common *get_common(void) {
	__u32 zero = 0;
	return bpf_map_lookup_elem(&commons, &zero);
}
