// Reads Initials of versions 1 and 2 (RFC 9000 §17.2.2, RFC 9369 §3.2), as far as
// it takes to tell attempts apart.
#pragma once
#include "maps.h"
#include "parse.h"
#include "rules.h"

#define MIN_INITIAL 1200 // bytes of a datagram with an Initial (RFC 9000 §14.1)
#define MIN_FIRST_ID 8   // bytes of an ID that a client has chosen (RFC 9000 §7.2)
#define MAX_ID 20
#define VERSION_1 0x00000001
#define VERSION_2 0x6b3343cf

// initial is what is of interest of an Initial.
struct initial {
	struct scratch *copy;
	__u32 size;  // of the datagram
	__u32 token; // where the token is
	__u32 token_len;
	__u8 id_len; // of the Destination Connection ID
};

// The seeds of hashes are nobody's to know, so that nobody can choose two attempts
// that look alike. Set before load.
volatile const __u64 hash_seed;
volatile const __u64 hash_factor;

// hash_word adds to a hash.
static __always_inline __u64 hash_word(__u64 hash, __u64 word) {
	hash = (hash ^ word) * (hash_factor | 1);
	return hash ^ hash >> 29;
}

// hash_bytes hashes up to 8 * words bytes, and what they are of, of which each
// word may be read whole.
static __always_inline __u64 hash_bytes(__u8 *b, __u32 at, __u32 len, int words, __u32 of) {
	__u64 hash = hash_word(hash_seed, (__u64)of << 32 | len);
	for (int i = 0; i < words; i++) {
		__u32 done = i * 8;
		if (done >= len)
			break;
		__u32 n     = len - done;
		__u64 *from = (void *)(b + ((at + done) & (SCRATCH - 1)));
		__u64 word  = bpf_be64_to_cpu(*from);
		if (n < 8)
			word >>= 64 - 8 * n;
		hash = hash_word(hash, word);
	}
	return hash;
}

// the_copy is where an Initial has been copied to.
static __always_inline struct scratch *the_copy(void) {
	__u32 zero = 0;
	return bpf_map_lookup_elem(&scratch, &zero);
}

// hash_token is for the verifier to look at once, not for each token's length.
__noinline __u64 hash_token(__u32 at, __u32 len, __u32 of) {
	struct scratch *copy = the_copy();
	return copy ? hash_bytes(copy->b, at, len, MAX_TOKEN / 8, of) : 0;
}

// byte_at reads one from the copy.
static __always_inline __u8 byte_at(struct scratch *copy, __u32 at) {
	return copy->b[at & (SCRATCH - 1)];
}

// varint reads a variable-length integer (RFC 9000 §16) and moves on. It returns
// -1 for one of more than four bytes, which nothing in a datagram needs.
static __always_inline __s64 varint(struct scratch *b, __u32 *at) {
	__u8 first  = byte_at(b, *at);
	__s64 value = first & 0x3f;
	switch (first >> 6) {
	case 0:
		*at += 1;
		return value;
	case 1:
		value = value << 8 | byte_at(b, *at + 1);
		*at += 2;
		return value;
	case 2:
		value = value << 8 | byte_at(b, *at + 1);
		value = value << 8 | byte_at(b, *at + 2);
		value = value << 8 | byte_at(b, *at + 3);
		*at += 4;
		return value;
	}
	return -1;
}

// copy_words copies payload, which must be there, eight bytes at a time.
static __always_inline void copy_words(__u8 *to, __u8 *payload, int from, int words) {
	__u64 *in = (void *)payload, *out = (void *)to;
#pragma unroll
	for (int i = from; i < words; i++)
		out[i] = in[i];
}

// is_initial looks at the first byte and the version.
static __always_inline bool is_initial(__u8 first, __be32 version) {
	__u8 type = first >> 4 & 3;
	return (version == bpf_htonl(VERSION_1) && type == 0) || (version == bpf_htonl(VERSION_2) && type == 1);
}

// copy_token copies what is behind the head, or returns false if that is not
// there, or the token longer than any that a server needs.
static __always_inline bool copy_token(struct packet *p, struct initial *in) {
	if (in->token_len > MAX_TOKEN || in->size < SCRATCHED || p->payload + SCRATCHED > (__u8 *)p->end)
		return false;
	copy_words(in->copy->b, p->payload, HEAD / 8, SCRATCHED / 8);
	return true;
}

// rest_fits says whether the datagram has room for the rest of the Initial.
static __always_inline bool rest_fits(struct initial *in) {
	__u32 at   = in->token + in->token_len;
	__s64 rest = varint(in->copy, &at);
	return rest >= 0 && at + rest <= in->size;
}

// parse_initial returns false for whatever is no Initial whose header can be read.
static __always_inline bool parse_initial(struct packet *p, struct initial *in) {
	in->size = bpf_ntohs(p->udp->len) - sizeof(*p->udp);
	if (in->size < HEAD || p->payload + HEAD > (__u8 *)p->end)
		return false;
	__be32 version;
	__builtin_memcpy(&version, p->payload + 1, sizeof(version));
	if (!(p->payload[0] & 0x80) || !is_initial(p->payload[0], version))
		return false;
	struct scratch *s = the_copy();
	if (!s)
		return false;
	in->copy = s;
	copy_words(s->b, p->payload, 0, HEAD / 8);

	in->id_len = s->b[5];
	if (in->id_len > MAX_ID)
		return false;
	__u32 at    = 6 + in->id_len;
	__u8 id_len = byte_at(s, at);
	if (id_len > MAX_ID)
		return false;
	at += 1 + id_len;
	__s64 token = varint(s, &at);
	if (token < 0 || at + token > in->size)
		return false;
	in->token     = at;
	in->token_len = token;
	if (token && !copy_token(p, in))
		return false;
	return rest_fits(in);
}
