// Finds the pair that a packet belongs to.
#pragma once
#include "maps.h"
#include "parse.h"

// tuple has the addresses of a connection of this host. IPv4 is in the last word.
struct tuple {
	__be32 remote[4];
	__be32 local[4];
	__be16 rport;
	__be16 lport;
};

// flow is the pair of a packet, and the direction of the packets from the tuple's remote end.
struct flow {
	__u32 index; // of the pair
	__u32 direction;
	__u32 generation; // of the pair, when the flow was found
	struct pair *pair;
	struct half *half;  // of this direction
	struct half *other; // of the opposite direction
};

// hash is multilinear (Lemire and Kaser: Strongly universal string hashing is fast, 2012): two
// connections have the same hash with a probability of 2^-32, whoever chooses their addresses,
// because the keys are secret.
static __always_inline __u32 hash(struct tuple *t, bool v6) {
	__u64 sum = hash_keys[0] + hash_keys[1] * ((__u32)t->rport << 16 | t->lport);
	sum += hash_keys[2] * t->remote[3] + hash_keys[3] * t->local[3];
	if (v6) {
		sum += hash_keys[4] * t->remote[0] + hash_keys[5] * t->remote[1] + hash_keys[6] * t->remote[2];
		sum += hash_keys[7] * t->local[0] + hash_keys[8] * t->local[1] + hash_keys[9] * t->local[2];
	}
	return sum >> 32;
}

// same says whether the packets of a half leave on the connection of a tuple.
static __always_inline bool same(struct half *h, struct tuple *t, bool v6) {
	if (h->dst[3] != t->remote[3] || h->src[3] != t->local[3] || h->dport != t->rport || h->sport != t->lport)
		return false;
	if (!v6)
		return !(h->flags & HALF_V6);
	return h->flags & HALF_V6 && h->dst[0] == t->remote[0] && h->dst[1] == t->remote[1] && h->dst[2] == t->remote[2] &&
		   h->src[0] == t->local[0] && h->src[1] == t->local[1] && h->src[2] == t->local[2];
}

// find_slot returns the content of the low half of the slot for a hash, or 0.
static __always_inline __u32 find_slot(__u32 h) {
	__u32 key            = h & set_mask;
	struct flow_set *set = bpf_map_lookup_elem(&flows, &key);
	if (!set)
		return 0;
#pragma unroll
	for (int i = 0; i < SLOTS; i++) {
		__u64 slot = READ_ONCE(set->slots[i]);
		if (slot >> 32 == h && (__u32)slot)
			return slot;
	}
	return 0;
}

// join sets the pair of a flow, and its halves by the direction.
static __always_inline void join(struct flow *f, struct pair *pair) {
	f->pair = pair;
	if (f->direction) {
		f->half  = &pair->halves[1];
		f->other = &pair->halves[0];
	} else {
		f->half  = &pair->halves[0];
		f->other = &pair->halves[1];
	}
}

// find finds the flow with a tuple, and its state. The comparison of the addresses makes sure that
// neither the hash nor a slot that Go is about to remove leads to another pair.
static __always_inline enum state find(struct flow *f, struct tuple *t, bool v6) {
	__u32 slot = find_slot(hash(t, v6));
	if (!slot--)
		return OFF;
	f->index          = slot >> 1;
	f->direction      = slot & 1;
	struct pair *pair = bpf_map_lookup_elem(&pairs, &f->index);
	if (!pair)
		return OFF;
	join(f, pair);
	f->generation = READ_ONCE(pair->generation);
	barrier();
	enum state state = READ_ONCE(f->pair->state);
	barrier();
	if (!same(f->other, t, v6))
		return OFF;
	return state;
}

// stale says whether Go has given the entry of the pair to another one meanwhile. Go does so only
// some time after it has removed the flows, but a CPU of a virtual machine may stand still for long.
static __always_inline bool stale(struct flow *f) {
	barrier();
	return READ_ONCE(f->pair->generation) != f->generation;
}

// tuple_of is the tuple of a packet: of one that has arrived, or of one that our host sends.
static __always_inline void tuple_of(struct tuple *t, struct packet *p, bool sent) {
	if (p->v6) {
		__builtin_memcpy(t->remote, sent ? p->ip6->dst : p->ip6->src, sizeof(t->remote));
		__builtin_memcpy(t->local, sent ? p->ip6->src : p->ip6->dst, sizeof(t->local));
	} else {
		t->remote[3] = sent ? p->ip4->dst : p->ip4->src;
		t->local[3]  = sent ? p->ip4->src : p->ip4->dst;
	}
	t->rport = sent ? p->tcp->dst : p->tcp->src;
	t->lport = sent ? p->tcp->src : p->tcp->dst;
}
