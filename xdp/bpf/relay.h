// The relay stage: forwards packets with a short header between the two legs of
// a session, as Go has decided. Nothing of a packet is changed before it is sure
// that it can be forwarded.
#pragma once
#include "csum.h"
#include "maps.h"
#include "parse.h"

// Time is in ticks of the kernel, of which there are 100 to 1000 in a second:
// reading a finer clock would cost a seventh of all that is done for a packet.

// HOP_AGE is for how long a next hop is not asked for again.
#define HOP_AGE 250
// TELL_EVERY is how often Go is told of a leg until it has moved the window on.
#define TELL_EVERY 1

static __always_inline bool our_port(__be16 port) {
	__u32 number = bpf_ntohs(port);
	__u32 key    = number / 64;
	__u64 *bits  = bpf_map_lookup_elem(&ports, &key);
	return bits && *bits >> (number % 64) & 1;
}

// same4 and same6 compare an endpoint with what a packet says.
static __always_inline bool same4(struct endpoint *e, __be32 addr, __be16 port) {
	return e->addr[3] == addr && e->port == port && e->family == AF_INET;
}

static __always_inline bool same6(struct endpoint *e, __be32 *addr, __be16 port) {
	return e->addr[0] == addr[0] && e->addr[1] == addr[1] && e->addr[2] == addr[2] && e->addr[3] == addr[3] &&
	       e->port == port && e->family == AF_INET6;
}

// find_hop asks the routing table where packets to a leg go next. Only a clear
// answer by one of our interfaces counts.
static __always_inline bool find_hop(struct xdp_md *ctx, struct way *w, __u8 tos, __u16 len, __u32 now) {
	struct bpf_fib_lookup fib = {
		.family      = w->to.family,
		.l4_protocol = IPPROTO_UDP,
		.sport       = w->via.port,
		.dport       = w->to.port,
		.tot_len     = len,
		.ifindex     = ctx->ingress_ifindex,
	};
	if (w->to.family == AF_INET) {
		fib.tos    = tos;
		fib.src[0] = w->via.addr[3];
		fib.dst[0] = w->to.addr[3];
	} else {
		__builtin_memcpy(fib.src, w->via.addr, sizeof(fib.src));
		__builtin_memcpy(fib.dst, w->to.addr, sizeof(fib.dst));
	}
	if (bpf_fib_lookup(ctx, &fib, sizeof(fib), 0) != BPF_FIB_LKUP_RET_SUCCESS)
		return false;
	__u32 out = fib.ifindex;
	if (!bpf_map_lookup_elem(&devices, &out))
		return false;
	w->hop_age = 0; // while it changes
	__builtin_memcpy(w->dmac, fib.dmac, sizeof(w->dmac));
	__builtin_memcpy(w->smac, fib.smac, sizeof(w->smac));
	w->out       = out;
	w->hop_epoch = epoch;
	w->hop_age   = now;
	return true;
}

// tell tells Go that a leg has turned to a new ID, so that the window slides.
static __always_inline void tell(struct way *w, struct route *r, __u32 now) {
	if (now - w->told < TELL_EVERY)
		return;
	w->told        = now;
	struct event e = {
		.session = r->session & ~(1U << ROUTE_LEG),
		.leg     = r->session >> ROUTE_LEG,
		.counter = r->counter,
	};
	if (bpf_ringbuf_output(&events, &e, sizeof(e), 0))
		count(EVENT_LOST);
}

// rewrite4 makes a packet one to the leg.
static __always_inline void rewrite4(struct packet *p, struct way *w) {
	struct iphdr *ip   = p->ip4;
	struct udphdr *udp = p->udp;
	__be32 src = w->via.addr[3], dst = w->to.addr[3];
	__u64 addrs = csum_change(csum_change(0, ip->src, src), ip->dst, dst);

	// The TTL is the first byte of its word.
	__u16 old = *(__u16 *)&ip->ttl;
	ip->ttl--;
	__u64 sum = csum_change((__u16)~ip->check + addrs, old, *(__u16 *)&ip->ttl);
	ip->check = csum_fold(sum);
	if (udp->check) {
		sum        = csum_change((__u16)~udp->check + addrs, udp->src, w->via.port);
		sum        = csum_change(sum, udp->dst, w->to.port);
		__u16 made = csum_fold(sum);
		udp->check = made ? made : 0xffff;
	}
	ip->src = src;
	ip->dst = dst;
}

// rewrite6 is rewrite4 for IPv6, whose header has no checksum.
static __always_inline void rewrite6(struct packet *p, struct way *w) {
	struct ip6hdr *ip  = p->ip6;
	struct udphdr *udp = p->udp;
	__u64 sum          = (__u16)~udp->check;
	for (int i = 0; i < 4; i++) {
		sum = csum_change(sum, ip->src[i], w->via.addr[i]);
		sum = csum_change(sum, ip->dst[i], w->to.addr[i]);
	}
	sum        = csum_change(sum, udp->src, w->via.port);
	sum        = csum_change(sum, udp->dst, w->to.port);
	__u16 made = csum_fold(sum);
	udp->check = made ? made : 0xffff;
	ip->hop_limit--;
	__builtin_memcpy(ip->src, w->via.addr, sizeof(ip->src));
	__builtin_memcpy(ip->dst, w->to.addr, sizeof(ip->dst));
}

// judge finds the way of a packet, or says why it is passed.
static __always_inline enum reason judge(struct packet *p, struct route **route, struct way **way) {
	if (p->payload + 1 + ID_LEN > (__u8 *)p->end || bpf_ntohs(p->udp->len) < sizeof(*p->udp) + 1 + ID_LEN)
		return PASS_SHORT;
	if (p->payload[0] & 0x80)
		return PASS_LONG;
	if (p->payload[1] & 0x80)
		return PASS_CONTROL;
	struct id id;
	__builtin_memcpy(&id, p->payload + 1, sizeof(id));
	struct route *r = bpf_map_lookup_elem(&routes, &id);
	if (!r)
		return PASS_UNKNOWN;
	__u32 index       = r->session & ~(1U << ROUTE_LEG);
	struct session *s = bpf_map_lookup_elem(&sessions, &index);
	if (!s)
		return PASS_UNKNOWN;
	struct way *w = &s->to[r->session >> ROUTE_LEG];
	if (!p->v6) {
		if (!same4(&w->from, p->ip4->src, p->udp->src) || !same4(&w->at, p->ip4->dst, p->udp->dst))
			return PASS_SOURCE;
		if (w->to.family != AF_INET)
			return PASS_MIXED;
		if (p->ip4->ttl <= 1)
			return PASS_TTL;
	} else {
		if (!same6(&w->from, p->ip6->src, p->udp->src) || !same6(&w->at, p->ip6->dst, p->udp->dst))
			return PASS_SOURCE;
		if (w->to.family != AF_INET6 || !p->udp->check)
			return PASS_MIXED;
		if (p->ip6->hop_limit <= 1)
			return PASS_TTL;
	}
	*route = r;
	*way   = w;
	return RELAYED;
}

// relay is the stage.
static __always_inline int relay(struct xdp_md *ctx, struct packet *p) {
	if (!our_port(p->udp->dst)) {
		count(PASS_OTHER);
		return NEXT;
	}
	struct route *r = NULL;
	struct way *w   = NULL;
	enum reason why = judge(p, &r, &w);
	if (why != RELAYED || !r || !w) {
		count(why);
		return NEXT;
	}
	__u32 now = bpf_jiffies64();
	if (!w->hop_age || now - w->hop_age > HOP_AGE || w->hop_epoch != epoch) {
		__u8 tos  = p->v6 ? 0 : p->ip4->tos;
		__u16 len = p->v6 ? bpf_ntohs(p->ip6->payload_len) + sizeof(*p->ip6) : bpf_ntohs(p->ip4->tot_len);
		if (!find_hop(ctx, w, tos, len, now)) {
			count(PASS_NO_ROUTE);
			return NEXT;
		}
	}
	if ((__s32)(r->counter - w->due) >= 0)
		tell(w, r, now);
	__sync_fetch_and_add(&w->packets, 1);
	__sync_fetch_and_add(&w->bytes, bpf_ntohs(p->udp->len) - sizeof(*p->udp));
	count(RELAYED);

	if (p->v6)
		rewrite6(p, w);
	else
		rewrite4(p, w);
	p->udp->src = w->via.port;
	p->udp->dst = w->to.port;
	__builtin_memcpy(p->eth->dst, w->dmac, sizeof(w->dmac));
	__builtin_memcpy(p->eth->src, w->smac, sizeof(w->smac));
	if (w->out == ctx->ingress_ifindex)
		return XDP_TX;
	return bpf_redirect_map(&devices, w->out, XDP_DROP);
}
