// The relay stage forwards packets with a short header between the two legs of a session. It
// changes a packet only when it is certain that the packet can be forwarded.
#pragma once
#include "common.h"
#include "csum.h"
#include "hints.h"
#include "hops.h"
#include "legs.h"
#include "maps.h"
#include "parse.h"
#include "routes.h"

// Times are in ticks of the kernel, of which there are 100 to 1000 in a second. Reading a finer
// clock would take a seventh of the time that the stage needs for a packet.

// REPORT_EVERY is the least number of ticks between two events of a leg.
#define REPORT_EVERY 1

// is_relay_port says whether a relay uses a UDP port.
static __always_inline bool is_relay_port(__be16 port) {
	__u32 number = ntohs(port);
	__u32 key    = number / 64;
	__u64 *bits  = bpf_map_lookup_elem(&ports, &key);
	return bits && *bits >> (number % 64) & 1;
}

// forward is what the program has read of a leg, for one packet.
struct forward {
	__be32 src[4], dst[4];
	__be16 sport, dport;
	__u64 state; // of the leg
	struct next_hop hop;
	struct hop *cached; // where hop was read; NULL: it was looked up
	__u64 tenant;       // of cached
};

// read_leg copies the addresses of a leg, and returns RELAYED, or why the packet is passed. Go may
// change them at the same time: the caller checks that with unchanged.
static __always_inline enum reason read_leg(struct packet *p, struct common *c, struct forward *fwd, struct leg *leg) {
	fwd->state = READ_ONCE(leg->state);
	read_fence();
	struct local *at = &c->local[leg_at(fwd->state)], *via = &c->local[leg_via(fwd->state)];
	if (leg_version(fwd->state) & 1)
		return PASS_SOURCE;
	if (!p->v6) {
		if (!same4(leg->from, leg->from_port, p->ip4->src, p->udp->src) ||
		    !same4(at->addr, at->port, p->ip4->dst, p->udp->dst) || at->family != AF_INET)
			return PASS_SOURCE;
		if (via->family != AF_INET)
			return PASS_MIXED;
		if (p->ip4->ttl <= 1)
			return PASS_TTL;
		fwd->src[3] = via->addr[3];
		fwd->dst[3] = leg->to[3];
	} else {
		if (!same6(leg->from, leg->from_port, p->ip6->src, p->udp->src) ||
		    !same6(at->addr, at->port, p->ip6->dst, p->udp->dst) || at->family != AF_INET6)
			return PASS_SOURCE;
		if (via->family != AF_INET6 || !p->udp->check)
			return PASS_MIXED;
		if (p->ip6->hop_limit <= 1)
			return PASS_TTL;
		__builtin_memcpy(fwd->src, via->addr, sizeof(fwd->src));
		__builtin_memcpy(fwd->dst, leg->to, sizeof(fwd->dst));
	}
	fwd->sport = via->port;
	fwd->dport = leg->to_port;
	return RELAYED;
}

// unchanged says whether all that was read of a leg, and of its next hop, belongs together.
static __always_inline bool unchanged(struct forward *fwd, struct leg *leg) {
	read_fence();
	return leg_version(READ_ONCE(leg->state)) == leg_version(fwd->state) &&
	       (!fwd->cached || READ_ONCE(fwd->cached->tenant) == fwd->tenant);
}

// cached_hop copies the next hop of a leg, and returns false if there is none that is valid.
static __always_inline bool cached_hop(struct common *c, struct forward *fwd, __u32 now) {
	__u16 ref = leg_hop(fwd->state), age = now / HOP_UNIT - leg_asked(fwd->state);
	if (!ref || age > HOP_AGE)
		return false;
	struct hop *hop = &c->hop[ref % HOPS];
	__u64 tenant = READ_ONCE(hop->tenant);
	if (!(__u32)tenant || hop_ref(ref % HOPS, tenant) != ref)
		return false;
	read_fence();
	read_hop(&fwd->hop, hop, tenant);
	fwd->cached = hop;
	fwd->tenant = tenant;
	return fwd->hop.epoch == epoch;
}

// cache_hop makes the leg refer to the next hop, unless the leg has changed since it was read.
static __always_inline void cache_hop(struct common *c, struct forward *fwd, struct leg *leg, __u32 now) {
	__u64 ref = keep_hop(c, &fwd->hop, now);
	if (!ref)
		return;
	__u64 rest = fwd->state & ((1ULL << LEG_HOP_SHIFT) - 1);
	__u64 unit = now / HOP_UNIT;
	__sync_bool_compare_and_swap(&leg->state, fwd->state, unit << LEG_ASKED_SHIFT | ref << LEG_HOP_SHIFT | rest);
}

// lookup_hop looks up the next hop in the kernel's routing table. It returns false if the kernel
// would not forward the packet, or knows no neighbor, or if the interface is not in devices.
static __always_inline bool lookup_hop(struct xdp_md *ctx, struct forward *fwd, bool v6, __u8 tos, __u16 len) {
	struct bpf_fib_lookup fib = {
	    .family      = v6 ? AF_INET6 : AF_INET,
	    .l4_protocol = IPPROTO_UDP,
	    .sport       = fwd->sport,
	    .dport       = fwd->dport,
	    .tot_len     = len,
	    .ifindex     = ctx->ingress_ifindex,
	};
	if (v6) {
		__builtin_memcpy(fib.src, fwd->src, sizeof(fib.src));
		__builtin_memcpy(fib.dst, fwd->dst, sizeof(fib.dst));
	} else {
		fib.tos    = tos;
		fib.src[0] = fwd->src[3];
		fib.dst[0] = fwd->dst[3];
	}
	fwd->cached    = NULL;
	fwd->hop.epoch = epoch; // before the look-up, and before devices is read
	read_fence();
	if (bpf_fib_lookup(ctx, &fib, sizeof(fib), 0) != BPF_FIB_LKUP_RET_SUCCESS)
		return false;
	__u32 out = fib.ifindex;
	if (!bpf_map_lookup_elem(&devices, &out))
		return false;
	fwd->hop.out = out;
	fwd->hop.mtu = fib.mtu;
	__builtin_memcpy(fwd->hop.macs, fib.dmac, sizeof(fib.dmac));
	__builtin_memcpy((__u8 *)fwd->hop.macs + sizeof(fib.dmac), fib.smac, sizeof(fib.smac));
	return true;
}

// is_due says whether an ID is to be reported to Go: the low bits of its counter are those of due, or
// of one of the next counters, up to half of all there are.
static __always_inline bool is_due(route r, __u16 due) {
	return (r - due) % ROUTE_COUNTERS < ROUTE_COUNTERS / 2;
}

// report_id reports to Go that packets to a leg carry an ID that is due. Go then advances the window
// of IDs.
static __always_inline void report_id(struct leg *leg, route r, __u16 due, __u16 version, __u32 now) {
	if ((__u16)(now - leg->told) < REPORT_EVERY)
		return;
	leg->told      = now;
	struct event e = {
	    .session = route_session(r),
	    .leg     = route_leg(r),
	    .counter = (__u16)(due + (r - due) % ROUTE_COUNTERS),
	    .version = version,
	};
	if (bpf_ringbuf_output(&events, &e, sizeof(e), 0))
		count(EVENT_LOST);
}

// rewrite4 sets the addresses of a packet, decrements the TTL, and updates the checksums. The
// caller sets the ports.
static __always_inline void rewrite4(struct packet *p, struct forward *fwd) {
	struct iphdr *ip   = p->ip4;
	struct udphdr *udp = p->udp;
	__be32 src = fwd->src[3], dst = fwd->dst[3];
	__u64 addrs = csum_change(csum_change(0, ip->src, src), ip->dst, dst);

	// The checksum is over 16-bit words: the TTL is the first byte of one.
	__u16 old = *(__u16 *)&ip->ttl;
	ip->ttl--;
	__u64 sum = csum_change((__u16)~ip->check + addrs, old, *(__u16 *)&ip->ttl);
	ip->check = csum_fold(sum);
	if (udp->check) {
		sum        = csum_change((__u16)~udp->check + addrs, udp->src, fwd->sport);
		sum        = csum_change(sum, udp->dst, fwd->dport);
		__u16 made = csum_fold(sum);
		udp->check = made ? made : 0xffff;
	}
	ip->src = src;
	ip->dst = dst;
}

// rewrite6 is rewrite4 for IPv6, whose header has no checksum.
static __always_inline void rewrite6(struct packet *p, struct forward *fwd) {
	struct ip6hdr *ip  = p->ip6;
	struct udphdr *udp = p->udp;
	__u64 sum          = (__u16)~udp->check;
	for (int i = 0; i < 4; i++) {
		sum = csum_change(sum, ip->src[i], fwd->src[i]);
		sum = csum_change(sum, ip->dst[i], fwd->dst[i]);
	}
	sum        = csum_change(sum, udp->src, fwd->sport);
	sum        = csum_change(sum, udp->dst, fwd->dport);
	__u16 made = csum_fold(sum);
	udp->check = made ? made : 0xffff;
	ip->hop_limit--;
	__builtin_memcpy(ip->src, fwd->src, sizeof(ip->src));
	__builtin_memcpy(ip->dst, fwd->dst, sizeof(ip->dst));
}

// find_leg finds the leg that a packet goes to. It returns RELAYED, or why the packet is passed.
static __always_inline enum reason find_leg(struct packet *p, __u32 *hint, route *r, struct leg **leg) {
	if (p->payload + 1 + ID_LEN > (__u8 *)p->end || ntohs(p->udp->len) < sizeof(*p->udp) + 1 + ID_LEN)
		return PASS_SHORT;
	if (p->payload[0] & 0x80)
		return PASS_LONG;
	if (p->payload[1] & 0x80)
		return PASS_CONTROL;
	read_ahead(hint);
	if (!find_route(p->payload + 1, r))
		return PASS_UNKNOWN;
	__u32 index = leg_index(*r);
	*leg        = bpf_map_lookup_elem(&legs, &index);
	if (!*leg)
		return PASS_UNKNOWN;
	return RELAYED;
}

// find_next_hop finds the next hop for a packet. It returns RELAYED, or why the packet is passed.
static __always_inline enum reason find_next_hop(struct xdp_md *ctx, struct packet *p, struct common *c, struct forward *fwd, struct leg *leg, __u32 now) {
	__u8 tos  = p->v6 ? 0 : p->ip4->tos;
	__u16 len = p->v6 ? ntohs(p->ip6->payload_len) + sizeof(*p->ip6) : ntohs(p->ip4->tot_len);
	if (cached_hop(c, fwd, now)) {
		if (len > fwd->hop.mtu)
			return PASS_NO_ROUTE;
	} else {
		if (!lookup_hop(ctx, fwd, p->v6, tos, len))
			return PASS_NO_ROUTE;
		cache_hop(c, fwd, leg, now);
	}
	return unchanged(fwd, leg) ? RELAYED : PASS_SOURCE;
}

// relay runs the stage on a packet.
static __always_inline int relay(struct xdp_md *ctx, struct packet *p) {
	if (!is_relay_port(p->udp->dst)) {
		count(PASS_OTHER);
		return NEXT;
	}
	struct common *c = get_common();
	__u32 *hint      = find_hint(p);
	if (!c || (!hint && !no_perfmon)) { // never: the verifier does not know that
		count(PASS_UNKNOWN);
		return NEXT;
	}
	route r         = 0;
	struct leg *leg = NULL;
	struct forward fwd;
	enum reason why = find_leg(p, hint, &r, &leg);
	if (why != RELAYED || !leg) {
		count(why);
		return NEXT;
	}
	why = read_leg(p, c, &fwd, leg);
	if (why != RELAYED) {
		count(why);
		return NEXT;
	}
	__u32 now = bpf_jiffies64();
	why       = find_next_hop(ctx, p, c, &fwd, leg, now);
	if (why != RELAYED) {
		count(why);
		return NEXT;
	}
	__u16 due = READ_ONCE(leg->due);
	if (is_due(r, due))
		report_id(leg, r, due, leg_version(fwd.state), now);
	__sync_fetch_and_add(&leg->packets, 1);
	__sync_fetch_and_add(&leg->bytes, ntohs(p->udp->len) - sizeof(*p->udp));
	set_hint(hint, leg_index(r));
	count(RELAYED);

	if (p->v6)
		rewrite6(p, &fwd);
	else
		rewrite4(p, &fwd);
	p->udp->src = fwd.sport;
	p->udp->dst = fwd.dport;
	__builtin_memcpy(p->eth, fwd.hop.macs, sizeof(fwd.hop.macs));
	if (fwd.hop.out == ctx->ingress_ifindex)
		return XDP_TX;
	return bpf_redirect_map(&devices, fwd.hop.out, XDP_DROP);
}
