// Helpers for the kernel's verifier, which refuses a program when it loses track of a value.
// Each says which verifier needs it, and why.
#pragma once

// opaque keeps the compiler from seeing where the value of a variable comes from. Without it the
// compiler checks one register and uses another, merges two branches into one that computes an
// offset, or turns masks into a branch. No verifier can follow the first. That of a process
// without CAP_PERFMON refuses the others.
#define opaque(v) asm volatile("" : "+r"(v))

// keep_bits states that a value has no other bits than those of the mask. Verifiers before Linux
// 6.18 forget the range that a check gave the value, if the compiler checks one register and
// uses another. The mask is in assembly because the compiler would leave out what changes
// nothing.
#define keep_bits(v, mask) asm volatile("%0 &= %1" : "+r"(v) : "i"(mask))

// ntohs and ntohl convert from network byte order. Verifiers before Linux 6.18 forget the range
// of a value whose bytes are swapped, so that the value could not be added to a pointer.
static __always_inline __u32 ntohs(__be16 x) {
	__u64 v = bpf_ntohs(x);
	keep_bits(v, 0xffff);
	return v;
}

static __always_inline __u32 ntohl(__be32 x) {
	__u64 v = bpf_ntohl(x);
	asm volatile("%0 <<= 32\n%0 >>= 32" : "+r"(v)); // no immediate mask has 32 bits
	return v;
}

// between says whether n is from 1 to most. It takes two comparisons from which the verifier of
// Linux 6.1 learns both bounds. The compiler would make them one, or compare with 0, from which
// that verifier learns nothing.
static __always_inline bool between(__u32 n, __u32 most) {
	__s64 v = n;
	if (v > most)
		return false;
	opaque(v);
	return v > 0;
}
