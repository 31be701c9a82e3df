// Reads the ICMP messages that say that a forwarded packet was too big for the path (RFC 1191,
// RFC 8201). Our sockets ignore them, because the packets are not theirs.
#pragma once
#include "table.h"
#include "track.h"

// The first bytes of the TCP header, of which an ICMP message has at least 8 bytes.
struct tcp_start {
	__be16 src;
	__be16 dst;
	__be32 seq;
};

enum { ICMP_UNREACHABLE = 3, ICMP_FRAGMENTATION_NEEDED = 4, ICMP6_PACKET_TOO_BIG = 2 };

// too_big4 reads the addresses of the packet that was too big, as the tuple of the connection on
// which it was sent. It returns the MTU, or -1 if this is another message.
static __always_inline int too_big4(struct packet *p, struct tuple *t, __u32 *seq) {
	struct icmphdr *icmp  = (void *)(p->ip4 + 1);
	struct iphdr *ip      = (void *)(icmp + 1);
	struct tcp_start *tcp = (void *)(ip + 1);
	if ((void *)(tcp + 1) > p->end || icmp->type != ICMP_UNREACHABLE || icmp->code != ICMP_FRAGMENTATION_NEEDED)
		return -1;
	if (ip->version_ihl != 0x45 || ip->protocol != IPPROTO_TCP || ip->frag_off & bpf_htons(0x1fff))
		return -1;
	t->remote[3] = ip->dst;
	t->local[3]  = ip->src;
	t->rport     = tcp->dst;
	t->lport     = tcp->src;
	*seq         = ntohl(tcp->seq);
	return ntohs(icmp->mtu);
}

// too_big6 is too_big4 for IPv6.
static __always_inline int too_big6(struct packet *p, struct tuple *t, __u32 *seq) {
	struct icmp6hdr *icmp = (void *)(p->ip6 + 1);
	struct ip6hdr *ip     = (void *)(icmp + 1);
	struct tcp_start *tcp = (void *)(ip + 1);
	if ((void *)(tcp + 1) > p->end || icmp->type != ICMP6_PACKET_TOO_BIG || icmp->code)
		return -1;
	if ((ip->version_class_flow & bpf_htonl(0xf0000000)) != bpf_htonl(0x60000000) || ip->next_header != IPPROTO_TCP)
		return -1;
	__builtin_memcpy(t->remote, ip->dst, sizeof(t->remote));
	__builtin_memcpy(t->local, ip->src, sizeof(t->local));
	t->rport  = tcp->dst;
	t->lport  = tcp->src;
	*seq      = ntohl(tcp->seq);
	__u32 mtu = ntohl(icmp->mtu);
	return mtu > 65535 ? 65535 : mtu;
}

// icmp tells Go of a message about a forwarded packet that may be on the way: RFC 5927 §4.1 asks
// for its sequence number. The network stack gets the message too.
static __always_inline void icmp(struct packet *p, bool v6) {
	struct tuple t = {};
	struct flow f;
	__u32 seq;
	int mtu = v6 ? too_big6(p, &t, &seq) : too_big4(p, &t, &seq);
	if (mtu < 0)
		return;
	// The packet was one of the opposite direction. The flow is the one of its receiver.
	enum state state = find(&f, &t, v6);
	if (state < PENDING || state > HOLD)
		return;
	__u32 sent = READ_ONCE(f.other->max_end) + f.other->seq_add;
	if (ahead(READ_ONCE(f.half->max_ack), seq) || !ahead(sent, seq))
		return;
	count(TOO_BIG_ICMP);
	if (mark(f.other, SEEN_ICMP))
		tell(&f, WANTED, !f.direction, mtu);
}
