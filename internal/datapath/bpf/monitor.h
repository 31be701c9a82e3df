// The monitor stage: counts the packets that match the rules of their flow, and reports the
// others to Go. It passes everything.
#pragma once
#include "clock.h"
#include "datagram.h"
#include "spin.h"

// The limit of reports for one direction of a flow: a burst, and then one in so many
// nanoseconds.
#define REPORT_BURST 64
#define REPORT_INTERVAL 50000000ULL
// MAX_WHOLE is how many long headers of a direction are reported whole, until Go asks for
// more.
#define MAX_WHOLE 8
// MAX_SINGLE is the longest payload that came by itself (monitor/segments.go).
#define MAX_SINGLE 1500
// MIN_SHORT is the least that a short header has besides its ID.
#define MIN_SHORT 21
// MAX_AT is where a payload begins at most whose short header is in a sample that is
// not whole, with an ID of any length.
#define MAX_AT (SNAP_SHORT - MIN_SHORT - 4 * ID_WORDS)
// MIN_UNKNOWN is the least of a client's first datagram (RFC 9000 §14.1).
#define MIN_UNKNOWN 1200

// may_begin says whether a datagram may have a long header, or Google's first one,
// that begins something to Go whatever is known of the flow.
static __always_inline bool may_begin(struct datagram *g) {
	if (!(g->first & 0x80)) // there the version is behind an ID (monitor/negotiation.go)
		return (g->first & 0xcb) == 0x09 && ntohl(g->id[2]) >> 24 == 'Q';
	__u32 v = ntohl(g->id[0]); // the version is in the place of an ID
	return v <= 1 || v == 0x6b3343cf || v == 0x709a50c4 || v >> 24 == 0xff || v >> 12 == 0xfaceb ||
	       v >> 24 == 'P' || v >> 24 == 'Q' || v >> 24 == 'T' || g->length >= MIN_UNKNOWN;
}

// may_be_short says whether a datagram of an ignored flow may be a short header of a
// connection that has migrated there: Go would know its ID.
static __always_inline bool may_be_short(struct datagram *g) {
	return (g->first & 0xc0) == 0x40 && g->length >= MIN_SHORT;
}

// skips says whether the flow of a datagram need not be looked up, because it is in the cache
// of ignored flows. One in four of another protocol has the bits of a short
// header: after a few of those only some are looked at.
static __always_inline bool skips(struct ignored_flow *s, struct datagram *g) {
	if (!may_be_short(g))
		return true;
	__u32 n = s->shorts++;
	return n >= REPORT_BURST && n % 64;
}

static __always_inline __u32 index_of(struct pair *p) {
	__u64 a = (__u64)(p->a[0] ^ p->a[2]) << 32 | (p->a[1] ^ p->a[3]);
	__u64 b = (__u64)(p->b[0] ^ p->b[2]) << 32 | (p->b[1] ^ p->b[3]);
	__u64 h = (a ^ (__u64)p->a_port << 48) * 0x9e3779b97f4a7c15ULL;
	h       = (h ^ b ^ (__u64)p->b_port << 48 ^ h >> 32) * 0x9e3779b97f4a7c15ULL;
	return h >> (64 - IGNORED_BITS);
}

static __always_inline bool same_pair(struct pair *x, struct pair *y) {
	for (int i = 0; i < 4; i++)
		if (x->a[i] != y->a[i] || x->b[i] != y->b[i])
			return false;
	return x->a_port == y->a_port && x->b_port == y->b_port;
}

static __always_inline bool same(__u32 *x, __u32 *y, __u32 *mask) {
	__u32 differ = 0;
	for (int i = 0; i < ID_WORDS; i++)
		differ |= (x[i] ^ y[i]) & mask[i];
	return !differ;
}

static __always_inline bool same_id(struct direction *l, __u32 *id) {
	return same(l->id, id, l->mask);
}

// matches says whether a packet matches the rule of its direction.
static __always_inline bool matches(struct direction *l, struct datagram *g) {
	if (g->first & 0x80 || l->match == MATCH_NONE)
		return false;
	if (l->match == MATCH_SHORT)
		return true;
	if (g->length < (__u32)l->id_len + MIN_SHORT)
		return false;
	if (!l->id_len && !(g->first & 0x40))
		return false;
	return same_id(l, g->id);
}

// splits says whether it is known what datagrams a long packet is made of: those
// that one of the size before would be.
static __always_inline bool splits(void *ctx, bool out, struct direction *l, struct datagram *g) {
	if (g->segment || g->length <= MAX_SINGLE)
		return true;
	__u8 first;
	__u32 id[ID_WORDS];
	__u32 size = l->segment;
	if (out || !size || !l->id_len || size + 1 + sizeof(id) > g->length)
		return false;
	if (!load(ctx, out, g->at + size, &first, 1) || !load(ctx, out, g->at + size + 1, id, sizeof(id)) || first & 0x80)
		return false;
	if (!same_id(l, id))
		return false;
	g->segment = size;
	return true;
}

// datagrams is how many a packet is made of.
static __always_inline __u32 datagrams(struct datagram *g) {
	if (g->segment && g->segment < g->length)
		return (g->length + g->segment - 1) / g->segment;
	return 1;
}

// add counts a packet that is not reported.
static __always_inline void add(struct tally *t, struct datagram *g, __u32 n) {
	__sync_fetch_and_add(&t->packets, n);
	__sync_fetch_and_add(&t->bytes, g->length);
}

// may_report says whether the limit of reports allows another one.
static __always_inline bool may_report(__u64 *rest, __u64 now, __u64 burst) {
	__u64 at = *rest > now ? *rest : now;
	if (at - now > burst * REPORT_INTERVAL)
		return false;
	*rest = at + REPORT_INTERVAL;
	return true;
}

// already_reported says whether two packets in a row with this ID were reported last, which
// is as many as Go needs to learn an ID. The length of IDs comes from Go: until then no ID is
// known.
static __always_inline bool already_reported(struct direction *l, struct datagram *g) {
	return l->id_len && l->alike >= 2 && same(l->reported, g->id, l->mask);
}

// note_reported remembers the ID of a packet that was reported.
static __always_inline void note_reported(struct direction *l, struct datagram *g) {
	if (l->id_len && l->alike && same(l->reported, g->id, l->mask)) {
		l->alike++;
		return;
	}
	l->alike = 1;
	for (int i = 0; i < ID_WORDS; i++)
		l->reported[i] = g->id[i];
}

// fill makes a sample of a frame of which at most room bytes are wanted. length is
// that of one which leaves.
static __always_inline bool fill(void *ctx, bool out, __u32 length, __u32 iface, struct datagram *g, struct sample *s, __u32 room) {
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

// report gives Go a packet: whole, or the unprotected part of a short header.
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

// show reports a packet that does not match, if the limit allows.
static __always_inline enum outcome show(void *ctx, bool out, __u32 length, __u32 iface, struct datagram *g, struct direction *l, __u64 now) {
	bool long_header = g->first & 0x80;
	bool whole       = (g->length > MAX_SINGLE && !g->segment) || g->at > MAX_AT;
	// Each branch has a constant offset: see opaque.
	__u64 *rest, burst = REPORT_BURST;
	if (long_header) {
		rest = &l->rest[0];
		opaque(rest);
	} else {
		rest = &l->rest[1];
		opaque(rest);
		if (already_reported(l, g))
			burst /= 2; // the other half is for new IDs
	}
	if (!may_report(rest, now, burst))
		return LIMITED;
	if (long_header && l->whole < MAX_WHOLE) {
		l->whole++;
		whole = true;
	}
	if (!report(ctx, out, length, iface, g, whole))
		return RING_FULL;
	if (!long_header)
		note_reported(l, g);
	return REPORTED;
}

// new_flow makes a flow.
static __always_inline struct flow *new_flow(struct datagram *g) {
	__u32 zero     = 0;
	struct flow *t = bpf_map_lookup_elem(&blank, &zero);
	if (!t)
		return NULL;
	// Another CPU may be first.
	bpf_map_update_elem(&flows, &g->pair, t, 1 /* BPF_NOEXIST */);
	t = bpf_map_lookup_elem(&flows, &g->pair);
	if (t && !t->born)
		t->born = bpf_ktime_get_ns();
	count_outcome(t ? FLOW_NEW : FLOW_FAILED);
	return t;
}

// watch is the stage for a packet that was read.
static __always_inline void watch(void *ctx, bool out, __u32 length, __u32 iface, struct datagram *g) {
	__u32 place            = index_of(&g->pair);
	bool begins            = may_begin(g);
	struct ignored_flow *s = bpf_map_lookup_elem(&ignored_flows, &place);
	bool remembered        = s && s->round == ignored_round && same_pair(&s->pair, &g->pair);
	if (!begins && remembered && skips(s, g)) {
		count_outcome(IGNORED);
		return;
	}
	__u64 now      = clock();
	struct flow *t = bpf_map_lookup_elem(&flows, &g->pair);
	if (!t && !(t = new_flow(g)))
		return;
	bool strange = t->ignored && !begins;
	if (strange && s && !remembered) {
		s->round  = ignored_round - 1; // while it changes
		s->pair   = g->pair;
		s->shorts = 0;
		s->round  = ignored_round;
	}
	if (strange && !may_be_short(g)) {
		count_outcome(IGNORED);
		return;
	}
	struct direction *l, *back; // as in show
	if (g->from_a) {
		l    = &t->direction[0];
		back = &t->direction[1];
		opaque(l);
		opaque(back);
	} else {
		l    = &t->direction[1];
		back = &t->direction[0];
		opaque(l);
		opaque(back);
	}
	if (matches(l, g) && splits(ctx, out, l, g)) {
		__u32 n = datagrams(g);
		follow(&l->spin, &back->spin, g->first & 0x20, n);
		add(&l->matched, g, n);
		l->last = now;
		return;
	}
	enum outcome what = show(ctx, out, length, iface, g, l, now);
	if (strange && what != REPORTED)
		what = IGNORED;
	count_outcome(what);
	if (what == LIMITED || what == RING_FULL) {
		add(&l->unreported, g, datagrams(g));
		l->last = now;
	}
}

// last_unread is when a packet that was not read was last reported.
volatile __u64 last_unread;

// odd is the stage for a packet that was not read: Go may have a few.
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

// monitor is the stage for a frame that has come in. p is NULL if parse has not
// read it.
static __always_inline void monitor(struct xdp_md *ctx, struct packet *p) {
	struct datagram g = {};
	int found         = FOUND_UDP;
	if (p)
		from_packet(p, &g);
	else
		found = scan(ctx, false, &g);
	if (found == NOT_UDP)
		return;
	if (found == UNREAD)
		report_unread(ctx, false, 0, ctx->ingress_ifindex, &g);
	else
		watch(ctx, false, 0, ctx->ingress_ifindex, &g);
}
