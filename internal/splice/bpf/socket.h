// The fields of the kernel's sockets that peek.c reads. The loader finds their places in the BTF
// of the running kernel (CO-RE), so that only their names and types matter here.
#pragma once

#include "types.h"

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct net_device {
	int ifindex;
};

struct dst_entry {
	struct net_device *dev;
};

struct sock_common {
	unsigned char skc_state;
};

struct sock {
	struct sock_common __sk_common;
	struct dst_entry *sk_dst_cache;
	int sk_rx_dst_ifindex;
};

struct inet_sock {
	struct sock sk;
};

struct inet_connection_sock {
	struct inet_sock icsk_inet;
	void *icsk_ulp_ops;
	__u32 icsk_pmtu_cookie;
};

struct tcp_options_received {
	__u32 ts_recent;
	__u16 tstamp_ok : 1, wscale_ok : 1, sack_ok : 3, snd_wscale : 4, rcv_wscale : 4;
	__u16 user_mss, mss_clamp;
};

struct tcp_sock {
	struct inet_connection_sock inet_conn;
	__u32 snd_una, snd_nxt, write_seq, rcv_nxt, copied_seq, snd_wnd, rcv_wup, rcv_wnd, mss_cache;
	__u16 advmss;
	__u64 bytes_acked, bytes_received;
	struct tcp_options_received rx_opt;
	__u8 ecn_flags;
	__u8 tcp_usec_ts : 1; // since Linux 6.7
	void *md5sig_info;    // with CONFIG_TCP_MD5SIG
	void *ao_info;        // with CONFIG_TCP_AO
};

#pragma clang attribute pop

// The kinds of information that __builtin_preserve_field_info gives of a field.
enum { FIELD_OFFSET, FIELD_SIZE, FIELD_EXISTS, FIELD_SIGNED, FIELD_LSHIFT, FIELD_RSHIFT };

#define has_field(field) __builtin_preserve_field_info(field, FIELD_EXISTS)

// read_bits reads a bit field of a structure: the compiler cannot read one whose place it does
// not know.
#define read_bits(structure, field) \
	({ \
		const void *at = (const void *)(structure) + __builtin_preserve_field_info((structure)->field, FIELD_OFFSET); \
		__u64 bits     = 0; \
		asm volatile("" : "+r"(at)); \
		switch (__builtin_preserve_field_info((structure)->field, FIELD_SIZE)) { \
		case 1: \
			bits = *(const __u8 *)at; \
			break; \
		case 2: \
			bits = *(const __u16 *)at; \
			break; \
		case 4: \
			bits = *(const __u32 *)at; \
			break; \
		case 8: \
			bits = *(const __u64 *)at; \
		} \
		bits <<= __builtin_preserve_field_info((structure)->field, FIELD_LSHIFT); \
		bits >>= __builtin_preserve_field_info((structure)->field, FIELD_RSHIFT); \
		bits; \
	})
