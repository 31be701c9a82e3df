// The monitor stage: counts the packets of flows that Go knows, and tells Go of
// those that it has to see. It passes everything.
#pragma once
#include "clock.h"
#include "glimpse.h"
#include "spin.h"

// How often Go is told of one direction of a flow: so many packets at once, and
// one each REST nanoseconds in the long run.
#define TELL_BURST 64
#define TELL_REST 50000000ULL
// MAX_WHOLE is how many long headers of a direction Go is given whole, until it
// has said that it wants more.
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
// that means something to Go whatever is known of the flow.
static __always_inline bool may_begin(struct glimpse *g) {
	if (!(g->first & 0x80)) // there the version is behind an ID (monitor/negotiation.go)
		return (g->first & 0xcb) == 0x09 && ntohl(g->id[2]) >> 24 == 'Q';
	__u32 v = ntohl(g->id[0]); // the version is in the place of an ID
	return v <= 1 || v == 0x6b3343cf || v == 0x709a50c4 || v >> 24 == 0xff || v >> 12 == 0xfaceb ||
	       v >> 24 == 'P' || v >> 24 == 'Q' || v >> 24 == 'T' || g->length >= MIN_UNKNOWN;
}

// may_be_short says whether a datagram of a flow that is ruled out may be of a
// connection that has come there, which its ID would show.
static __always_inline bool may_be_short(struct glimpse *g) {
	return (g->first & 0xc0) == 0x40 && g->length >= MIN_SHORT;
}

// skips says whether a datagram of a flow that is remembered to be ruled out needs
// no look at the flow. One in four of another protocol has the bits of a short
// header: after a few of those only some are looked at.
static __always_inline bool skips(struct stranger *s, struct glimpse *g) {
	if (!may_be_short(g))
		return true;
	__u32 n = s->shorts++;
	return n >= TELL_BURST && n % 64;
}

static __always_inline __u32 place_of(struct pair *p) {
	__u64 a = (__u64)(p->a[0] ^ p->a[2]) << 32 | (p->a[1] ^ p->a[3]);
	__u64 b = (__u64)(p->b[0] ^ p->b[2]) << 32 | (p->b[1] ^ p->b[3]);
	__u64 h = (a ^ (__u64)p->a_port << 48) * 0x9e3779b97f4a7c15ULL;
	h       = (h ^ b ^ (__u64)p->b_port << 48 ^ h >> 32) * 0x9e3779b97f4a7c15ULL;
	return h >> (64 - STRANGER_BITS);
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

static __always_inline bool same_id(struct lane *l, __u32 *id) { return same(l->id, id, l->mask); }

// matches says whether a packet is one that Go need not see.
static __always_inline bool matches(struct lane *l, struct glimpse *g) {
	if (g->first & 0x80 || l->taught == UNTAUGHT)
		return false;
	if (l->taught == ANY_SHORT)
		return true;
	if (g->length < (__u32)l->id_len + MIN_SHORT)
		return false;
	if (!l->id_len && !(g->first & 0x40))
		return false;
	return same_id(l, g->id);
}

// splits says whether it is known what datagrams a long packet is made of: those
// that one of the size before would be.
static __always_inline bool splits(void *ctx, bool out, struct lane *l, struct glimpse *g) {
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
static __always_inline __u32 datagrams(struct glimpse *g) {
	if (g->segment && g->segment < g->length)
		return (g->length + g->segment - 1) / g->segment;
	return 1;
}

// add counts a packet that Go is not told of.
static __always_inline void add(struct tally *t, struct glimpse *g, __u32 n) {
	__sync_fetch_and_add(&t->packets, n);
	__sync_fetch_and_add(&t->bytes, g->length);
}

// may_tell says whether Go has not been told of too much: of burst at once.
static __always_inline bool may_tell(__u64 *rest, __u64 now, __u64 burst) {
	__u64 at = *rest > now ? *rest : now;
	if (at - now > burst * TELL_REST)
		return false;
	*rest = at + TELL_REST;
	return true;
}

// was_told says whether Go has been told of two packets with this ID, which it
// takes to know it, and of none with another one since. How long IDs are is Go's to
// say: before that nothing is known to be one.
static __always_inline bool was_told(struct lane *l, struct glimpse *g) {
	return l->id_len && l->alike >= 2 && same(l->told, g->id, l->mask);
}

// note_told notes which ID Go has been told of.
static __always_inline void note_told(struct lane *l, struct glimpse *g) {
	if (l->id_len && l->alike && same(l->told, g->id, l->mask)) {
		l->alike++;
		return;
	}
	l->alike = 1;
	for (int i = 0; i < ID_WORDS; i++)
		l->told[i] = g->id[i];
}

// fill makes a sample of a frame of which at most room bytes are wanted. length is
// that of one which leaves.
static __always_inline bool fill(void *ctx, bool out, __u32 length, __u32 iface, struct glimpse *g, struct sample *s, __u32 room) {
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

// tell gives Go a packet, whole or what is not protected of a short header.
static __always_inline bool tell_of(void *ctx, bool out, __u32 length, __u32 iface, struct glimpse *g, bool whole) {
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

// show tells Go of a packet that is not as it has said, if that is not too much.
static __always_inline enum sight show(void *ctx, bool out, __u32 length, __u32 iface, struct glimpse *g, struct lane *l, __u64 now) {
	bool long_header = g->first & 0x80;
	bool whole       = (g->length > MAX_SINGLE && !g->segment) || g->at > MAX_AT;
	// Each way has to have constants of its own: a process without CAP_PERFMON
	// may not have them computed.
	__u64 *rest, burst = TELL_BURST;
	if (long_header) {
		rest = &l->rest[0];
		asm volatile("" : "+r"(rest));
	} else {
		rest = &l->rest[1];
		asm volatile("" : "+r"(rest));
		if (was_told(l, g))
			burst /= 2; // the rest is for IDs to come
	}
	if (!may_tell(rest, now, burst))
		return SIGHT_HELD;
	if (long_header && l->whole < MAX_WHOLE) {
		l->whole++;
		whole = true;
	}
	if (!tell_of(ctx, out, length, iface, g, whole))
		return SIGHT_LOST;
	if (!long_header)
		note_told(l, g);
	return SIGHT_TOLD;
}

// open_track makes a flow.
static __always_inline struct track *open_track(struct glimpse *g) {
	__u32 zero      = 0;
	struct track *t = bpf_map_lookup_elem(&blank, &zero);
	if (!t)
		return NULL;
	// Another CPU may be first.
	bpf_map_update_elem(&tracks, &g->pair, t, 1 /* BPF_NOEXIST */);
	t = bpf_map_lookup_elem(&tracks, &g->pair);
	if (t && !t->born)
		t->born = bpf_ktime_get_ns();
	note(t ? FLOWS_NEW : FLOWS_FULL);
	return t;
}

// watch is the stage for a packet that was read.
static __always_inline void watch(void *ctx, bool out, __u32 length, __u32 iface, struct glimpse *g) {
	__u32 place        = place_of(&g->pair);
	bool means         = may_begin(g);
	struct stranger *s = bpf_map_lookup_elem(&strangers, &place);
	bool remembered    = s && s->round == strangers_round && same_pair(&s->pair, &g->pair);
	if (!means && remembered && skips(s, g)) {
		note(SIGHT_STRANGE);
		return;
	}
	__u64 now       = clock();
	struct track *t = bpf_map_lookup_elem(&tracks, &g->pair);
	if (!t && !(t = open_track(g)))
		return;
	bool strange = t->ruled_out && !means;
	if (strange && s && !remembered) {
		s->round  = strangers_round - 1; // while it changes
		s->pair   = g->pair;
		s->shorts = 0;
		s->round  = strangers_round;
	}
	if (strange && !may_be_short(g)) {
		note(SIGHT_STRANGE);
		return;
	}
	struct lane *l, *back; // as in show
	if (g->from_a) {
		l    = &t->lane[0];
		back = &t->lane[1];
		asm volatile("" : "+r"(l), "+r"(back));
	} else {
		l    = &t->lane[1];
		back = &t->lane[0];
		asm volatile("" : "+r"(l), "+r"(back));
	}
	if (matches(l, g) && splits(ctx, out, l, g)) {
		__u32 n = datagrams(g);
		follow(&l->spin, &back->spin, g->first & 0x20, n);
		add(&l->known, g, n);
		l->last = now;
		return;
	}
	enum sight what = show(ctx, out, length, iface, g, l, now);
	if (strange && what != SIGHT_TOLD)
		what = SIGHT_STRANGE;
	note(what);
	if (what == SIGHT_HELD || what == SIGHT_LOST) {
		add(&l->held, g, datagrams(g));
		l->last = now;
	}
}

// told_odd is when Go was last told of a packet that was not read.
volatile __u64 told_odd;

// odd is the stage for a packet that was not read: Go may have a few.
static __always_inline void odd(void *ctx, bool out, __u32 length, __u32 iface, struct glimpse *g) {
	__u64 now = clock();
	if (told_odd == now) {
		note(SIGHT_SKIPPED);
		return;
	}
	told_odd   = now;
	g->segment = 0;
	note(tell_of(ctx, out, length, iface, g, true) ? SIGHT_TOLD : SIGHT_SKIPPED);
}

// monitor is the stage for a frame that has come in. p is NULL if parse has not
// read it.
static __always_inline void monitor(struct xdp_md *ctx, struct packet *p) {
	struct glimpse g = {};
	int found        = LOOKED;
	if (p)
		see(p, &g);
	else
		found = look(ctx, false, &g);
	if (found == NOT_UDP)
		return;
	if (found == UNREAD)
		odd(ctx, false, 0, ctx->ingress_ifindex, &g);
	else
		watch(ctx, false, 0, ctx->ingress_ifindex, &g);
}
