// The relay stage forwards packets with a short header between the two legs of a session. It
// changes a packet only when it is certain that the packet can be forwarded.
#pragma once
#include "csum.h"
#include "maps.h"
#include "parse.h"
#include "routes.h"

// Times are in ticks of the kernel, of which there are 100 to 1000 in a second. Reading a finer
// clock would take a seventh of the time that the stage needs for a packet.

// HOP_AGE is how long a next hop is cached, in ticks.
#define HOP_AGE 250
// REPORT_EVERY is the least number of ticks between two events of a leg.
#define REPORT_EVERY 1

// is_relay_port says whether a relay uses a UDP port.
static __always_inline bool is_relay_port(__be16 port) {
	__u32 number = ntohs(port);
	__u32 key    = number / 64;
	__u64 *bits  = bpf_map_lookup_elem(&ports, &key);
	return bits && *bits >> (number % 64) & 1;
}

// same4 and same6 say whether an endpoint has the address and port of a packet.
static __always_inline bool same4(struct endpoint *e, __be32 addr, __be16 port) {
	return e->addr[3] == addr && e->port == port && e->family == AF_INET;
}

static __always_inline bool same6(struct endpoint *e, __be32 *addr, __be16 port) {
	return e->addr[0] == addr[0] && e->addr[1] == addr[1] && e->addr[2] == addr[2] && e->addr[3] == addr[3] &&
	       e->port == port && e->family == AF_INET6;
}

// forward is a copy of the addresses and the next hop of a leg, for one packet.
struct forward {
	__be32 src[4], dst[4];
	__be16 sport, dport;
	__u32 out; // interface
	__u8 macs[12];
	__u16 version; // of the leg
};

// read_leg copies the addresses of a leg. Go may change them at the same time: the caller checks
// the version afterwards.
static __always_inline void read_leg(struct forward *fwd, struct leg *leg, bool v6) {
	if (v6) {
		__builtin_memcpy(fwd->src, leg->local.addr, sizeof(fwd->src));
		__builtin_memcpy(fwd->dst, leg->remote.addr, sizeof(fwd->dst));
	} else {
		fwd->src[3] = leg->local.addr[3];
		fwd->dst[3] = leg->remote.addr[3];
	}
	fwd->sport = leg->local.port;
	fwd->dport = leg->remote.port;
}

// cached_hop copies the next hop of a leg, and returns false if there is none that is valid.
static __always_inline bool cached_hop(struct forward *fwd, struct leg *leg, __u16 *mtu, __u32 now) {
	__u64 hop = READ_ONCE(leg->hop);
	__u32 age = hop >> 32;
	barrier();
	if (!age || now - age > HOP_AGE || leg->hop_version != (__u16)(epoch + fwd->version))
		return false;
	*mtu     = leg->hop_mtu;
	fwd->out = hop;
	__builtin_memcpy(fwd->macs, leg->macs, sizeof(fwd->macs));
	barrier();
	return READ_ONCE(leg->hop) == hop;
}

// cache_hop stores the next hop in the leg, unless another CPU is doing so.
static __always_inline void cache_hop(struct forward *fwd, struct leg *leg, __u16 mtu, __u32 now) {
	__u64 hop = READ_ONCE(leg->hop);
	if (hop == HOP_BUSY || !now || !__sync_bool_compare_and_swap(&leg->hop, hop, HOP_BUSY))
		return;
	leg->hop_mtu     = mtu;
	leg->hop_version = epoch + fwd->version;
	__builtin_memcpy(leg->macs, fwd->macs, sizeof(leg->macs));
	__sync_lock_test_and_set(&leg->hop, (__u64)now << 32 | fwd->out);
}

// lookup_hop looks up the next hop in the kernel's routing table. It returns false if the kernel
// would not forward the packet, or knows no neighbor, or if the interface is not in devices.
static __always_inline bool lookup_hop(struct xdp_md *ctx, struct forward *fwd, struct leg *leg, bool v6, __u8 tos, __u16 len, __u32 now) {
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
	if (bpf_fib_lookup(ctx, &fib, sizeof(fib), 0) != BPF_FIB_LKUP_RET_SUCCESS)
		return false;
	__u32 out = fib.ifindex;
	if (!bpf_map_lookup_elem(&devices, &out))
		return false;
	fwd->out = out;
	__builtin_memcpy(fwd->macs, fib.dmac, sizeof(fib.dmac));
	__builtin_memcpy(fwd->macs + sizeof(fib.dmac), fib.smac, sizeof(fib.smac));
	cache_hop(fwd, leg, fib.mtu, now);
	return true;
}

// is_due says whether an ID is to be reported to Go: the low bits of its counter are those of due, or
// of one of the next counters, up to half of all there are.
static __always_inline bool is_due(route r, __u32 due) {
	return (r - due) % ROUTE_COUNTERS < ROUTE_COUNTERS / 2;
}

// report_id reports to Go that packets to a leg carry an ID that is due. Go then advances the window
// of IDs.
static __always_inline void report_id(struct leg *leg, route r, __u32 due, __u32 now) {
	if ((__u16)(now - leg->reported) < REPORT_EVERY)
		return;
	leg->reported  = now;
	struct event e = {
	    .session = route_session(r),
	    .leg     = route_leg(r),
	    .counter = due + (r - due) % ROUTE_COUNTERS,
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
static __always_inline enum reason find_leg(struct packet *p, route *r, struct leg **found_leg, __u16 *version) {
	if (p->payload + 1 + ID_LEN > (__u8 *)p->end || ntohs(p->udp->len) < sizeof(*p->udp) + 1 + ID_LEN)
		return PASS_SHORT;
	if (p->payload[0] & 0x80)
		return PASS_LONG;
	if (p->payload[1] & 0x80)
		return PASS_CONTROL;
	if (!find_route(p->payload + 1, r))
		return PASS_UNKNOWN;
	__u32 index       = route_session(*r);
	struct session *s = bpf_map_lookup_elem(&sessions, &index);
	if (!s)
		return PASS_UNKNOWN;
	struct leg *leg = &s->legs[route_leg(*r)];
	*version        = READ_ONCE(leg->version);
	barrier();
	if (*version & 1)
		return PASS_SOURCE;
	if (!p->v6) {
		if (!same4(&leg->sender, p->ip4->src, p->udp->src) || !same4(&leg->sender_local, p->ip4->dst, p->udp->dst))
			return PASS_SOURCE;
		if (leg->remote.family != AF_INET)
			return PASS_MIXED;
		if (p->ip4->ttl <= 1)
			return PASS_TTL;
	} else {
		if (!same6(&leg->sender, p->ip6->src, p->udp->src) || !same6(&leg->sender_local, p->ip6->dst, p->udp->dst))
			return PASS_SOURCE;
		if (leg->remote.family != AF_INET6 || !p->udp->check)
			return PASS_MIXED;
		if (p->ip6->hop_limit <= 1)
			return PASS_TTL;
	}
	*found_leg = leg;
	return RELAYED;
}

// find_next_hop finds the addresses and the next hop for a packet. It returns RELAYED, or why the
// packet is passed.
static __always_inline enum reason find_next_hop(struct xdp_md *ctx, struct packet *p, struct forward *fwd, struct leg *leg, __u32 now) {
	__u8 tos  = p->v6 ? 0 : p->ip4->tos;
	__u16 len = p->v6 ? ntohs(p->ip6->payload_len) + sizeof(*p->ip6) : ntohs(p->ip4->tot_len);
	__u16 mtu = 0;
	read_leg(fwd, leg, p->v6);
	if (cached_hop(fwd, leg, &mtu, now)) {
		if (len > mtu)
			return PASS_NO_ROUTE;
	} else if (!lookup_hop(ctx, fwd, leg, p->v6, tos, len, now)) {
		return PASS_NO_ROUTE;
	}
	barrier();
	return READ_ONCE(leg->version) == fwd->version ? RELAYED : PASS_SOURCE;
}

// relay runs the stage on a packet.
static __always_inline int relay(struct xdp_md *ctx, struct packet *p) {
	if (!is_relay_port(p->udp->dst)) {
		count(PASS_OTHER);
		return NEXT;
	}
	route r         = 0;
	struct leg *leg = NULL;
	struct forward fwd;
	enum reason why = find_leg(p, &r, &leg, &fwd.version);
	if (why != RELAYED || !leg) {
		count(why);
		return NEXT;
	}
	__u32 now = bpf_jiffies64();
	why       = find_next_hop(ctx, p, &fwd, leg, now);
	if (why != RELAYED) {
		count(why);
		return NEXT;
	}
	__u32 due = READ_ONCE(leg->due);
	if (is_due(r, due))
		report_id(leg, r, due, now);
	__sync_fetch_and_add(&leg->packets, 1);
	__sync_fetch_and_add(&leg->bytes, ntohs(p->udp->len) - sizeof(*p->udp));
	count(RELAYED);

	if (p->v6)
		rewrite6(p, &fwd);
	else
		rewrite4(p, &fwd);
	p->udp->src = fwd.sport;
	p->udp->dst = fwd.dport;
	__builtin_memcpy(p->eth, fwd.macs, sizeof(fwd.macs));
	if (fwd.out == ctx->ingress_ifindex)
		return XDP_TX;
	return bpf_redirect_map(&devices, fwd.out, XDP_DROP);
}
