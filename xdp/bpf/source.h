// Who sends a packet: addresses in one form of 128 bits, that of IPv4 mapped into
// IPv6 (RFC 4291 §2.5.5.2), and the sources that they belong to.
#pragma once
#include "maps.h"
#include "parse.h"
#include "rules.h"

#define ADDR_BITS 128
#define IPV4_BITS 96 // of them, those that all of IPv4 has

static __always_inline struct prefix address_of(struct packet *p) {
	struct prefix out = {.bits = ADDR_BITS};
	if (p->v6) {
		__builtin_memcpy(out.addr, p->ip6->src, sizeof(out.addr));
	} else {
		out.addr[2] = bpf_htonl(0xffff);
		out.addr[3] = p->ip4->src;
	}
	return out;
}

// source_of cuts an address down to what limits are kept for.
static __always_inline struct source source_of(struct rules *rules, struct prefix *p, bool v6) {
	struct source s;
	__be32 *mask = rules->mask6;
	// IPv4 may come mapped.
	if (!v6 || (!p->addr[0] && !p->addr[1] && p->addr[2] == bpf_htonl(0xffff)))
		mask = rules->mask4;
	for (int i = 0; i < 4; i++)
		s.addr[i] = p->addr[i] & mask[i];
	return s;
}

// guarded_port says whether a port is under the quota, and how long the IDs are
// that its server makes.
static __always_inline bool guarded_port(__be16 port, __u8 *id_len) {
	__u32 number    = bpf_ntohs(port);
	__u32 key       = number / GUARDS;
	struct guard *g = bpf_map_lookup_elem(&guards, &key);
	if (!g)
		return false;
	__u8 entry = g->port[number % GUARDS];
	*id_len    = entry - 1;
	return entry;
}
