// Reads Initials of versions 1 and 2 (RFC 9000 §17.2.2, RFC 9369 §3.2), as far as
// it takes to tell attempts apart.
#pragma once
#include "maps.h"
#include "parse.h"
#include "rules.h"

#define MIN_INITIAL 1200 // bytes of a datagram with an Initial (RFC 9000 §14.1)
#define MIN_FIRST_ID 8   // bytes of an ID that a client has chosen (RFC 9000 §7.2)
#define MAX_ID 20
#define MAX_TOKEN 256 // longer than any that a server needs
#define HEAD 64       // as many bytes as all that is in front of a token, and more
#define VERSION_1 0x00000001
#define VERSION_2 0x6b3343cf

// initial is what is of interest of an Initial.
struct initial {
	__u32 size;  // of the datagram
	__u32 token; // where the token is in the payload
	__u32 token_len;
	__u8 id_len; // of the Destination Connection ID
};

// The keys of hashes are nobody's to know, so that nobody can choose two attempts
// that look alike. Set before load.
#define HASH_KEYS (5 + MAX_TOKEN / 4)
volatile const __u64 hash_keys[HASH_KEYS];

// hash_of begins a hash: of whom, what kind, and how many bytes follow. A hash is
// the sum of words, each times its key: whatever two are chosen without the keys
// are alike once in 2^32 (multilinear hashing), and the products do not wait for each other.
static __always_inline __u64 hash_of(__be32 *addr, __u32 kind, __u32 len) {
	__u64 hash = ((__u64)kind << 9 | len) * hash_keys[4];
	for (int i = 0; i < 4; i++)
		hash += addr[i] * hash_keys[i];
	return hash;
}

// hash_bytes is what up to 4 * words bytes add to a hash. They must be there in
// whole words.
static __always_inline __u64 hash_bytes(__u8 *b, void *end, __u32 len, int words) {
	__u64 hash = 0;
	for (int i = 0; i < words && i * 4 < len; i++, b += 4) {
		if (b + 4 > (__u8 *)end)
			break;
		__u32 word = bpf_ntohl(*(__be32 *)b), left = len - i * 4;
		if (left < 4)
			word >>= 32 - 8 * left;
		hash += word * hash_keys[5 + i];
	}
	return hash;
}

// hash_token is for the verifier to look at once, not for each token's length.
__noinline __u64 hash_token(struct xdp_md *ctx, __u32 at, __u32 len) {
	void *end = (void *)(long)ctx->data_end;
	return hash_bytes((void *)(long)ctx->data + (at & 1023), end, len, MAX_TOKEN / 4);
}

// byte_at is a place in the payload, for as many bytes as are checked for then.
static __always_inline void *byte_at(struct packet *p, __u32 at) {
	__u8 *b = p->payload + at;
	asm volatile("" : "+r"(b)); // the compiler would check one pointer and use another
	return b;
}

// varint reads a variable-length integer (RFC 9000 §16) and moves on. It returns
// false for one of more than four bytes, which nothing in a datagram needs, and at
// the very end of one.
static __always_inline bool varint(struct packet *p, __u32 *at, __u32 *value) {
	__be32 *b = byte_at(p, *at);
	if ((void *)(b + 1) > p->end)
		return false;
	__u32 word = bpf_ntohl(*b);
	switch (word >> 30) {
	case 0:
		*at += 1;
		*value = word >> 24;
		return true;
	case 1:
		*at += 2;
		*value = word >> 16 & 0x3fff;
		return true;
	case 2:
		*at += 4;
		*value = word & 0x3fffffff;
		return true;
	}
	return false;
}

// is_initial looks at the first byte and the version.
static __always_inline bool is_initial(__u8 first, __be32 version) {
	__u8 type = first >> 4 & 3;
	return (version == bpf_htonl(VERSION_1) && type == 0) || (version == bpf_htonl(VERSION_2) && type == 1);
}

// parse_token reads what is behind the IDs.
static __always_inline bool parse_token(struct packet *p, struct initial *in, __u32 at) {
	__u32 rest;
	if (!varint(p, &at, &in->token_len) || in->token_len > MAX_TOKEN)
		return false;
	in->token = at;
	at += in->token_len;
	return varint(p, &at, &rest) && at + rest <= in->size;
}

// parse_initial returns false for whatever is no Initial whose header can be read.
static __always_inline bool parse_initial(struct packet *p, struct initial *in) {
	__u8 *b  = p->payload;
	in->size = bpf_ntohs(p->udp->len) - sizeof(*p->udp);
	if (in->size < HEAD || b + HEAD > (__u8 *)p->end)
		return false;
	if (!(b[0] & 0x80) || !is_initial(b[0], *(__be32 *)(b + 1)))
		return false;
	in->id_len = b[5];
	if (in->id_len > MAX_ID)
		return false;
	__u32 at     = 6 + in->id_len;
	__u8 *id_len = byte_at(p, at); // of the Source Connection ID
	if (id_len + 1 > (__u8 *)p->end || *id_len > MAX_ID)
		return false;
	return parse_token(p, in, at + 1 + *id_len);
}
