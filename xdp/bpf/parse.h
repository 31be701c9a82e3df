// Reads a frame as far as the first bytes of a UDP payload.
#pragma once
#include "types.h"

// packet is a view of a frame. One of ip4 and ip6 is of use, as v6 says, which is
// known when the program is compiled: each family has code of its own.
struct packet {
	bool v6;
	void *end;
	struct ethhdr *eth;
	struct iphdr *ip4;
	struct ip6hdr *ip6;
	struct udphdr *udp;
	__u8 *payload;
};

#define IP_MF_OR_OFFSET 0x3fff

// guarded says that the process may not do arithmetic with pointers, as without
// CAP_PERFMON. The other way to the same needs Linux 5.18.
volatile const bool guarded = false;

// fits says whether all of a datagram is in the frame.
static __always_inline bool fits(struct xdp_md *ctx, struct udphdr *udp, __u16 len, bool v6) {
	if (guarded)
		return sizeof(struct ethhdr) + (v6 ? sizeof(struct ip6hdr) : sizeof(struct iphdr)) + len <= bpf_xdp_get_buff_len(ctx);
	return (void *)udp + len <= (void *)(long)ctx->data_end;
}

// parse returns false for whatever is not plain UDP over plain IP: options,
// extension headers, fragments, and lengths that contradict each other are for
// the kernel's own stack to judge.
static __always_inline bool parse(struct xdp_md *ctx, struct packet *p, struct ethhdr *eth, void *end, bool v6) {
	__u32 rest; // what IP says that UDP has
	p->v6  = v6;
	p->end = end;
	p->eth = eth;
	if (v6) {
		struct ip6hdr *ip = (void *)(eth + 1);
		if ((void *)(ip + 1) > end)
			return false;
		if ((ip->version_class_flow & bpf_htonl(0xf0000000)) != bpf_htonl(0x60000000) || ip->next_header != IPPROTO_UDP)
			return false;
		p->ip6 = ip;
		p->udp = (void *)(ip + 1);
		rest   = bpf_ntohs(ip->payload_len);
	} else {
		struct iphdr *ip = (void *)(eth + 1);
		if ((void *)(ip + 1) > end)
			return false;
		if (ip->version_ihl != 0x45 || ip->protocol != IPPROTO_UDP || ip->frag_off & bpf_htons(IP_MF_OR_OFFSET))
			return false;
		p->ip4 = ip;
		p->udp = (void *)(ip + 1);
		rest   = bpf_ntohs(ip->tot_len) - sizeof(*ip);
	}
	if ((void *)(p->udp + 1) > end)
		return false;
	// The whole datagram has to be there, and to fill its IP packet.
	__u16 len = bpf_ntohs(p->udp->len);
	if (len != rest || !fits(ctx, p->udp, len, v6))
		return false;
	p->payload = (void *)(p->udp + 1);
	return true;
}
