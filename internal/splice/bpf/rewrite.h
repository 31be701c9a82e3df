// Turns a segment of one connection into one of the other.
#pragma once
#include "track.h"

#define SACK_FIRST 0x01010500 // NOP, NOP, and the kind of the option; its length is in the last byte
#define STAMPS_LEN 12         // of NOP, NOP and timestamps

// sums are the changes of the TCP checksum: by the addresses in the pseudo-header, and by the rest.
struct sums {
	__u64 addrs;
	__u64 rest;
};

static __always_inline __u32 csum_partial_fold(__u64 sum) {
	sum = (sum & 0xffffffff) + (sum >> 32);
	return (sum & 0xffffffff) + (sum >> 32);
}

// set_word replaces a word of the packet, and notes the change of the checksum.
static __always_inline void set_word(__u64 *sum, __be32 *at, __be32 value) {
	*sum = csum_change(*sum, *at, value);
	*at  = value;
}

static __always_inline void set_half_word(__u64 *sum, __be16 *at, __be16 value) {
	*sum = csum_change(*sum, *at, value);
	*at  = value;
}

// edit_options is what blank_options and rewrite_edges do: it replaces, or adds to, the words of the
// TCP options that begin at an offset in the frame. It returns the change of the checksum. These are
// global functions, which the verifier checks once and not for each way that leads to them.
static __always_inline __u32 edit_options(struct __sk_buff *skb, __u32 at, __u32 words, __u32 add, bool blank) {
	__u64 sum = 0;
	if (at > sizeof(struct ethhdr) + sizeof(struct ip6hdr) + MAX_TCP_HEADER)
		return 0;
	__be32 *o = (void *)(long)skb->data + at;
	for (int i = 0; i < (MAX_TCP_HEADER - (int)sizeof(struct tcphdr)) / 4; i++) {
		if (i >= (int)words || (void *)(o + i + 1) > (void *)(long)skb->data_end)
			break;
		set_word(&sum, o + i, blank ? 0x01010101 : bpf_htonl(ntohl(o[i]) + add));
	}
	return csum_partial_fold(sum);
}

// blank_options replaces options with NOPs. Options that the program cannot translate must not
// reach the other end. Without them it gets at least the acknowledgement.
__attribute__((noinline)) __u32 blank_options(struct __sk_buff *skb, __u32 at, __u32 words) {
	return edit_options(skb, at, words, 0, true);
}

// rewrite_edges translates the edges of a SACK option.
__attribute__((noinline)) __u32 rewrite_edges(struct __sk_buff *skb, __u32 at, __u32 words, __u32 add) {
	return edit_options(skb, at, words, add, false);
}

// is_sack says whether a SACK option (RFC 2018, and RFC 2883 for DSACK) fills the rest of the header.
static __always_inline bool is_sack(struct packet *p, __be32 *o, __u32 rest) {
	if ((void *)(o + 1) > p->end || (o[0] & bpf_htonl(0xffffff00)) != bpf_htonl(SACK_FIRST))
		return false;
	__u32 len = ntohl(o[0]) & 0xff; // 2 bytes, and 8 for each block
	return len + 2 == rest && (len & 7) == 2 && len >= 10 && len <= 34;
}

// known_options says whether the options of a segment have one of the layouts that the stacks of
// today use for established connections: none, timestamps, SACK, or timestamps and SACK, each
// aligned with two NOPs.
static __always_inline bool known_options(struct packet *p, struct segment *s) {
	__u32 rest = p->header - sizeof(struct tcphdr);
	__be32 *o  = (void *)(p->tcp + 1);
	if (!s->stamped)
		return !rest || is_sack(p, o, rest);
	return rest == STAMPS_LEN || is_sack(p, o + 3, rest - STAMPS_LEN);
}

// rewrite_options translates options of a known layout.
static __always_inline void rewrite_options(
	struct __sk_buff *skb, struct packet *p, struct flow *f, struct segment *s, __u64 *sum) {
	__u32 at = tcp_offset(p->v6) + sizeof(struct tcphdr), rest = p->header - sizeof(struct tcphdr);
	__be32 *o = (void *)(p->tcp + 1);
	if (s->stamped && (void *)(o + 3) <= p->end) {
		set_word(sum, o + 1, bpf_htonl(ntohl(s->tsval) + f->half->ts_add));
		if (s->tsecr)
			set_word(sum, o + 2, bpf_htonl(ntohl(s->tsecr) - f->other->ts_add));
		at += STAMPS_LEN;
		rest -= STAMPS_LEN;
	}
	if (rest)
		*sum += rewrite_edges(skb, at + 4, rest / 4 - 1, -f->other->seq_add);
}

// window_of returns the window of a segment in the scale of the other leg, rounded down. In DRAIN
// it lets the other end send nothing that it has not sent yet.
static __always_inline __u16 window_of(struct flow *f, struct segment *s, enum state state) {
	__u32 bytes = s->window << f->half->in_scale;
	if (state == DRAIN && s->flags & ACK) {
		__s32 left = READ_ONCE(f->other->max_end) - (s->ack - f->other->seq_add);
		if (left < 0)
			left = 0;
		if (bytes > (__u32)left)
			bytes = left;
	}
	bytes >>= f->half->out_scale;
	return bytes > 65535 ? 65535 : bytes;
}

// rewrite_ip changes the IP header, and decrements the TTL.
static __always_inline void rewrite_ip(struct packet *p, struct half *h, __u64 *addrs) {
	bool no_ecn = h->flags & HALF_NO_ECN;
	if (p->v6) {
		struct ip6hdr *ip = p->ip6;
		for (int i = 0; i < 4; i++) {
			set_word(addrs, &ip->src[i], h->src[i]);
			set_word(addrs, &ip->dst[i], h->dst[i]);
		}
		if (no_ecn)
			ip->version_class_flow &= ~bpf_htonl(0x00300000);
		ip->hop_limit--;
		return;
	}
	struct iphdr *ip = p->ip4;
	set_word(addrs, &ip->src, h->src[3]);
	set_word(addrs, &ip->dst, h->dst[3]);
	// The checksum is over 16-bit words: the TOS field is the second byte of one, and the TTL the
	// first.
	__u64 sum   = (__u16)~ip->check + *addrs;
	__be16 *tos = (void *)ip, *ttl = (void *)&ip->ttl;
	if (no_ecn)
		set_half_word(&sum, tos, *tos & bpf_htons(0xfffc));
	set_half_word(&sum, ttl, *ttl - bpf_htons(0x0100));
	ip->check = csum_fold(sum);
}

// rewrite changes a packet but its TCP checksum, and returns in sums by what that has to change. A
// SYN only has to make an end answer, so it loses its options and keeps its window.
static __always_inline void rewrite(
	struct __sk_buff *skb, struct packet *p, struct flow *f, struct segment *s, enum state state, struct sums *sums) {
	struct half *h     = f->half;
	struct tcphdr *tcp = p->tcp;
	bool syn = s->flags & SYN, known = !syn && known_options(p, s);
	sums->addrs = sums->rest = 0;
	if (known)
		rewrite_options(skb, p, f, s, &sums->rest);
	else
		sums->rest += blank_options(skb, tcp_offset(p->v6) + sizeof(*tcp), (p->header - sizeof(*tcp)) / 4);
	if (!syn)
		set_half_word(&sums->rest, &tcp->window, bpf_htons(window_of(f, s, state)));
	if (!syn && !known) {
		count(BLANKED_OPTIONS);
		want(f, s, SEEN_OPTIONS);
	}
	rewrite_ip(p, h, &sums->addrs);
	set_half_word(&sums->rest, &tcp->src, h->sport);
	set_half_word(&sums->rest, &tcp->dst, h->dport);
	set_word(&sums->rest, &tcp->seq, bpf_htonl(s->seq + h->seq_add));
	if (s->flags & ACK)
		set_word(&sums->rest, &tcp->ack, bpf_htonl(s->ack - f->other->seq_add));
	if (h->flags & HALF_NO_ECN)
		set_half_word(&sums->rest, &tcp->offset_flags, tcp->offset_flags & bpf_htons(~(ECE | CWR | AE)));
}

// fix_checksum changes the TCP checksum. The kernel knows whether it covers the packet, or only the
// pseudo-header because the interface has to complete it. No pointer to the packet is valid
// afterwards.
static __always_inline void fix_checksum(struct __sk_buff *skb, struct sums *sums, bool v6) {
	__u32 at    = tcp_offset(v6) + __builtin_offsetof(struct tcphdr, check);
	__u32 addrs = csum_partial_fold(sums->addrs);
	if (!v6 || bpf_l4_csum_replace(skb, at, 0, addrs, BPF_F_PSEUDO_HDR | BPF_F_IPV6))
		bpf_l4_csum_replace(skb, at, 0, addrs, BPF_F_PSEUDO_HDR);
	bpf_l4_csum_replace(skb, at, 0, csum_partial_fold(sums->rest), 0);
}
