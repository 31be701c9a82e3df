// The programs that forward the packets of spliced TCP connections: one at ingress, which rewrites
// what comes from one end into what the other end expects, and one at egress, which keeps our own
// sockets from speaking meanwhile.
#include "copy.h"
#include "icmp.h"

char __license[] SEC("license") = "Dual MIT/GPL";

// too_big says whether a packet, or each segment of a GSO packet, is larger than the MTU to the
// other end.
static __always_inline bool too_big(struct __sk_buff *skb, struct packet *p, struct half *h) {
	__u32 payload = skb->gso_size;
	if (!payload || payload > p->len)
		payload = p->len;
	return ip_header(p->v6) + p->header + payload > h->mtu;
}

// congested says whether the packet has the mark Congestion Experienced (RFC 3168).
static __always_inline bool congested(struct packet *p) {
	if (p->v6)
		return (p->ip6->version_class_flow & bpf_htonl(0x00300000)) == bpf_htonl(0x00300000);
	return (p->ip4->tos & 3) == 3;
}

static __always_inline __u32 ttl_of(struct packet *p) {
	return p->v6 ? p->ip6->hop_limit : p->ip4->ttl;
}

// copy_ack makes of a packet that was forwarded the acknowledgement for our socket, and returns the
// verdict on it. The copy has numbers that the socket takes, so the program has to look at those of the
// packet.
static __always_inline int copy_ack(
	struct __sk_buff *skb, struct flow *f, struct tuple *t, struct segment *s, struct macs *macs, bool v6) {
	int verdict = TC_ACT_SHOT;
	if (believable(f, s))
		verdict = v6 ? copy_ack6(skb, t, s, macs) : copy_ack4(skb, t, s, macs);
	count(verdict == TCX_NEXT ? COPIED : NOT_COPIED);
	return verdict;
}

// send forwards a packet. In PENDING our socket gets its acknowledgement.
static __always_inline int send(struct __sk_buff *skb, struct packet *p, struct flow *f, struct tuple *t,
	struct segment *s, enum state state, bool v6) {
	struct half *h = f->half;
	struct sums sums;
	struct macs macs;
	rewrite(skb, p, f, s, state, &sums);
	if (stale(f))
		return TC_ACT_SHOT; // the packet has the addresses of two pairs
	if (state == PENDING) { // a clone leaves with the link-layer addresses that it has
		__builtin_memcpy(&macs, p->data, sizeof(macs));
		__builtin_memcpy(p->data, h->macs, sizeof(h->macs));
	}
	fix_checksum(skb, &sums, v6);
	if (state != PENDING) {
		count(s->flags & SYN ? FORWARDED_SYN : FORWARDED);
		return bpf_redirect_neigh(h->ifindex, NULL, 0, 0);
	}
	bpf_clone_redirect(skb, h->ifindex, 0);
	return copy_ack(skb, f, t, s, &macs, v6);
}

// on_syn decides about a SYN. A SYN of a new connection ends what is left of a CLOSED pair. While the
// pair is in use, the SYN comes from an end that has forgotten the connection. It is forwarded, so
// that the other end answers it, and the end resets the connection. It returns true if the SYN is
// to be forwarded. A SYN with an acknowledgement is not: it would make a new connection to the other
// end, which nobody has routed.
static __always_inline bool on_syn(struct flow *f, struct segment *s, enum state state) {
	if (state == CLOSED) {
		count(REOPENED);
		mark(f->other, SEEN_REOPENED);
		if (mark(f->half, SEEN_REOPENED))
			tell(f, RENEWED, f->direction, 0);
		return false;
	}
	if (s->flags & ACK || (state != ACTIVE && state != DRAIN)) {
		count(state == HOLD ? DROPPED_HOLD : PASSED_SYN);
		return false;
	}
	return true;
}

// has_macs says whether Go has set the link-layer addresses.
static __always_inline bool has_macs(struct half *h) {
	__u16 *dst = (void *)h->macs;
	return dst[0] | dst[1] | dst[2];
}

// decide says what happens to a packet of a flow in a state that forwards. It returns TC_ACT_OK
// to forward it.
static __always_inline int decide(
	struct __sk_buff *skb, struct packet *p, struct flow *f, struct segment *s, enum state state) {
	struct half *h = f->half;
	if (ttl_of(p) <= 1) {
		count(PASSED_TTL);
		want(f, s, SEEN_TTL);
		return TCX_NEXT;
	}
	if (too_big(skb, p, h)) {
		count(DROPPED_TOO_BIG);
		want(f, s, SEEN_TOO_BIG);
		return TC_ACT_SHOT;
	}
	if (h->flags & HALF_NO_ECN && congested(p)) {
		count(DROPPED_CE); // RFC 6040 §4.2: a mark that cannot be carried on is a loss
		return TC_ACT_SHOT;
	}
	if (state == PENDING && !has_macs(h)) {
		count(NO_NEIGHBOR);
		return TCX_NEXT;
	}
	return TC_ACT_OK;
}

static __always_inline int ingress(struct __sk_buff *skb, struct packet *p, bool v6) {
	struct tuple t = {};
	struct flow f;
	struct segment s;
	__u32 rest;
	int protocol = parse_ip(skb, p, v6, &rest);
	if (protocol == (v6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP))
		icmp(p, v6);
	if (protocol != IPPROTO_TCP || !parse_tcp(p, rest))
		return TCX_NEXT;
	tuple_of(&t, p, false);
	enum state state = find(&f, &t, v6);
	if (state == OFF || READ_ONCE(f.half->seen) & SEEN_REOPENED || stale(&f))
		return TCX_NEXT;
	read_segment(&s, p);
	if (s.flags & SYN) {
		if (!on_syn(&f, &s, state))
			return state == HOLD ? TC_ACT_SHOT : TCX_NEXT;
	} else if (state == HOLD) {
		count(DROPPED_HOLD);
		return TC_ACT_SHOT;
	}
	if (state == QUIET) {
		track(&f, &s, state);
		if (!known_options(p, &s))
			mark(f.half, SEEN_OPTIONS); // Go does not take the connection over
		count(WATCHED);
		return TCX_NEXT;
	}
	int verdict = decide(skb, p, &f, &s, state);
	if (verdict != TC_ACT_OK)
		return verdict;
	if (!(s.flags & SYN)) {
		renumber(&f, &s);
		track(&f, &s, state);
	}
	return send(skb, p, &f, &t, &s, state, v6);
}

SEC("tcx/ingress")
int splice_ingress(struct __sk_buff *skb) {
	if (!live || skb->vlan_present || skb->pkt_type != PACKET_HOST)
		return TCX_NEXT;
	pull(skb);
	struct packet p    = {.data = (void *)(long)skb->data, .end = (void *)(long)skb->data_end};
	struct ethhdr *eth = p.data;
	if ((void *)(eth + 1) > p.end)
		return TCX_NEXT;
	if (eth->proto == bpf_htons(ETH_P_IP))
		return ingress(skb, &p, false);
	if (eth->proto == bpf_htons(ETH_P_IPV6))
		return ingress(skb, &p, true);
	return TCX_NEXT;
}

// limit is how far the peer of our socket may send. In QUIET it may send nothing that it has not sent yet,
// and in PENDING what the other end has room for, which may be less than our socket has.
static __always_inline __u32 limit(struct flow *f, enum state state) {
	struct half *other = f->other;
	if (state == QUIET)
		return READ_ONCE(f->half->max_end);
	return READ_ONCE(other->max_ack) + ((__u32)READ_ONCE(other->window) << other->in_scale) - f->half->seq_add;
}

// clamp reduces the window of our socket to the limit. The window is written by a helper, because a
// program that writes packets in place makes the kernel copy the headers of all packets that are also
// waiting for their acknowledgement. clamp returns the window.
static __always_inline __u32 clamp(struct __sk_buff *skb, __be16 old, __s32 left, __u8 scale, bool v6) {
	if (left < 0)
		left = 0;
	__u32 window = (__u32)left >> scale;
	if (window >= ntohs(old))
		return ntohs(old);
	__be16 new = bpf_htons(window);
	__u32 at   = tcp_offset(v6);
	bpf_l4_csum_replace(skb, at + __builtin_offsetof(struct tcphdr, check), old, new, sizeof(new));
	bpf_skb_store_bytes(skb, at + __builtin_offsetof(struct tcphdr, window), &new, sizeof(new), 0);
	count(CLAMPED);
	return window;
}

// stamp_own makes the timestamp of a packet of our socket no older than what was forwarded to the same
// end, which would otherwise ignore the packet (RFC 7323 §5.3).
static __always_inline void stamp_own(struct __sk_buff *skb, struct packet *p, struct flow *f, bool v6) {
	__be32 *o = (void *)(p->tcp + 1);
	if (p->header < sizeof(*p->tcp) + STAMPS_LEN || (void *)(o + 3) > p->end || o[0] != STAMP)
		return;
	__u32 seen = READ_ONCE(f->other->last_ts) + READ_ONCE(f->other->ts_add);
	__be32 old = o[1], new = bpf_htonl(seen);
	if (!ahead(seen, ntohl(old)))
		return;
	__u32 at = tcp_offset(v6);
	bpf_l4_csum_replace(skb, at + __builtin_offsetof(struct tcphdr, check), old, new, sizeof(new));
	bpf_skb_store_bytes(skb, at + sizeof(struct tcphdr) + sizeof(o[0]), &new, sizeof(new), 0);
}

// watch_own handles a packet of our socket while it still speaks for the connection. How far the
// socket lets its peer send is noted as if the other end did so.
static __always_inline int watch_own(
	struct __sk_buff *skb, struct packet *p, struct flow *f, enum state state, bool v6) {
	__u32 flags = ntohs(p->tcp->offset_flags), ack = ntohl(p->tcp->ack), window;
	__be16 old = p->tcp->window;
	if (!(flags & ACK) || flags & (SYN | RST))
		return TCX_NEXT;
	if (state == PENDING)
		stamp_own(skb, p, f, v6);
	window = clamp(skb, old, limit(f, state) - ack, f->half->own_scale, v6);
	grow(&f->other->max_edge, ack + (window << f->half->own_scale) + f->half->seq_add);
	return TCX_NEXT;
}

static __always_inline int egress(struct __sk_buff *skb, struct packet *p, bool v6) {
	struct tuple t = {};
	struct flow f;
	__u32 rest;
	if (parse_ip(skb, p, v6, &rest) != IPPROTO_TCP || !parse_tcp(p, rest))
		return TCX_NEXT;
	tuple_of(&t, p, true);
	enum state state = find(&f, &t, v6);
	if (state == OFF || READ_ONCE(f.half->seen) & SEEN_REOPENED)
		return TCX_NEXT;
	if (state == QUIET || state == PENDING)
		return watch_own(skb, p, &f, state, v6);
	if (state == CLOSED && p->tcp->offset_flags & bpf_htons(SYN)) {
		struct segment s = {};
		on_syn(&f, &s, state); // our host opens a new connection
		return TCX_NEXT;
	}
	count(SILENCED);
	return TC_ACT_SHOT;
}

SEC("tcx/egress")
int splice_egress(struct __sk_buff *skb) {
	// Forwarded packets are not those of our sockets.
	if (!live || skb->ingress_ifindex || skb->vlan_present)
		return TCX_NEXT;
	pull(skb);
	struct packet p    = {.data = (void *)(long)skb->data, .end = (void *)(long)skb->data_end};
	struct ethhdr *eth = p.data;
	if ((void *)(eth + 1) > p.end)
		return TCX_NEXT;
	if (eth->proto == bpf_htons(ETH_P_IP))
		return egress(skb, &p, false);
	if (eth->proto == bpf_htons(ETH_P_IPV6))
		return egress(skb, &p, true);
	return TCX_NEXT;
}
