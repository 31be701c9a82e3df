// The quota stage: drops what Go has decided to drop, before anybody has spent
// anything on it. It knows denied prefixes, refused sources, and
// rates; it asks the questions of the packet filter in package quota, in the same
// order, and drops nothing that this would pass. Whatever it is not sure of passes.
#pragma once
#include "initial.h"
#include "maps.h"
#include "parse.h"
#include "rules.h"
#include "source.h"

// REPORT_DROPS is the least time between two reports of a source that exceeds its rates, in
// nanoseconds.
#define REPORT_DROPS 1000000000ULL
// MAX_NESTED is in how many prefixes that have expired one that has not is looked
// for.
#define MAX_NESTED 4

enum found { NOT_THERE, THERE, UNSURE };

// find looks for an address in a list. The longest prefix that matches may have
// expired, with a shorter one behind it.
static __always_inline enum found find(void *list, struct prefix *p, bool v6, __u64 now) {
	p->bits = ADDR_BITS;
	for (int i = 0; i < MAX_NESTED; i++) {
		struct rule *r = bpf_map_lookup_elem(list, p);
		// What is shorter than all of IPv4 is of IPv6.
		if (!r || (!v6 && r->bits < IPV4_BITS))
			return NOT_THERE;
		if (r->until > now) {
			r->packets++; // about: an atomic one costs as much as half a lookup
			return THERE;
		}
		if (!r->bits)
			return NOT_THERE;
		p->bits = r->bits - 1;
	}
	return UNSURE;
}

// is_host says whether a source is denied by itself.
static __always_inline bool is_host(struct source *s, __u64 now) {
	__u32 key          = hash_addr(s->addr) >> 32 & hosts_mask;
	struct host_set *h = bpf_map_lookup_elem(&hosts, &key);
	if (!h)
		return false;
	for (int i = 0; i < HOSTS; i++) {
		__be32 *a = h->of[i].addr;
		if (a[3] == s->addr[3] && a[1] == s->addr[1] && a[0] == s->addr[0] && a[2] == s->addr[2] && READ_ONCE(h->until[i]) > now) {
			h->packets[i]++;
			return true;
		}
	}
	return false;
}

// is_denied asks for hosts first: they are the many. What guards against speculation
// wants all of them in the trie.
static __always_inline bool is_denied(struct rules *rules, struct prefix *addr, bool v6, __u64 now) {
	if (!guarded && rules->hosts) {
		struct source s = source_of(rules, addr, v6);
		if (is_host(&s, now))
			return true;
	}
	return rules->denies && find(&denied, addr, v6, now) == THERE;
}

// take takes a token from a bucket, if it has one: the bucket is the instant at
// which it is full again.
static __always_inline bool take(__u64 *full, __u64 interval, __u64 depth, __u64 now) {
	__u64 at = *full > now ? *full : now;
	if (at + interval > now + depth + tick_ns) // the clock may be a tick behind
		return false;
	*full = at + interval;
	return true;
}

// limits_of returns the limits that an address has.
static __always_inline struct limits *limits_of(struct rules *rules, struct prefix *p, bool v6) {
	if (!rules->exceptions)
		return &rules->limits;
	p->bits            = ADDR_BITS;
	struct limits *own = bpf_map_lookup_elem(&exceptions, p);
	return own && (v6 || own->bits >= IPV4_BITS) ? own : &rules->limits;
}

// bucket_of returns the buckets of a source, or NULL if there is no room.
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

// The kinds of what is hashed.
enum { ATTEMPT, TOKEN };

// attempts_like are those among which an attempt would be.
static __always_inline struct attempt_set *attempts_like(__u64 tag) {
	__u32 key = tag >> 32 & attempts_mask; // the better half
	return bpf_map_lookup_elem(&attempts, &key);
}

// knows says whether an attempt has been let in.
static __always_inline bool knows(struct attempt_set *a, __u64 tag, __u64 now) {
	for (int i = 0; i < SET_SIZE; i++)
		if (a->tag[i] == tag && a->until[i] > now)
			return true;
	return false;
}

static __always_inline void remember(struct attempt_set *a, __u64 tag, __u64 until) {
	int oldest = 0;
#pragma unroll
	for (int i = 1; i < SET_SIZE; i++)
		if (a->until[i] < a->until[oldest & (SET_SIZE - 1)])
			oldest = i;
	a->tag[oldest & (SET_SIZE - 1)]   = tag;
	a->until[oldest & (SET_SIZE - 1)] = until;
}

// origin_of says where an attempt is from.
static __always_inline struct origin origin_of(struct xdp_md *ctx, struct packet *p, struct prefix *addr, struct initial *in) {
	struct origin origin = {.tag = p->udp->src};
	__builtin_memcpy(origin.addr, addr->addr, sizeof(origin.addr));
	if (in->token_len)
		origin.tag = hash_of(addr->addr, TOKEN << 16 | p->udp->src, in->token_len) +
		             hash_token(ctx, p->payload - (__u8 *)p->eth + in->token, in->token_len);
	return origin;
}

// continues says whether an Initial with the server's ID comes from where an
// attempt was let in. A client repeats the token of a Retry with that ID: once,
// since a forged token is as good as any here.
static __always_inline bool continues(struct origin *origin, struct initial *in, struct attempt_set *a, __u64 tag, __u64 now, __u64 until) {
	__u64 *end = bpf_map_lookup_elem(&origins, origin);
	if (!end || *end <= now)
		return false;
	if (in->token_len) {
		bpf_map_delete_elem(&origins, origin);
		remember(a, tag, until);
	}
	return true;
}

// decide_new is about an Initial of an attempt that nobody knows.
static __always_inline enum reason decide_new(struct packet *p, struct rules *rules, struct prefix *addr, __u64 now) {
	struct source s   = source_of(rules, addr, p->v6);
	struct refusal *t = bpf_map_lookup_elem(&refused, &s);
	if (t && t->until > now) {
		t->packets++;
		return QUOTA_REFUSED;
	}
	struct limits *l = limits_of(rules, addr, p->v6);
	struct bucket *b = l->attempt ? bucket_of(&s) : NULL;
	if (b && !take(&b->attempt, l->attempt, l->attempt_depth, now)) {
		report_drop(&s, b, QUOTA_ATTEMPT_RATE, now);
		return QUOTA_ATTEMPT_RATE;
	}
	return QUOTA_NEW;
}

// decide_attempt is about an Initial that may be one of a new attempt.
static __always_inline enum reason decide_attempt(struct xdp_md *ctx, struct packet *p, struct rules *rules, struct initial *in, struct prefix *addr, __u8 id_len, __u64 now) {
	__u64 until = now + rules->patience;
	__u64 tag   = hash_of(addr->addr, ATTEMPT << 16 | p->udp->src, in->id_len) + hash_bytes(p->payload + 6, p->end, in->id_len, MAX_ID / 4);

	struct attempt_set *a = attempts_like(tag);
	if (!a)
		return QUOTA_OTHER;
	if (knows(a, tag, now))
		return QUOTA_KNOWN_ATTEMPT;
	struct origin origin;
	bool served = in->id_len == id_len; // by the ID
	if (served) {
		origin = origin_of(ctx, p, addr, in);
		if (continues(&origin, in, a, tag, now, until))
			return QUOTA_CONTINUING;
	}
	enum reason why = decide_new(p, rules, addr, now);
	if (why == QUOTA_NEW) {
		if (!served)
			origin = origin_of(ctx, p, addr, in);
		remember(a, tag, until);
		bpf_map_update_elem(&origins, &origin, &until, BPF_ANY);
	}
	return why;
}

// decide is about a packet of whatever kind, and asks no more if that is no
// Initial.
static __always_inline enum reason decide(struct xdp_md *ctx, struct packet *p, struct rules *rules, __u8 id_len, __u64 now) {
	struct prefix addr = address_of(p);
	if (rules->allows) {
		enum found allow = find(&allowed, &addr, p->v6, now);
		if (allow != NOT_THERE)
			return allow == THERE ? QUOTA_ALLOWED : QUOTA_OTHER;
	}
	if (is_denied(rules, &addr, p->v6, now))
		return QUOTA_DENIED;
	if (rules->packets) {
		struct limits *l = limits_of(rules, &addr, p->v6);
		struct source s  = source_of(rules, &addr, p->v6);
		struct bucket *b = l->packet ? bucket_of(&s) : NULL;
		if (b && !take(&b->packet, l->packet, l->packet_depth, now)) {
			report_drop(&s, b, QUOTA_PACKET_RATE, now);
			return QUOTA_PACKET_RATE;
		}
	}
	struct initial in;
	// What guards against speculation takes no place that a packet names.
	if (guarded || !parse_initial(p, &in))
		return QUOTA_OTHER;
	if (in.size < MIN_INITIAL)
		return QUOTA_SHORT_INITIAL;
	if (!in.token_len && in.id_len < MIN_FIRST_ID)
		return QUOTA_CONTINUING;
	return decide_attempt(ctx, p, rules, &in, &addr, id_len, now);
}

// quota is the stage.
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
	if (now >= rules->lease) { // nobody is there who would take back a verdict
		count(QUOTA_NO_LEASE);
		return NEXT;
	}
	enum reason why = decide(ctx, p, rules, id_len, now);
	count(why);
	return why >= QUOTA_DENIED ? XDP_DROP : NEXT;
}
