// Hints: which leg the last packet from an address and port went to. The next one mostly goes to the same
// leg. So the program begins to read that leg before it looks up the packet's route. While many sessions
// are in use, neither is in the CPU's cache, and the CPU waits for both at the same time.
//
// A hint decides nothing: a wrong one only costs time. Only packets that are forwarded set hints, so
// nobody spoils those of others by packets with spoofed addresses. A hash of the source selects its hint, with
// the keys of routes. Sources with the same hash share a hint, and overwrite it in turns.
//
// Processes without CAP_PERFMON have no hints: the verifier then makes the CPU wait for each read.
#pragma once
#include "legs.h"
#include "parse.h"
#include "routes.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, __u32);   // index in legs
	__uint(max_entries, 1); // set before load: a power of two
} hints SEC(".maps");

// hint_mask is the number of hints minus one. Set before load.
volatile const __u32 hint_mask = 0;

// find_hint returns the hint for packets from the source of this one.
static __always_inline __u32 *find_hint(struct packet *p) {
	if (no_perfmon)
		return NULL;
	__u64 hash = p->udp->src * route_keys[0];
	if (p->v6) {
		for (int i = 0; i < 4; i++)
			hash += p->ip6->src[i] * route_keys[1 + i];
	} else {
		hash += p->ip4->src * route_keys[1];
	}
	__u32 number = hash >> 32 & hint_mask;
	return bpf_map_lookup_elem(&hints, &number);
}

// read_ahead begins to read the leg of a hint.
static __always_inline void read_ahead(__u32 *hint) {
	if (!hint)
		return;
	__u32 index     = READ_ONCE(*hint);
	struct leg *leg = bpf_map_lookup_elem(&legs, &index);
	if (leg) {
		__u64 state = READ_ONCE(leg->state);
		opaque(state);
	}
}

// set_hint stores the leg that a packet goes to, unless the hint has it already.
static __always_inline void set_hint(__u32 *hint, __u32 leg) {
	if (hint && READ_ONCE(*hint) != leg)
		*(volatile __u32 *)hint = leg;
}
