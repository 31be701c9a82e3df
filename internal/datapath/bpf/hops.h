// The table of next hops, which legs share. Only the program writes it.
//
// The place of a next hop is one of the four of a set that a hash of it selects. A hop that is there
// stays for at least HOP_STAYS ticks, and then another one may take its place. Each time the
// generation of the place is the next odd number. A leg refers to a place by its number and the low bits of the
// generation, and for at most 320 ticks, in which a place changes hands once at most. So it never gets a
// hop that came later. (A leg without a packet for exactly 2^22 ticks, hours, looks fresh again; then the
// generation still has to be the same.) If no place is free, the legs with that next hop look it up for
// each packet.
//
// The hash is of all that makes a next hop, and its keys are secret. Peers can make next hops that differ only
// in the MTU, by ICMP messages about the paths to themselves: these belong into different sets, so that they
// do not take the places of the next hop of all others.
//
// A CPU claims a place by compare-and-swap of its tenant, which then has no interface. It writes the
// other fields, and stores the tenant with the interface by an exchange. Both are full barriers. So
// what is read between two reads of the same tenant that has an interface is that tenant's.
#pragma once
#include "common.h"
#include "fence.h"
#include "routes.h"

// HOP_UNIT is the unit of leg_asked, and HOP_AGE how many units a next hop is used without another
// look-up. Both in ticks: 257 to 320 ticks in all.
#define HOP_UNIT 64
#define HOP_AGE 4
#define HOP_STAYS 1024

// HOP_SLACK is how many ticks another CPU may be ahead of the time that this one has read for its packet.
#define HOP_SLACK 64

#define HOP_PLACES 4       // of a set
#define HOP_GENERATIONS 16 // that a leg can tell apart, of which the odd ones are used

// next_hop is a copy of a next hop.
struct next_hop {
	__u32 out; // interface
	__u32 macs[3];
	__u16 mtu;
	__u32 epoch;
};

// hop_ref is how a leg refers to a tenant of a place. It is not 0, which refers to none, since generations
// are odd.
static __always_inline __u16 hop_ref(__u32 place, __u64 tenant) {
	return (tenant >> 32) % HOP_GENERATIONS * HOPS + place;
}

// read_hop copies the tenant of a place. The caller checks that the place has it still.
static __always_inline void read_hop(struct next_hop *to, struct hop *hop, __u64 tenant) {
	to->out = tenant;
	__builtin_memcpy(to->macs, hop->macs, sizeof(to->macs));
	to->mtu   = hop->mtu;
	to->epoch = hop->epoch;
}

// is_hop says whether the place has a next hop.
static __always_inline bool is_hop(struct hop *hop, __u64 tenant, struct next_hop *n) {
	struct next_hop there;
	read_fence();
	read_hop(&there, hop, tenant);
	read_fence();
	return there.out == n->out && there.epoch == n->epoch && there.mtu == n->mtu && there.macs[0] == n->macs[0] &&
	       there.macs[1] == n->macs[1] && there.macs[2] == n->macs[2] && READ_ONCE(hop->tenant) == tenant;
}

// claim makes a place this CPU's, if nobody has it, or long enough. It returns the new tenant without
// its interface, or 0.
static __always_inline __u64 claim(struct hop *hop, __u32 now) {
	__u64 old = READ_ONCE(hop->tenant);
	read_fence();
	if (old && (!(__u32)old || now - READ_ONCE(hop->since) + HOP_SLACK < HOP_STAYS + HOP_SLACK))
		return 0;
	__u64 new = (((old >> 32) + 1) | 1) << 32;
	return __sync_bool_compare_and_swap(&hop->tenant, old, new) ? new : 0;
}

// keep_hop puts a next hop into the table, unless it is there, and returns how to refer to it, or 0.
static __always_inline __u16 keep_hop(struct common *c, struct next_hop *n, __u32 now) {
	__u64 hash = n->macs[0] * route_keys[0] + n->macs[1] * route_keys[1] + n->macs[2] * route_keys[2] +
	             n->out * route_keys[3] + n->mtu * route_keys[4] + n->epoch * route_keys[5];
	__u32 first = hash >> 32 & (HOPS - HOP_PLACES);
	// The verifier of a process without CAP_PERFMON refuses pointers that depend on a loop.
#pragma unroll
	for (int i = 0; i < HOP_PLACES; i++) {
		struct hop *hop = &c->hop[first + i];
		__u64 tenant = READ_ONCE(hop->tenant);
		if (is_hop(hop, tenant, n))
			return hop_ref(first + i, tenant);
	}
#pragma unroll
	for (int i = 0; i < HOP_PLACES; i++) {
		struct hop *hop = &c->hop[first + i];
		__u64 tenant = claim(hop, now);
		if (!tenant)
			continue;
		hop->epoch = n->epoch;
		hop->since = now;
		hop->mtu   = n->mtu;
		__builtin_memcpy(hop->macs, n->macs, sizeof(hop->macs));
		tenant |= n->out;
		__sync_lock_test_and_set(&hop->tenant, tenant);
		return hop_ref(first + i, tenant);
	}
	return 0;
}
