// The table of routes: which leg of a session a connection ID leads to.
//
// The table is an array of sets, each a cache line of eight slots. A slot has a hash of the ID, the
// tag, and not the ID. An ID may be in two sets. Another hash selects the first one. The number of
// each, and the tag, give the number of the other one, so that a slot can be moved without knowing
// its ID. The keys of both hashes are secret, since peers choose their IDs: nobody can make IDs that
// all belong into the same sets.
//
// Only Go writes the table, while the program reads it without a lock. That is sound on every
// processor of 64 bits, also where loads and stores are reordered (arm64), without a barrier here:
//
//   - A slot is an aligned word of 64 bits. Go stores it, and the program loads it, by one
//     instruction, so the program sees all of a route or nothing.
//   - Go stores a session before the routes that lead to it, and the store of a slot is a release.
//     The address of the session depends on what the program has loaded from the slot, and a load
//     is not done before its address is known. So who sees a route sees its session.
//   - Go moves a slot by a copy, and then clears the old one. Whoever looks into one set before
//     the copy, and into the other after the clearing, in whatever order, finds nothing: the
//     packet is for Go. That is the only harm that reordered loads do.
//   - Both sets of an ID never have two routes with its tag: Go leaves the second one out. A slot
//     that is used again while its set is read gives one of its routes, never a mixture.
#pragma once
#include "maps.h"

#define ID_LEN 12
#define ROUTE_WORDS (ID_LEN / 4)
#define ROUTE_SLOTS 8

// A slot: the tag, which is odd, in the high half; then the session, the leg, and the low bits of
// the counter of the ID. 0: free.
#define ROUTE_COUNTER_BITS 7
#define ROUTE_COUNTERS (1U << ROUTE_COUNTER_BITS)

struct route_set {
	__u64 slot[ROUTE_SLOTS];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE); // Go writes the slots in place
	__type(key, __u32);
	__type(value, struct route_set);
	__uint(max_entries, 1); // set before load: a power of two
} route_sets SEC(".maps");

// route_keys are secret random numbers, and route_mask is the number of sets minus one. Set before
// load.
volatile const __u64 route_keys[2 * ROUTE_WORDS];
volatile const __u32 route_mask = 0;

// route is the low half of a slot.
typedef __u32 route;

static __always_inline __u32 route_session(route r) { return r >> (ROUTE_COUNTER_BITS + 1); }
static __always_inline __u32 route_leg(route r) { return r >> ROUTE_COUNTER_BITS & 1; }
// leg_index returns the index in legs.
static __always_inline __u32 leg_index(route r) { return r >> ROUTE_COUNTER_BITS; }

// find_in_set returns the slot of a set that has a tag, or 0. A flow finds its ID at the same slot again
// and again, so that branches are predicted; selecting without branches takes twice as long.
static __always_inline __u64 find_in_set(__u32 number, __u32 tag) {
	struct route_set *set = bpf_map_lookup_elem(&route_sets, &number);
	if (!set)
		return 0;
	for (int i = 0; i < ROUTE_SLOTS; i++) {
		__u64 slot = READ_ONCE(set->slot[i]);
		if (unlikely(slot >> 32 == tag))
			return slot;
	}
	return 0;
}

// find_route finds the route of the ID at an address. It returns false if there is none. The hash
// is a sum of products, so that the multiplications do not depend on each other.
static __always_inline bool find_route(__u8 *id, route *r) {
	__u32 word[ROUTE_WORDS];
	__u64 place = 0, sum = 0;
	__builtin_memcpy(word, id, sizeof(word));
	for (int i = 0; i < ROUTE_WORDS; i++) {
		place += word[i] * route_keys[i];
		sum += word[i] * route_keys[ROUTE_WORDS + i];
	}
	__u32 tag   = sum >> 32 | 1;
	__u32 first = place >> 32 & route_mask;
	__u64 slot  = find_in_set(first, tag);
	if (!slot)
		slot = find_in_set((first ^ tag) & route_mask, tag);
	*r = slot;
	return slot;
}
