// The context of a TCX program, and the helpers and structures that only such programs use.
#pragma once
#include "types.h"

// include/uapi/linux/bpf.h
enum { TCX_NEXT = -1, TC_ACT_OK = 0, TC_ACT_SHOT = 2 };
enum { PACKET_HOST = 0 }; // include/uapi/linux/if_packet.h

struct __sk_buff {
	__u32 len;
	__u32 pkt_type;
	__u32 mark;
	__u32 queue_mapping;
	__u32 protocol;
	__u32 vlan_present;
	__u32 unused0[3];
	__u32 ingress_ifindex;
	__u32 ifindex;
	__u32 unused1[8];
	__u32 data;
	__u32 data_end;
	__u32 unused2[14];
	__u32 data_meta;
	__u64 flow_keys;
	__u64 tstamp;
	__u32 wire_len;
	__u32 gso_segs;
	__u64 sk;
	__u32 gso_size;
};

// Flags of bpf_l4_csum_replace. Linux 6.16 and its stable branches have BPF_F_IPV6.
enum { BPF_F_PSEUDO_HDR = 1 << 4, BPF_F_IPV6 = 1 << 7 };
// Of bpf_skb_store_bytes.
enum { BPF_F_RECOMPUTE_CSUM = 1 };
// Of bpf_skc_lookup_tcp: the network namespace of the interface.
#define BPF_F_CURRENT_NETNS (-1L)

struct bpf_sock_tuple {
	union {
		struct {
			__be32 saddr;
			__be32 daddr;
			__be16 sport;
			__be16 dport;
		} ipv4;
		struct {
			__be32 saddr[4];
			__be32 daddr[4];
			__be16 sport;
			__be16 dport;
		} ipv6;
	};
};

struct bpf_sock {
	__u32 unused0[18];
	__u32 state;
};

// include/net/tcp_states.h
enum {
	TCP_ESTABLISHED = 1,
	TCP_FIN_WAIT1   = 4,
	TCP_FIN_WAIT2   = 5,
	TCP_CLOSE_WAIT  = 8,
	TCP_LAST_ACK    = 9,
	TCP_CLOSING     = 11
};
#define TCPF_CONNECTED \
	(1 << TCP_ESTABLISHED | 1 << TCP_FIN_WAIT1 | 1 << TCP_FIN_WAIT2 | 1 << TCP_CLOSE_WAIT | 1 << TCP_LAST_ACK | \
		1 << TCP_CLOSING)

struct bpf_tcp_sock {
	__u32 unused0[4];
	__u32 rcv_nxt;
	__u32 snd_nxt;
};

enum { IPPROTO_ICMP = 1, IPPROTO_TCP = 6, IPPROTO_ICMPV6 = 58 };

// tcphdr is RFC 9293 §3.1. offset_flags has the data offset, the reserved bits and the flags.
struct tcphdr {
	__be16 src;
	__be16 dst;
	__be32 seq;
	__be32 ack;
	__be16 offset_flags;
	__be16 window;
	__u16 check;
	__be16 urgent;
};

// The flags, as in the low byte of offset_flags. AE is above it (RFC 9768).
enum { FIN = 1, SYN = 2, RST = 4, PSH = 8, ACK = 16, URG = 32, ECE = 64, CWR = 128, AE = 256 };

struct icmphdr {
	__u8 type;
	__u8 code;
	__u16 check;
	__be16 unused;
	__be16 mtu; // of type 3, code 4 (RFC 1191)
};

struct icmp6hdr {
	__u8 type;
	__u8 code;
	__u16 check;
	__be32 mtu; // of type 2 (RFC 4443)
};
