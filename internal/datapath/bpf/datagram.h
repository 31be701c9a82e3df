// Reads what the monitor stage needs of a UDP datagram, at ingress (XDP) or at egress (TCX).
#pragma once
#include "parse.h"
#include "flows.h"

// Newer than headers/bpf_helper_defs.h: Linux 5.18.
static long (*bpf_xdp_load_bytes)(struct xdp_md *ctx, __u32 offset, void *buf, __u32 len) = (void *)189;

// datagram is a UDP datagram, or several that GRO or GSO has put together.
struct datagram {
	struct pair pair;
	__u64 hash;         // of the pair, by pair_keys
	bool from_a;        // whether endpoint a of the pair has sent it
	__u16 segment;      // size of the datagrams that GRO or GSO has put together, 0: not known
	__u32 at;           // offset of the UDP payload in the frame
	__u32 length;       // of the UDP payload
	__u8 ecn;           // ECN codepoint of the IP header
	__u8 first;         // first byte of the UDP payload
	__u32 id[ID_WORDS]; // the bytes after the first, if the payload has so many
};

// load copies bytes of a frame. It works at ingress and, with out, at egress.
static __always_inline bool load(void *ctx, bool out, __u32 at, void *to, __u32 len) {
	if (out)
		return !bpf_skb_load_bytes(ctx, at, to, len);
	return !bpf_xdp_load_bytes(ctx, at, to, len);
}

// The hash of a pair is the sum of its words, each multiplied by its key (multilinear hashing), of
// which the high bits are best. hash_ports returns what the ports add.
static __always_inline __u64 hash_ports(struct pair *p) {
	return ((__u64)p->a_port << 16 | p->b_port) * pair_keys[PAIR_WORDS - 1];
}

// pair4 and pair6 set the two endpoints, the lesser one first, and the hash.
static __always_inline void pair4(struct datagram *g, __be32 src, __be32 dst, __be16 from, __be16 to) {
	__u64 x        = (__u64)ntohl(src) << 16 | ntohs(from);
	__u64 y        = (__u64)ntohl(dst) << 16 | ntohs(to);
	g->from_a      = x <= y;
	g->pair.a[0]   = 0;
	g->pair.a[1]   = 0;
	g->pair.a[2]   = bpf_htonl(0xffff);
	g->pair.a[3]   = g->from_a ? src : dst;
	g->pair.b[0]   = 0;
	g->pair.b[1]   = 0;
	g->pair.b[2]   = bpf_htonl(0xffff);
	g->pair.b[3]   = g->from_a ? dst : src;
	g->pair.a_port = g->from_a ? from : to;
	g->pair.b_port = g->from_a ? to : from;
	g->hash        = hash_ports(&g->pair) + g->pair.a[3] * pair_keys[3] + g->pair.b[3] * pair_keys[7];
	g->hash += bpf_htonl(0xffff) * (pair_keys[2] + pair_keys[6]); // the other words are 0
}

static __always_inline bool ordered6(__be32 *src, __be32 *dst, __be16 from, __be16 to) {
	for (int i = 0; i < 4; i++)
		if (src[i] != dst[i])
			return ntohl(src[i]) < ntohl(dst[i]);
	return ntohs(from) <= ntohs(to);
}

static __always_inline void pair6(struct datagram *g, __be32 *src, __be32 *dst, __be16 from, __be16 to) {
	g->from_a = ordered6(src, dst, from, to);
	if (g->from_a) {
		__builtin_memcpy(g->pair.a, src, sizeof(g->pair.a));
		__builtin_memcpy(g->pair.b, dst, sizeof(g->pair.b));
		g->pair.a_port = from;
		g->pair.b_port = to;
	} else {
		__builtin_memcpy(g->pair.a, dst, sizeof(g->pair.a));
		__builtin_memcpy(g->pair.b, src, sizeof(g->pair.b));
		g->pair.a_port = to;
		g->pair.b_port = from;
	}
	g->hash = hash_ports(&g->pair);
	for (int i = 0; i < 4; i++)
		g->hash += g->pair.a[i] * pair_keys[i] + g->pair.b[i] * pair_keys[4 + i];
}

// ecn6 returns the ECN codepoint of an IPv6 header.
static __always_inline __u8 ecn6(__be32 version_class_flow) {
	return bpf_ntohl(version_class_flow) >> 20 & 3;
}

// from_packet converts a packet that parse has read.
static __always_inline void from_packet(struct packet *p, struct datagram *g) {
	if (p->v6)
		pair6(g, p->ip6->src, p->ip6->dst, p->udp->src, p->udp->dst);
	else
		pair4(g, p->ip4->src, p->ip4->dst, p->udp->src, p->udp->dst);
	g->at     = (p->v6 ? sizeof(struct ip6hdr) : sizeof(struct iphdr)) + sizeof(struct ethhdr) + sizeof(struct udphdr);
	g->length = ntohs(p->udp->len) - sizeof(struct udphdr);
	g->ecn    = p->v6 ? ecn6(p->ip6->version_class_flow) : p->ip4->tos & 3;
	if (p->payload + 1 <= (__u8 *)p->end && g->length)
		g->first = p->payload[0];
	if (p->payload + 1 + sizeof(g->id) <= (__u8 *)p->end && g->length > sizeof(g->id)) {
		// Copy unaligned words: __builtin_memcpy would copy byte by byte.
		__u32 *id = (__u32 *)(p->payload + 1);
		for (int i = 0; i < ID_WORDS; i++)
			g->id[i] = id[i];
	}
}

// The results of scan. UNREAD: the frame may contain UDP, but scan cannot read it.
enum { FOUND_UDP, NOT_UDP, UNREAD };

enum { ETH_P_8021Q = 0x8100, ETH_P_8021AD = 0x88a8 };
enum { IPPROTO_HOPOPTS = 0, IPPROTO_ROUTING = 43, IPPROTO_FRAGMENT = 44, IPPROTO_DSTOPTS = 60 };
#define MAX_TAGS 2
#define MAX_EXTENSIONS 4

// Ports of tunnels, which only Go decapsulates (RFC 7348 §8, RFC 8926 §6).
#define VXLAN_PORT 4789
#define GENEVE_PORT 6081

// scan_udp reads the UDP header and the beginning of the payload.
static __always_inline int scan_udp(void *ctx, bool out, __u32 at, __u32 rest, struct udphdr *udp, struct datagram *g) {
	if (!load(ctx, out, at, udp, sizeof(*udp)))
		return UNREAD;
	__u16 len = ntohs(udp->len);
	if (len < sizeof(*udp) || len > rest || udp->dst == bpf_htons(VXLAN_PORT) || udp->dst == bpf_htons(GENEVE_PORT))
		return UNREAD;
	g->at     = at + sizeof(*udp);
	g->length = len - sizeof(*udp);
	if (g->length && !load(ctx, out, g->at, &g->first, 1))
		return UNREAD;
	if (g->length > sizeof(g->id) && !load(ctx, out, g->at + 1, g->id, sizeof(g->id)))
		return UNREAD;
	return FOUND_UDP;
}

static __always_inline int scan4(void *ctx, bool out, __u32 at, struct datagram *g) {
	struct iphdr ip;
	struct udphdr udp;
	if (!load(ctx, out, at, &ip, sizeof(ip)))
		return UNREAD;
	if (ip.protocol != IPPROTO_UDP)
		return NOT_UDP;
	__u32 header = (ip.version_ihl & 0xf) * 4;
	__u32 total  = ntohs(ip.tot_len);
	if (ip.version_ihl >> 4 != 4 || header < sizeof(ip) || header > total || ip.frag_off & bpf_htons(IP_MF_OR_OFFSET))
		return UNREAD;
	int found = scan_udp(ctx, out, at + header, total - header, &udp, g);
	if (found == FOUND_UDP)
		pair4(g, ip.src, ip.dst, udp.src, udp.dst);
	g->ecn = ip.tos & 3;
	return found;
}

static __always_inline int scan6(void *ctx, bool out, __u32 at, struct datagram *g) {
	struct ip6hdr ip;
	struct udphdr udp;
	if (!load(ctx, out, at, &ip, sizeof(ip)) ||
		(ip.version_class_flow & bpf_htonl(0xf0000000)) != bpf_htonl(0x60000000))
		return UNREAD;
	__u32 rest = ntohs(ip.payload_len);
	__u8 next  = ip.next_header;
	at += sizeof(ip);
	for (int i = 0; i < MAX_EXTENSIONS && next != IPPROTO_UDP; i++) {
		__u8 ext[2]; // the next header, and the length in units of 8 bytes less one
		if (next != IPPROTO_HOPOPTS && next != IPPROTO_ROUTING && next != IPPROTO_DSTOPTS)
			return next == IPPROTO_FRAGMENT ? UNREAD : NOT_UDP;
		if (!load(ctx, out, at, ext, sizeof(ext)))
			return UNREAD;
		__u32 size = (ext[1] + 1) * 8;
		if (size > rest)
			return UNREAD;
		next = ext[0];
		at += size;
		rest -= size;
	}
	if (next != IPPROTO_UDP)
		return UNREAD;
	int found = scan_udp(ctx, out, at, rest, &udp, g);
	if (found == FOUND_UDP)
		pair6(g, ip.src, ip.dst, udp.src, udp.dst);
	g->ecn = ecn6(ip.version_class_flow);
	return found;
}

// scan reads frames that parse does not read: with VLAN tags, IP options or extension headers.
static __always_inline int scan(void *ctx, bool out, struct datagram *g) {
	struct ethhdr eth;
	if (!load(ctx, out, 0, &eth, sizeof(eth)))
		return UNREAD;
	__be16 proto = eth.proto;
	__u32 at     = sizeof(eth);
	for (int i = 0; i < MAX_TAGS && (proto == bpf_htons(ETH_P_8021Q) || proto == bpf_htons(ETH_P_8021AD)); i++) {
		if (!load(ctx, out, at + 2, &proto, sizeof(proto)))
			return UNREAD;
		at += 4;
	}
	if (proto == bpf_htons(ETH_P_IP))
		return scan4(ctx, out, at, g);
	if (proto == bpf_htons(ETH_P_IPV6))
		return scan6(ctx, out, at, g);
	return NOT_UDP;
}
