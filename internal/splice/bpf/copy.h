// In PENDING our socket still waits for acknowledgements of what it has sent. It gets them from
// here, while the packet itself goes to the other end.
#pragma once
#include "rewrite.h"

// ack is the packet that our socket gets: the headers of the original, without its payload.
struct ack4 {
	struct iphdr ip;
	struct tcphdr tcp;
	__be32 stamps[3];
};

struct ack6 {
	struct ip6hdr ip;
	struct tcphdr tcp;
	__be32 stamps[3];
};

// socket_numbers finds our socket, and the sequence numbers that it will send and receive next. It
// returns false if the socket is gone.
static __always_inline bool socket_numbers(struct __sk_buff *skb, struct tuple *t, bool v6, __u32 *snd_nxt, __u32 *rcv_nxt) {
	struct bpf_sock_tuple addrs = {};
	if (v6) {
		__builtin_memcpy(addrs.ipv6.saddr, t->remote, sizeof(addrs.ipv6.saddr));
		__builtin_memcpy(addrs.ipv6.daddr, t->local, sizeof(addrs.ipv6.daddr));
		addrs.ipv6.sport = t->rport;
		addrs.ipv6.dport = t->lport;
	} else {
		addrs.ipv4.saddr = t->remote[3];
		addrs.ipv4.daddr = t->local[3];
		addrs.ipv4.sport = t->rport;
		addrs.ipv4.dport = t->lport;
	}
	__u32 size          = v6 ? sizeof(addrs.ipv6) : sizeof(addrs.ipv4);
	struct bpf_sock *sk = bpf_skc_lookup_tcp(skb, &addrs, size, BPF_F_CURRENT_NETNS, 0);
	if (!sk)
		return false;
	// A FIN may have been between the program and our socket when the state became PENDING.
	struct bpf_tcp_sock *tp = 1 << sk->state & TCPF_CONNECTED ? bpf_tcp_sock(sk) : NULL;
	if (tp) {
		*snd_nxt = tp->snd_nxt;
		*rcv_nxt = tp->rcv_nxt;
	}
	bpf_sk_release(sk);
	return tp;
}

// fill_ack makes the TCP header of the acknowledgement. It acknowledges no more than our socket has
// sent, and has the sequence number that our socket expects, as if the end had sent nothing.
static __always_inline void fill_ack(struct tcphdr *tcp, __be32 *stamps, struct tuple *t, struct segment *s, __u32 snd_nxt, __u32 rcv_nxt) {
	__u32 header = sizeof(*tcp) + (s->stamped ? STAMPS_LEN : 0);
	tcp->src = t->rport;
	tcp->dst = t->lport;
	tcp->seq = bpf_htonl(rcv_nxt);
	tcp->ack = bpf_htonl(ahead(s->ack, snd_nxt) ? snd_nxt : s->ack);
	tcp->offset_flags = bpf_htons(header / 4 << 12 | (s->flags & (ACK | ECE)));
	tcp->window = bpf_htons(s->window);
	tcp->check  = 0;
	tcp->urgent = 0;
	stamps[0]   = s->stamped ? STAMP : 0;
	stamps[1]   = s->stamped ? s->tsval : 0;
	stamps[2]   = s->stamped ? s->tsecr : 0;
}

// store writes the acknowledgement over the headers of the packet.
static __always_inline int store(struct __sk_buff *skb, void *ack, __u32 len, bool stamped) {
	__u32 at = sizeof(struct ethhdr);
	if (stamped)
		return bpf_skb_store_bytes(skb, at, ack, len, BPF_F_RECOMPUTE_CSUM);
	return bpf_skb_store_bytes(skb, at, ack, len - STAMPS_LEN, BPF_F_RECOMPUTE_CSUM);
}

// store_ack makes the acknowledgement and writes it over the headers of the packet, which has been
// cut to their length.
static __always_inline int store_ack(struct __sk_buff *skb, struct tuple *t, struct segment *s, bool v6, __u32 snd_nxt, __u32 rcv_nxt) {
	void *ip = (void *)(long)skb->data + sizeof(struct ethhdr);
	__u32 len = sizeof(struct tcphdr) + (s->stamped ? STAMPS_LEN : 0);
	__u64 sum = bpf_htonl(IPPROTO_TCP) + (__u64)bpf_htonl(len);
	if (v6) {
		struct ack6 a;
		if (ip + sizeof(a.ip) > (void *)(long)skb->data_end)
			return -1;
		__builtin_memcpy(&a.ip, ip, sizeof(a.ip));
		a.ip.payload_len = bpf_htons(len);
		__builtin_memcpy(a.ip.src, t->remote, sizeof(a.ip.src));
		__builtin_memcpy(a.ip.dst, t->local, sizeof(a.ip.dst));
		fill_ack(&a.tcp, a.stamps, t, s, snd_nxt, rcv_nxt);
		sum += (__u32)bpf_csum_diff(NULL, 0, (__be32 *)&a.ip.src, 32, 0);
		sum += (__u32)bpf_csum_diff(NULL, 0, (__be32 *)&a.tcp, sizeof(a.tcp) + STAMPS_LEN, 0);
		a.tcp.check = csum_fold(sum);
		return store(skb, &a, sizeof(a), s->stamped);
	}
	struct ack4 a;
	if (ip + sizeof(a.ip) > (void *)(long)skb->data_end)
		return -1;
	__builtin_memcpy(&a.ip, ip, sizeof(a.ip));
	a.ip.tot_len = bpf_htons(sizeof(a.ip) + len);
	a.ip.src     = t->remote[3];
	a.ip.dst     = t->local[3];
	a.ip.check   = 0;
	a.ip.check   = csum_fold((__u32)bpf_csum_diff(NULL, 0, (__be32 *)&a.ip, sizeof(a.ip), 0));
	fill_ack(&a.tcp, a.stamps, t, s, snd_nxt, rcv_nxt);
	sum += (__u64)a.ip.src + a.ip.dst;
	sum += (__u32)bpf_csum_diff(NULL, 0, (__be32 *)&a.tcp, sizeof(a.tcp) + STAMPS_LEN, 0);
	a.tcp.check = csum_fold(sum);
	return store(skb, &a, sizeof(a), s->stamped);
}

// macs are the link-layer addresses of a frame: destination and source.
struct macs {
	__u16 words[6];
};

static __always_inline int make_ack(struct __sk_buff *skb, struct tuple *t, struct segment *s, struct macs *macs, bool v6) {
	__u32 snd_nxt = 0, rcv_nxt = 0;
	__u32 len = tcp_offset(v6) + sizeof(struct tcphdr) + (s->stamped ? STAMPS_LEN : 0);
	if (!socket_numbers(skb, t, v6, &snd_nxt, &rcv_nxt))
		return TC_ACT_SHOT;
	if (bpf_skb_change_tail(skb, len, 0) || bpf_skb_pull_data(skb, len))
		return TC_ACT_SHOT;
	if (bpf_skb_store_bytes(skb, 0, macs, sizeof(*macs), 0) || store_ack(skb, t, s, v6, snd_nxt, rcv_nxt))
		return TC_ACT_SHOT;
	return TCX_NEXT;
}

// copy_ack4 makes of a packet that was forwarded the acknowledgement for our socket. macs are those
// with which the packet came. It is a global function, as track_segment is.
__attribute__((noinline)) int copy_ack4(struct __sk_buff *skb, struct tuple *t, struct segment *s, struct macs *macs) {
	return t && s && macs ? make_ack(skb, t, s, macs, false) : TC_ACT_SHOT;
}

// copy_ack6 is copy_ack4 for IPv6.
__attribute__((noinline)) int copy_ack6(struct __sk_buff *skb, struct tuple *t, struct segment *s, struct macs *macs) {
	return t && s && macs ? make_ack(skb, t, s, macs, true) : TC_ACT_SHOT;
}
