// The monitor stage counts the packets that match the rules of their flow, and reports the others
// to Go. It passes all packets.
#pragma once
#include "clock.h"
#include "datagram.h"
#include "spin.h"

// The limit of reports for one direction of a flow: a burst of REPORT_BURST, and then one per
// REPORT_INTERVAL, in nanoseconds.
#define REPORT_BURST 64
#define REPORT_INTERVAL 50000000ULL
// MAX_WHOLE is how many packets of a direction that have a long header, or the first header of Google
// QUIC, are reported whole, until Go asks for more.
#define MAX_WHOLE 8
// MAX_SINGLE is the longest payload that counts as a single datagram (monitor/segments.go).
#define MAX_SINGLE 1500
// MIN_SHORT is the least length of a packet with a short header, without the ID.
#define MIN_SHORT 21
// MAX_AT is the largest offset of a payload for which SNAP_SHORT bytes contain the short header
// with an ID of any length.
#define MAX_AT (SNAP_SHORT - MIN_SHORT - 4 * ID_WORDS)
// MIN_UNKNOWN is the least length of a client's first datagram (RFC 9000 §14.1).
#define MIN_UNKNOWN 1200

// may_begin says whether a datagram may begin a connection: it has a long header of a known
// version, or is long enough for an unknown version, or has the first header of Google QUIC.
static __always_inline bool may_begin(struct datagram *g) {
	if (!(g->first & 0x80)) // in Google QUIC, the version is after an ID (monitor/negotiation.go)
		return (g->first & 0xcb) == 0x09 && ntohl(g->id[2]) >> 24 == 'Q';
	__u32 v = ntohl(g->id[0]); // a long header has the version where a short header has the ID
	return v <= 1 || v == 0x6b3343cf || v == 0x709a50c4 || v >> 24 == 0xff || v >> 12 == 0xfaceb || v >> 24 == 'P' ||
		   v >> 24 == 'Q' || v >> 24 == 'T' || g->length >= MIN_UNKNOWN;
}

// may_be_short says whether a datagram of an ignored flow may be a short header of a
// connection that has migrated to the flow. Go can recognize its ID.
static __always_inline bool may_be_short(struct datagram *g) {
	return (g->first & 0xc0) == 0x40 && g->length >= MIN_SHORT;
}

// skips_short says whether a datagram of an ignored flow that looks like a short header is not
// reported. One in four random packets does. So after REPORT_BURST of them only one in 64 may be
// reported.
static __always_inline bool skips_short(struct ignored_flow *cached) {
	__u32 n = cached->shorts++;
	return n >= REPORT_BURST && n % 64;
}

// seen_before says whether a packet of a pair with this hash was seen before, and remembers the
// hash. Another pair with the same slot makes it forget.
static __always_inline bool seen_before(__u64 hash) {
	__u32 slot = hash >> (64 - SEEN_BITS), rest = hash >> (32 - SEEN_BITS);
	__u32 *last = bpf_map_lookup_elem(&seen, &slot);
	if (!last || *last == rest)
		return true;
	*last = rest;
	return false;
}

static __always_inline bool same_pair(struct pair *x, struct pair *y) {
	words64 *v = (void *)x, *w = (void *)y;
	__u64 differ = 0;
	for (int i = 0; i < 4; i++)
		differ |= v[i] ^ w[i];
	return !(differ | (x->a_port ^ y->a_port) | (x->b_port ^ y->b_port));
}

// find_known returns the known flow of a datagram, or NULL.
static __always_inline struct flow *find_known(struct datagram *g) {
	__u32 set          = g->hash >> slots_shift, index;
	__u64 tag          = (__u32)(g->hash >> 16) | 1, slot;
	struct slot_set *s = bpf_map_lookup_elem(&slots, &set);
	if (!s)
		return NULL;
	for (int i = 0; i < SLOTS; i++) {
		slot = READ_ONCE(s->slot[i]);
		if (likely(slot >> 32 == tag))
			goto found;
	}
	return NULL;
found:
	index          = slot;
	struct flow *f = bpf_map_lookup_elem(&known, &index);
	return f && same_pair(&f->pair, &g->pair) ? f : NULL;
}

// cached_flow returns the slot of a datagram's flow in the cache of ignored flows. is_cached says
// whether the flow is in it.
static __always_inline struct ignored_flow *cached_flow(struct datagram *g, bool *is_cached) {
	__u32 slot             = g->hash >> (64 - IGNORED_BITS);
	struct ignored_flow *c = bpf_map_lookup_elem(&ignored_flows, &slot);
	*is_cached             = c && c->round == ignored_round && same_pair(&c->pair, &g->pair);
	return c;
}

// skips says whether a datagram of an ignored flow that begins no connection is left out. It adds
// the flow to the cache.
static __always_inline bool skips(struct datagram *g) {
	bool is_cached;
	struct ignored_flow *cached = cached_flow(g, &is_cached);
	if (cached && !is_cached) {
		cached->round  = ignored_round - 1; // invalid while it changes
		cached->pair   = g->pair;
		cached->shorts = 0;
		cached->round  = ignored_round;
	}
	return !may_be_short(g) || (is_cached && skips_short(cached));
}

// same says whether two IDs are equal in their first len bytes.
static __always_inline bool same(__u32 *x, __u32 *y, __u32 len) {
	struct id_mask *mask = bpf_map_lookup_elem(&id_masks, &len);
	if (unlikely(!mask))
		return false;
	__u32 differ = 0;
	for (int i = 0; i < ID_WORDS; i++)
		differ |= (x[i] ^ y[i]) & mask->word[i];
	return !differ;
}

static __always_inline bool same_id(struct direction *d, __u32 *id) {
	return same(d->id, id, d->id_len);
}

// matches says whether a packet matches the rule of its direction.
static __always_inline bool matches(struct direction *d, struct datagram *g) {
	if (g->first & 0x80 || d->match == MATCH_NONE)
		return false;
	if (d->match == MATCH_SHORT)
		return true;
	if (g->length < (__u32)d->id_len + MIN_SHORT)
		return false;
	if (!d->id_len && !(g->first & 0x40))
		return false;
	return same_id(d, g->id);
}

// segment_known says whether the size of the datagrams in a packet is known. If GRO does not say,
// it is the size that Go has set, provided that a second datagram with the same ID begins there.
static __always_inline bool segment_known(void *ctx, bool out, struct direction *d, struct datagram *g) {
	if (likely(g->segment || g->length <= MAX_SINGLE))
		return true;
	__u8 first;
	__u32 id[ID_WORDS];
	__u32 size = d->segment;
	if (out || !size || !d->id_len || size + 1 + sizeof(id) > g->length)
		return false;
	if (!load(ctx, out, g->at + size, &first, 1) || !load(ctx, out, g->at + size + 1, id, sizeof(id)) || first & 0x80)
		return false;
	if (!same_id(d, id))
		return false;
	g->segment = size;
	return true;
}

// datagrams returns the number of datagrams in a packet.
static __always_inline __u32 datagrams(struct datagram *g) {
	if (unlikely(g->segment && g->segment < g->length))
		return (g->length + g->segment - 1) / g->segment;
	return 1;
}

// add counts a packet that is not reported. opaque keeps the offset constant in each branch.
static __always_inline void add(struct tally *t, struct datagram *g, __u32 n) {
	__u32 *packets;
	if (g->ecn == 0) {
		packets = &t->packets[0];
		opaque(packets);
	} else if (g->ecn == 1) {
		packets = &t->packets[1];
		opaque(packets);
	} else if (g->ecn == 2) {
		packets = &t->packets[2];
		opaque(packets);
	} else {
		packets = &t->packets[3];
		opaque(packets);
	}
	__sync_fetch_and_add(packets, n);
	__sync_fetch_and_add(&t->bytes, g->length);
}

// direction_of returns the direction of a flow from a to b, or the one back. opaque keeps the offset
// constant in each branch.
static __always_inline struct direction *direction_of(struct flow *f, bool from_a) {
	struct direction *d;
	if (from_a) {
		d = &f->direction[0];
		opaque(d);
	} else {
		d = &f->direction[1];
		opaque(d);
	}
	return d;
}

// counted says whether a packet of a known flow matches the rule of its direction, and counts it.
static __always_inline bool counted(void *ctx, bool out, struct flow *f, struct datagram *g, __u64 now) {
	struct direction *d = direction_of(f, g->from_a), *reverse = direction_of(f, !g->from_a);
	if (unlikely(!matches(d, g) || !segment_known(ctx, out, d, g)))
		return false;
	__u32 n = datagrams(g);
	follow(&d->spin, &reverse->spin, g->first & 0x20, n);
	add(&d->matched, g, n);
	d->last = now;
	return true;
}

// may_report says whether the limit of reports allows another one, and counts it.
static __always_inline bool may_report(__u64 *full_at, __u64 now, __u64 burst) {
	__u64 at = *full_at > now ? *full_at : now;
	if (at - now > burst * REPORT_INTERVAL)
		return false;
	*full_at = at + REPORT_INTERVAL;
	return true;
}

// already_reported says whether the last two reported packets had the ID of this one. Go needs no
// more to learn an ID. Until Go has set the length of IDs, the answer is no.
static __always_inline bool already_reported(struct direction *d, struct datagram *g) {
	return d->id_len && d->repeats >= 2 && same(d->reported, g->id, d->id_len);
}

// remember_reported remembers the ID of a packet that was reported.
static __always_inline void remember_reported(struct direction *d, struct datagram *g) {
	if (d->id_len && d->repeats && same(d->reported, g->id, d->id_len)) {
		d->repeats++;
		return;
	}
	d->repeats = 1;
	for (int i = 0; i < ID_WORDS; i++)
		d->reported[i] = g->id[i];
}

// fill fills a sample with at most room bytes of a frame. length is the length of the frame; it is
// used only at egress.
static __always_inline bool fill(
	void *ctx, bool out, __u32 length, __u32 iface, struct datagram *g, struct sample *s, __u32 room) {
	if (!out)
		length = bpf_xdp_get_buff_len(ctx);
	__u32 n = length < room ? length : room;
	if (!between(n, room))
		return false;
	s->at       = bpf_ktime_get_ns();
	s->iface    = iface;
	s->length   = length;
	s->captured = n;
	s->segment  = g->segment;
	s->outbound = out;
	return load(ctx, out, 0, s + 1, n);
}

// report reports a packet to Go: the whole packet, or the unprotected part of a short header. It
// returns false if that fails.
static __always_inline bool report(void *ctx, bool out, __u32 length, __u32 iface, struct datagram *g, bool whole) {
	struct sample *s;
	bool ok;
	if (whole) {
		s = bpf_ringbuf_reserve(&samples, sizeof(*s) + SNAP_WHOLE, 0);
		if (!s)
			return false;
		ok = fill(ctx, out, length, iface, g, s, SNAP_WHOLE);
	} else {
		s = bpf_ringbuf_reserve(&samples, sizeof(*s) + SNAP_SHORT, 0);
		if (!s)
			return false;
		ok = fill(ctx, out, length, iface, g, s, SNAP_SHORT);
	}
	if (ok)
		bpf_ringbuf_submit(s, 0);
	else
		bpf_ringbuf_discard(s, 0);
	return ok;
}

// needs_all says whether the unprotected part of a short header does not tell Go what the packet
// contains.
static __always_inline bool needs_all(struct datagram *g) {
	return (g->length > MAX_SINGLE && !g->segment) || g->at > MAX_AT;
}

// report_limited reports a packet that does not match, if the limit of reports allows that. begins says
// whether it may begin a connection.
static __always_inline enum outcome report_limited(
	void *ctx, bool out, __u32 length, __u32 iface, struct datagram *g, struct direction *d, __u64 now, bool begins) {
	bool long_header = g->first & 0x80;
	bool whole       = needs_all(g);
	// opaque keeps the offset constant in each branch.
	__u64 *full_at, burst = REPORT_BURST;
	if (long_header) {
		full_at = &d->full_at[0];
		opaque(full_at);
	} else {
		full_at = &d->full_at[1];
		opaque(full_at);
		if (already_reported(d, g))
			burst /= 2; // the other half is for new IDs
	}
	if (!may_report(full_at, now, burst))
		return LIMITED;
	if ((long_header || begins) && d->whole < MAX_WHOLE) {
		d->whole++;
		whole = true;
	}
	if (!report(ctx, out, length, iface, g, whole))
		return RING_FULL;
	if (!long_header)
		remember_reported(d, g);
	return REPORTED;
}

// new_flow adds the flow of a datagram. It returns NULL if that fails.
static __always_inline struct flow *new_flow(struct datagram *g) {
	__u32 zero     = 0;
	struct flow *f = bpf_map_lookup_elem(&blank, &zero);
	if (!f)
		return NULL;
	// Another CPU may have added it meanwhile.
	bpf_map_update_elem(&flows, &g->pair, f, BPF_NOEXIST);
	f = bpf_map_lookup_elem(&flows, &g->pair);
	if (f && !f->born)
		f->born = bpf_ktime_get_ns();
	count_outcome(f ? FLOW_NEW : FLOW_FAILED);
	return f;
}

// count_or_report runs the stage on a datagram.
static __always_inline void count_or_report(void *ctx, bool out, __u32 length, __u32 iface, struct datagram *g) {
	bool begins = may_begin(g), is_cached = false;
	if (unlikely(!begins && !may_be_short(g))) // most packets that are not QUIC
		cached_flow(g, &is_cached);
	if (unlikely(is_cached)) {
		count_outcome(IGNORED);
		return;
	}
	__u64 now      = clock();
	struct flow *f = find_known(g);
	if (likely(f && counted(ctx, out, f, g, now)))
		return;
	if (!f)
		f = bpf_map_lookup_elem(&flows, &g->pair);
	if (!f && !seen_before(g->hash) && report(ctx, out, length, iface, g, g->first & 0x80 || begins || needs_all(g))) {
		count_outcome(REPORTED);
		return;
	}
	if (!f && !(f = new_flow(g)))
		return;
	bool ignored = f->ignored && !begins;
	if (ignored && skips(g)) {
		count_outcome(IGNORED);
		return;
	}
	struct direction *d = direction_of(f, g->from_a);
	enum outcome what   = report_limited(ctx, out, length, iface, g, d, now, begins);
	if (ignored && what != REPORTED)
		what = IGNORED;
	count_outcome(what);
	if (what == LIMITED || what == RING_FULL) {
		add(&d->unreported, g, datagrams(g));
		d->last = now;
	}
}

// last_unread is when the last packet that scan could not read was reported.
volatile __u64 last_unread;

// report_unread runs the stage on a packet that scan could not read. It reports one per tick.
static __always_inline void report_unread(void *ctx, bool out, __u32 length, __u32 iface, struct datagram *g) {
	__u64 now = clock();
	if (last_unread == now) {
		count_outcome(SKIPPED);
		return;
	}
	last_unread = now;
	g->segment  = 0;
	count_outcome(report(ctx, out, length, iface, g, true) ? REPORTED : SKIPPED);
}

// read_plain reads a datagram that parse can read.
static __always_inline bool read_plain(struct xdp_md *ctx, struct datagram *g) {
	struct ethhdr *eth = (void *)(long)ctx->data;
	void *end          = (void *)(long)ctx->data_end;
	struct packet p;
	if ((void *)(eth + 1) > end)
		return false;
	if (eth->proto == bpf_htons(ETH_P_IP)) {
		if (!parse(ctx, &p, eth, end, false))
			return false;
		from_packet(&p, g);
		return true;
	}
	if (eth->proto != bpf_htons(ETH_P_IPV6) || !parse(ctx, &p, eth, end, true))
		return false;
	from_packet(&p, g);
	return true;
}

// monitor runs the stage on a frame at ingress.
static __always_inline void monitor(struct xdp_md *ctx) {
	struct datagram g = {};
	int found         = likely(read_plain(ctx, &g)) ? FOUND_UDP : scan(ctx, false, &g);
	if (unlikely(found == NOT_UDP))
		return;
	if (unlikely(found == UNREAD))
		report_unread(ctx, false, 0, ctx->ingress_ifindex, &g);
	else
		count_or_report(ctx, false, 0, ctx->ingress_ifindex, &g);
}
