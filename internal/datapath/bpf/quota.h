// The quota stage drops packets to guarded ports by the rules that Go has set: denied prefixes,
// refused sources, and rates. It evaluates the same conditions as the packet filter in package
// quota, in the same order, and drops no packet that this filter would pass. Packets that it
// cannot decide about pass.
#pragma once
#include "initial.h"
#include "maps.h"
#include "parse.h"
#include "rules.h"
#include "source.h"

// REPORT_DROPS is the least time between two reports of a source that exceeds its rates, in
// nanoseconds.
#define REPORT_DROPS 1000000000ULL
// MAX_NESTED is the largest number of expired prefixes, each inside the next, that find_prefix
// skips.
#define MAX_NESTED 4

enum found { NOT_LISTED, LISTED, UNSURE };

// find_prefix says whether a list has a prefix of an address that has not expired. If the longest
// prefix has expired, a shorter one may still hold.
static __always_inline enum found find_prefix(void *list, struct prefix *p, bool v6, __u64 now) {
	p->bits = ADDR_BITS;
	for (int i = 0; i < MAX_NESTED; i++) {
		struct rule *r = bpf_map_lookup_elem(list, p);
		// A prefix of less than IPV4_BITS is for IPv6.
		if (!r || (!v6 && r->bits < IPV4_BITS))
			return NOT_LISTED;
		if (r->until > now) {
			r->packets++; // approximate: an atomic addition costs half as much as a lookup
			return LISTED;
		}
		if (!r->bits)
			return NOT_LISTED;
		p->bits = r->bits - 1;
	}
	return UNSURE;
}

// is_denied_source says whether the table of denied sources has a source.
static __always_inline bool is_denied_source(struct source *s, __u64 now) {
	__u32 key              = hash_addr(s->addr) >> 32 & denied_mask;
	struct denied_set *set = bpf_map_lookup_elem(&denied_sources, &key);
	if (!set)
		return false;
	for (int i = 0; i < DENIED_SLOTS; i++) {
		__be32 *a = set->source[i].addr;
		if (a[3] == s->addr[3] && a[1] == s->addr[1] && a[0] == s->addr[0] && a[2] == s->addr[2] && READ_ONCE(set->until[i]) > now) {
			set->packets[i]++;
			return true;
		}
	}
	return false;
}

// is_denied says whether an address is denied. It looks up the source first, because most entries
// are sources. Without CAP_PERFMON all entries are in the trie.
static __always_inline bool is_denied(struct rules *rules, struct prefix *addr, bool v6, __u64 now) {
	if (!no_perfmon && rules->sources) {
		struct source s = source_of(rules, addr, v6);
		if (is_denied_source(&s, now))
			return true;
	}
	return rules->denies && find_prefix(&denied, addr, v6, now) == LISTED;
}

// take_token takes a token from a bucket, and returns false if the bucket is empty. The state of a
// bucket is the time at which it is full again.
static __always_inline bool take_token(__u64 *full, __u64 interval, __u64 depth, __u64 now) {
	__u64 at = *full > now ? *full : now;
	if (at + interval > now + depth + tick_ns) // the clock may be a tick behind
		return false;
	*full = at + interval;
	return true;
}

// limits_of returns the limits of the source of an address.
static __always_inline struct limits *limits_of(struct rules *rules, struct prefix *p, bool v6) {
	if (!rules->exceptions)
		return &rules->limits;
	p->bits            = ADDR_BITS;
	struct limits *own = bpf_map_lookup_elem(&exceptions, p);
	return own && (v6 || own->bits >= IPV4_BITS) ? own : &rules->limits;
}

// bucket_of returns the buckets of a source, and adds them if necessary. It returns NULL if that
// fails.
static __always_inline struct bucket *bucket_of(struct source *s) {
	struct bucket *b = bpf_map_lookup_elem(&buckets, s);
	if (b)
		return b;
	struct bucket full = {};
	bpf_map_update_elem(&buckets, s, &full, BPF_NOEXIST);
	return bpf_map_lookup_elem(&buckets, s);
}

// report_drop counts a packet of a source that exceeds its rates, and reports the count to
// Go once a second.
static __always_inline void report_drop(struct source *s, struct bucket *b, enum reason why, __u64 now) {
	b->dropped++;
	if (now - b->reported < REPORT_DROPS)
		return;
	b->reported   = now;
	struct drop d = {.source = *s, .reason = why, .packets = b->dropped};
	if (bpf_ringbuf_output(&drops, &d, sizeof(d), 0)) {
		count(QUOTA_REPORT_LOST);
		return;
	}
	b->dropped = 0;
}

// The kinds of hashes, so that hashes of different kinds do not collide.
enum { ATTEMPT, TOKEN };

// attempts_of returns the set that an attempt belongs to, by its hash.
static __always_inline struct attempt_set *attempts_of(__u64 tag) {
	__u32 key = tag >> 32 & attempts_mask; // the high half is distributed better
	return bpf_map_lookup_elem(&attempts, &key);
}

// was_admitted says whether an attempt was admitted before.
static __always_inline bool was_admitted(struct attempt_set *a, __u64 tag, __u64 now) {
	for (int i = 0; i < ATTEMPT_SLOTS; i++)
		if (a->tag[i] == tag && a->until[i] > now)
			return true;
	return false;
}

// remember_attempt adds an attempt to its set, in place of the one that expires first.
static __always_inline void remember_attempt(struct attempt_set *a, __u64 tag, __u64 until) {
	int oldest = 0;
#pragma unroll
	for (int i = 1; i < ATTEMPT_SLOTS; i++)
		if (a->until[i] < a->until[oldest & (ATTEMPT_SLOTS - 1)])
			oldest = i;
	a->tag[oldest & (ATTEMPT_SLOTS - 1)]   = tag;
	a->until[oldest & (ATTEMPT_SLOTS - 1)] = until;
}

// origin_of returns the origin of an attempt: address, port, and token if it has one.
static __always_inline struct origin origin_of(struct xdp_md *ctx, struct packet *p, struct prefix *addr, struct initial *in) {
	struct origin origin = {.tag = p->udp->src};
	__builtin_memcpy(origin.addr, addr->addr, sizeof(origin.addr));
	if (in->token_len)
		origin.tag = hash_of(addr->addr, TOKEN << 16 | p->udp->src, in->token_len) +
		             hash_token(ctx, p->payload - (__u8 *)p->eth + in->token, in->token_len);
	return origin;
}

// continues_attempt says whether an Initial with an ID of the server's length comes from the origin
// of an admitted attempt. With a token it admits one more ID: the program cannot verify tokens, so
// a forged one must not admit more.
static __always_inline bool continues_attempt(struct origin *origin, struct initial *in, struct attempt_set *a, __u64 tag, __u64 now, __u64 until) {
	__u64 *end = bpf_map_lookup_elem(&origins, origin);
	if (!end || *end <= now)
		return false;
	if (in->token_len) {
		bpf_map_delete_elem(&origins, origin);
		remember_attempt(a, tag, until);
	}
	return true;
}

// decide_new_attempt decides about the first Initial of an attempt.
static __always_inline enum reason decide_new_attempt(struct packet *p, struct rules *rules, struct prefix *addr, __u64 now) {
	struct source s         = source_of(rules, addr, p->v6);
	struct refusal *refusal = bpf_map_lookup_elem(&refused, &s);
	if (refusal && refusal->until > now) {
		refusal->packets++;
		return QUOTA_REFUSED;
	}
	struct limits *l = limits_of(rules, addr, p->v6);
	struct bucket *b = l->attempt ? bucket_of(&s) : NULL;
	if (b && !take_token(&b->attempt, l->attempt, l->attempt_depth, now)) {
		report_drop(&s, b, QUOTA_ATTEMPT_RATE, now);
		return QUOTA_ATTEMPT_RATE;
	}
	return QUOTA_NEW;
}

// decide_attempt decides about an Initial that may begin a new attempt.
static __always_inline enum reason decide_attempt(struct xdp_md *ctx, struct packet *p, struct rules *rules, struct initial *in, struct prefix *addr, __u8 id_len, __u64 now) {
	__u64 until = now + rules->patience;
	__u64 tag   = hash_of(addr->addr, ATTEMPT << 16 | p->udp->src, in->id_len) + hash_bytes(p->payload + 6, p->end, in->id_len, MAX_ID / 4);

	struct attempt_set *a = attempts_of(tag);
	if (!a)
		return QUOTA_OTHER;
	if (was_admitted(a, tag, now))
		return QUOTA_KNOWN_ATTEMPT;
	struct origin origin;
	bool server_id = in->id_len == id_len; // the ID may be one that the server has issued
	if (server_id) {
		origin = origin_of(ctx, p, addr, in);
		if (continues_attempt(&origin, in, a, tag, now, until))
			return QUOTA_CONTINUING;
	}
	enum reason why = decide_new_attempt(p, rules, addr, now);
	if (why == QUOTA_NEW) {
		if (!server_id)
			origin = origin_of(ctx, p, addr, in);
		remember_attempt(a, tag, until);
		bpf_map_update_elem(&origins, &origin, &until, BPF_ANY);
	}
	return why;
}

// decide decides about a packet. For packets other than Initials, only lists and the rate of
// packets apply.
static __always_inline enum reason decide(struct xdp_md *ctx, struct packet *p, struct rules *rules, __u8 id_len, __u64 now) {
	struct prefix addr = address_of(p);
	if (rules->allows) {
		enum found allow = find_prefix(&allowed, &addr, p->v6, now);
		if (allow != NOT_LISTED)
			return allow == LISTED ? QUOTA_ALLOWED : QUOTA_OTHER;
	}
	if (is_denied(rules, &addr, p->v6, now))
		return QUOTA_DENIED;
	if (rules->packets) {
		struct limits *l = limits_of(rules, &addr, p->v6);
		struct source s  = source_of(rules, &addr, p->v6);
		struct bucket *b = l->packet ? bucket_of(&s) : NULL;
		if (b && !take_token(&b->packet, l->packet, l->packet_depth, now)) {
			report_drop(&s, b, QUOTA_PACKET_RATE, now);
			return QUOTA_PACKET_RATE;
		}
	}
	struct initial in;
	// Without CAP_PERFMON the verifier refuses offsets that come from the packet.
	if (no_perfmon || !parse_initial(p, &in))
		return QUOTA_OTHER;
	if (in.size < MIN_INITIAL)
		return QUOTA_SHORT_INITIAL;
	if (!in.token_len && in.id_len < MIN_FIRST_ID)
		return QUOTA_CONTINUING;
	return decide_attempt(ctx, p, rules, &in, &addr, id_len, now);
}

// quota runs the stage on a packet.
static __always_inline int quota(struct xdp_md *ctx, struct packet *p) {
	__u8 id_len;
	if (!guarded_port(p->udp->dst, &id_len)) {
		if (!relay_on)
			count(PASS_OTHER);
		return NEXT;
	}
	__u32 zero          = 0;
	struct rules *rules = bpf_map_lookup_elem(&policy, &zero);
	if (!rules)
		return NEXT;
	__u64 now = clock();
	if (now >= rules->lease) { // the process that could revoke a verdict may have ended
		count(QUOTA_NO_LEASE);
		return NEXT;
	}
	enum reason why = decide(ctx, p, rules, id_len, now);
	count(why);
	return why >= QUOTA_DENIED ? XDP_DROP : NEXT;
}
