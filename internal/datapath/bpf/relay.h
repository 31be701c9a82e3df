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
// REPORT_EVERY is the least number of ticks between two events of a leg.
#define REPORT_EVERY 1

static __always_inline bool our_port(__be16 port) {
	__u32 number = ntohs(port);
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

// forward is a consistent copy of what a packet needs on its way to the leg.
struct forward {
	__be32 src[4], dst[4];
	__be16 sport, dport;
	__u32 out;
	__u8 macs[12];
	__u16 version; // of the leg
};

// read_leg copies the addresses, before it is known whether they are of one time.
static __always_inline void read_leg(struct forward *m, struct leg *w, bool v6) {
	if (v6) {
		__builtin_memcpy(m->src, w->via.addr, sizeof(m->src));
		__builtin_memcpy(m->dst, w->to.addr, sizeof(m->dst));
	} else {
		m->src[3] = w->via.addr[3];
		m->dst[3] = w->to.addr[3];
	}
	m->sport = w->via.port;
	m->dport = w->to.port;
}

// known_hop copies the next hop, if that is known and of this time.
static __always_inline bool known_hop(struct forward *m, struct leg *w, __u16 *mtu, __u32 now) {
	__u64 hop = READ_ONCE(w->hop);
	__u32 age = hop >> 32;
	barrier();
	if (!age || now - age > HOP_AGE || w->hop_of != (__u16)(epoch + m->version))
		return false;
	*mtu   = w->hop_mtu;
	m->out = hop;
	__builtin_memcpy(m->macs, w->macs, sizeof(m->macs));
	barrier();
	return READ_ONCE(w->hop) == hop;
}

// keep_hop keeps the next hop for the packets that follow, unless another
// processor is at that.
static __always_inline void keep_hop(struct forward *m, struct leg *w, __u16 mtu, __u32 now) {
	__u64 hop = READ_ONCE(w->hop);
	if (hop == HOP_BUSY || !now || !__sync_bool_compare_and_swap(&w->hop, hop, HOP_BUSY))
		return;
	w->hop_mtu = mtu;
	w->hop_of  = epoch + m->version;
	__builtin_memcpy(w->macs, m->macs, sizeof(w->macs));
	__sync_lock_test_and_set(&w->hop, (__u64)now << 32 | m->out);
}

// find_hop asks the routing table where packets to a leg go next. Only a clear
// answer by one of our interfaces counts.
static __always_inline bool find_hop(struct xdp_md *ctx, struct forward *m, struct leg *w, bool v6, __u8 tos, __u16 len, __u32 now) {
	struct bpf_fib_lookup fib = {
	    .family      = v6 ? AF_INET6 : AF_INET,
	    .l4_protocol = IPPROTO_UDP,
	    .sport       = m->sport,
	    .dport       = m->dport,
	    .tot_len     = len,
	    .ifindex     = ctx->ingress_ifindex,
	};
	if (v6) {
		__builtin_memcpy(fib.src, m->src, sizeof(fib.src));
		__builtin_memcpy(fib.dst, m->dst, sizeof(fib.dst));
	} else {
		fib.tos    = tos;
		fib.src[0] = m->src[3];
		fib.dst[0] = m->dst[3];
	}
	if (bpf_fib_lookup(ctx, &fib, sizeof(fib), 0) != BPF_FIB_LKUP_RET_SUCCESS)
		return false;
	__u32 out = fib.ifindex;
	if (!bpf_map_lookup_elem(&devices, &out))
		return false;
	m->out = out;
	__builtin_memcpy(m->macs, fib.dmac, sizeof(fib.dmac));
	__builtin_memcpy(m->macs + sizeof(fib.dmac), fib.smac, sizeof(fib.smac));
	keep_hop(m, w, fib.mtu, now);
	return true;
}

// report_id reports a new ID of a leg to Go, which moves the window on.
static __always_inline void report_id(struct leg *w, struct route *r, __u32 now) {
	if ((__u16)(now - w->reported) < REPORT_EVERY)
		return;
	w->reported    = now;
	struct event e = {
	    .session = r->session & ~(1U << ROUTE_LEG),
	    .leg     = r->session >> ROUTE_LEG,
	    .counter = r->counter,
	};
	if (bpf_ringbuf_output(&events, &e, sizeof(e), 0))
		count(EVENT_LOST);
}

// rewrite4 makes a packet one to the leg.
static __always_inline void rewrite4(struct packet *p, struct forward *m) {
	struct iphdr *ip   = p->ip4;
	struct udphdr *udp = p->udp;
	__be32 src = m->src[3], dst = m->dst[3];
	__u64 addrs = csum_change(csum_change(0, ip->src, src), ip->dst, dst);

	// The TTL is the first byte of its word.
	__u16 old = *(__u16 *)&ip->ttl;
	ip->ttl--;
	__u64 sum = csum_change((__u16)~ip->check + addrs, old, *(__u16 *)&ip->ttl);
	ip->check = csum_fold(sum);
	if (udp->check) {
		sum        = csum_change((__u16)~udp->check + addrs, udp->src, m->sport);
		sum        = csum_change(sum, udp->dst, m->dport);
		__u16 made = csum_fold(sum);
		udp->check = made ? made : 0xffff;
	}
	ip->src = src;
	ip->dst = dst;
}

// rewrite6 is rewrite4 for IPv6, whose header has no checksum.
static __always_inline void rewrite6(struct packet *p, struct forward *m) {
	struct ip6hdr *ip  = p->ip6;
	struct udphdr *udp = p->udp;
	__u64 sum          = (__u16)~udp->check;
	for (int i = 0; i < 4; i++) {
		sum = csum_change(sum, ip->src[i], m->src[i]);
		sum = csum_change(sum, ip->dst[i], m->dst[i]);
	}
	sum        = csum_change(sum, udp->src, m->sport);
	sum        = csum_change(sum, udp->dst, m->dport);
	__u16 made = csum_fold(sum);
	udp->check = made ? made : 0xffff;
	ip->hop_limit--;
	__builtin_memcpy(ip->src, m->src, sizeof(ip->src));
	__builtin_memcpy(ip->dst, m->dst, sizeof(ip->dst));
}

// find_leg finds the leg that a packet goes to, or says why the packet is passed.
static __always_inline enum reason find_leg(struct packet *p, struct route **route, struct leg **leg, __u16 *version) {
	if (p->payload + 1 + ID_LEN > (__u8 *)p->end || ntohs(p->udp->len) < sizeof(*p->udp) + 1 + ID_LEN)
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
	struct leg *w = &s->legs[r->session >> ROUTE_LEG];
	*version      = READ_ONCE(w->version);
	barrier();
	if (*version & 1)
		return PASS_SOURCE;
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
	*leg   = w;
	return RELAYED;
}

// find_path finds addresses and next hop for a packet, or says why the packet is passed.
static __always_inline enum reason find_path(struct xdp_md *ctx, struct packet *p, struct forward *m, struct leg *w, __u32 now) {
	__u8 tos  = p->v6 ? 0 : p->ip4->tos;
	__u16 len = p->v6 ? ntohs(p->ip6->payload_len) + sizeof(*p->ip6) : ntohs(p->ip4->tot_len);
	__u16 mtu = 0;
	read_leg(m, w, p->v6);
	if (known_hop(m, w, &mtu, now)) {
		if (len > mtu)
			return PASS_NO_ROUTE;
	} else if (!find_hop(ctx, m, w, p->v6, tos, len, now)) {
		return PASS_NO_ROUTE;
	}
	barrier();
	return READ_ONCE(w->version) == m->version ? RELAYED : PASS_SOURCE;
}

// relay is the stage.
static __always_inline int relay(struct xdp_md *ctx, struct packet *p) {
	if (!our_port(p->udp->dst)) {
		count(PASS_OTHER);
		return NEXT;
	}
	struct route *r = NULL;
	struct leg *w   = NULL;
	struct forward m;
	enum reason why = find_leg(p, &r, &w, &m.version);
	if (why != RELAYED || !r || !w) {
		count(why);
		return NEXT;
	}
	__u32 now = bpf_jiffies64();
	why       = find_path(ctx, p, &m, w, now);
	if (why != RELAYED) {
		count(why);
		return NEXT;
	}
	if ((__s32)(r->counter - w->due) >= 0)
		report_id(w, r, now);
	__sync_fetch_and_add(&w->packets, 1);
	__sync_fetch_and_add(&w->bytes, ntohs(p->udp->len) - sizeof(*p->udp));
	count(RELAYED);

	if (p->v6)
		rewrite6(p, &m);
	else
		rewrite4(p, &m);
	p->udp->src = m.sport;
	p->udp->dst = m.dport;
	__builtin_memcpy(p->eth, m.macs, sizeof(m.macs));
	if (m.out == ctx->ingress_ifindex)
		return XDP_TX;
	return bpf_redirect_map(&devices, m.out, XDP_DROP);
}
