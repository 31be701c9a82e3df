// Reads the headers of a frame up to the TCP options.
#pragma once
#include "skb.h"

// packet is a view of a frame. v6 says which of ip4 and ip6 is set. It is a constant at compile
// time, so each address family has code of its own.
struct packet {
	bool v6;
	void *data, *end;
	struct iphdr *ip4;
	struct ip6hdr *ip6;
	struct tcphdr *tcp;
	__u32 header; // length of the TCP header
	__u32 len;    // of the payload
};

#define IP_MF_OR_OFFSET 0x3fff
#define MAX_TCP_HEADER 60

static __always_inline __u32 ip_header(bool v6) {
	return v6 ? sizeof(struct ip6hdr) : sizeof(struct iphdr);
}

// tcp_offset is where the TCP header begins in the frame.
static __always_inline __u32 tcp_offset(bool v6) {
	return sizeof(struct ethhdr) + ip_header(v6);
}

// parse_ip returns the protocol of the IP payload and its length, or -1 if the packet has IP
// options, extension headers, is a fragment, or is not complete. rest is the length.
static __always_inline int parse_ip(struct __sk_buff *skb, struct packet *p, bool v6, __u32 *rest) {
	void *ip         = p->data + sizeof(struct ethhdr);
	__u32 frame_rest = skb->len - tcp_offset(v6), protocol, without;
	p->v6            = v6;
	if (v6) {
		p->ip6 = ip;
		if ((void *)(p->ip6 + 1) > p->end)
			return -1;
		if ((p->ip6->version_class_flow & bpf_htonl(0xf0000000)) != bpf_htonl(0x60000000))
			return -1;
		protocol = p->ip6->next_header;
		*rest    = ntohs(p->ip6->payload_len);
		without  = 0;
	} else {
		p->ip4 = ip;
		if ((void *)(p->ip4 + 1) > p->end)
			return -1;
		if (p->ip4->version_ihl != 0x45 || p->ip4->frag_off & bpf_htons(IP_MF_OR_OFFSET))
			return -1;
		protocol = p->ip4->protocol;
		*rest    = ntohs(p->ip4->tot_len);
		without  = sizeof(*p->ip4); // the length is with the header
	}
	if (!*rest && skb->gso_size)
		*rest = frame_rest; // a GSO packet of 64 KiB or more has no length in its header
	else
		*rest -= without;
	if (*rest > frame_rest)
		return -1; // truncated, or a length without meaning
	return protocol;
}

// parse_tcp reads the TCP header of a packet whose payload has a length of rest. It returns false
// if the packet is malformed.
static __always_inline bool parse_tcp(struct packet *p, __u32 rest) {
	p->tcp = p->data + tcp_offset(p->v6);
	if ((void *)(p->tcp + 1) > p->end)
		return false;
	p->header = ntohs(p->tcp->offset_flags) >> 12 << 2;
	if (p->header < sizeof(*p->tcp) || p->header > rest)
		return false;
	p->len = rest - p->header;
	return true;
}

// pull makes the headers of a packet readable, if they are not.
static __always_inline void pull(struct __sk_buff *skb) {
	__u32 wanted = sizeof(struct ethhdr) + sizeof(struct ip6hdr) + MAX_TCP_HEADER;
	if ((void *)(long)skb->data + wanted <= (void *)(long)skb->data_end)
		return;
	__u32 len = skb->len;
	if (len > wanted)
		len = wanted;
	if ((void *)(long)skb->data + len > (void *)(long)skb->data_end)
		bpf_skb_pull_data(skb, len);
}
