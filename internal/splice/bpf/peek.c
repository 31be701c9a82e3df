// A program that tells what the kernel knows of the two sockets of a pair. No packet goes through
// it: Go runs it with BPF_PROG_TEST_RUN, on a thread in the network namespace of the sockets.
#include "socket.h"

// The licence has to be compatible with the GPL, because bpf_skc_to_tcp_sock is only for such.
char __license[] SEC("license") = "Dual MIT/GPL";

enum { BPF_MAP_TYPE_SK_STORAGE = 24 };

#define LISTEN 10 // TCP_LISTEN in include/net/tcp_states.h

#define CURRENT_NETNS -1 // BPF_F_CURRENT_NETNS

// view is a socket as the kernel sees it. Go sets the addresses, and the program all else.
struct view {
	__u8 remote[16], local[16]; // IPv4 as v4-mapped
	__be16 remote_port, local_port;
	__u8 found, state, usec, protected; // protected: TCP-MD5, TCP-AO or an upper layer as kTLS
	__u32 snd_una, snd_nxt, write_seq, rcv_nxt, copied_seq;
	__u32 snd_wnd, rcv_edge, ts_recent, mss, advmss, mss_clamp, mtu;
	__u32 in_ifindex, out_ifindex; // 0: unknown
	__u8 timestamps, sack, ecn, snd_scale, rcv_scale, restored, pad[6];
	__u64 bytes_acked, bytes_received;
};

struct view views[2];

// past is what the kernel does not know of a socket that Go has made from numbers: what the peer was
// told, and the last timestamp before the first one that the socket gets. The kernel counts the
// bytes of such a socket only since it was made.
struct past {
	__u32 advmss;
	__u32 ts_recent;
	__u32 received; // bytes that the kernel has counted, although they came before
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct past);
} restored SEC(".maps");

// bpf_sock_tuple is as in include/uapi/linux/bpf.h.
struct tuple4 {
	__u8 remote[4], local[4];
	__be16 remote_port, local_port;
};

struct tuple6 {
	__u8 remote[16], local[16];
	__be16 remote_port, local_port;
};

static __always_inline bool is_mapped(const struct view *v) {
	const __u32 *words = (const void *)v->remote;
	return !words[0] && !words[1] && words[2] == bpf_htonl(0xffff);
}

static __always_inline void *find(void *ctx, const struct view *v) {
	if (is_mapped(v)) {
		struct tuple4 t = {.remote_port = v->remote_port, .local_port = v->local_port};
		__builtin_memcpy(t.remote, v->remote + 12, 4);
		__builtin_memcpy(t.local, v->local + 12, 4);
		return bpf_skc_lookup_tcp(ctx, (void *)&t, sizeof(t), CURRENT_NETNS, 0);
	}
	struct tuple6 t = {.remote_port = v->remote_port, .local_port = v->local_port};
	__builtin_memcpy(t.remote, v->remote, 16);
	__builtin_memcpy(t.local, v->local, 16);
	return bpf_skc_lookup_tcp(ctx, (void *)&t, sizeof(t), CURRENT_NETNS, 0);
}

static __always_inline bool is_protected(struct tcp_sock *tp) {
	if (has_field(tp->md5sig_info) && tp->md5sig_info)
		return true;
	if (has_field(tp->ao_info) && tp->ao_info)
		return true;
	return tp->inet_conn.icsk_ulp_ops != NULL;
}

static __always_inline void read_options(struct tcp_sock *tp, struct view *v) {
	v->mss_clamp  = tp->rx_opt.mss_clamp;
	v->timestamps = read_bits(tp, rx_opt.tstamp_ok);
	v->sack       = read_bits(tp, rx_opt.sack_ok) & 1; // the other bits: a DSACK was seen
	v->snd_scale = v->rcv_scale = 0;
	if (read_bits(tp, rx_opt.wscale_ok)) {
		v->snd_scale = read_bits(tp, rx_opt.snd_wscale);
		v->rcv_scale = read_bits(tp, rx_opt.rcv_wscale);
	}
	v->ecn       = tp->ecn_flags;
	v->usec      = has_field(tp->tcp_usec_ts) ? read_bits(tp, tcp_usec_ts) : 0;
	v->protected = is_protected(tp);
}

static __always_inline void read_past(struct tcp_sock *tp, struct view *v) {
	struct past *past = bpf_sk_storage_get(&restored, tp, NULL, 0);

	v->restored  = past != NULL;
	v->advmss    = past ? past->advmss : tp->advmss;
	v->ts_recent = tp->rx_opt.ts_recent;
	if (past) {
		v->bytes_received -= past->received;
		if (!v->ts_recent)
			v->ts_recent = past->ts_recent;
	}
}

static __always_inline void read_route(struct tcp_sock *tp, struct view *v) {
	struct sock *sk       = &tp->inet_conn.icsk_inet.sk;
	struct dst_entry *dst = sk->sk_dst_cache;

	v->in_ifindex  = sk->sk_rx_dst_ifindex;
	v->out_ifindex = dst ? dst->dev->ifindex : 0;
}

static __always_inline void look(void *ctx, struct view *v) {
	v->found = 0;
	void *sk = find(ctx, v);
	if (!sk)
		return;
	struct tcp_sock *tp = bpf_skc_to_tcp_sock(sk); // NULL in TIME_WAIT, and before ESTABLISHED
	if (tp) {
		v->state          = tp->inet_conn.icsk_inet.sk.__sk_common.skc_state;
		v->found          = v->state != LISTEN; // the lookup also finds who would accept
		v->snd_una        = tp->snd_una;
		v->snd_nxt        = tp->snd_nxt;
		v->write_seq      = tp->write_seq;
		v->rcv_nxt        = tp->rcv_nxt;
		v->copied_seq     = tp->copied_seq;
		v->snd_wnd        = tp->snd_wnd;
		v->rcv_edge       = tp->rcv_wup + tp->rcv_wnd;
		v->bytes_acked    = tp->bytes_acked;
		v->bytes_received = tp->bytes_received;
		v->mss            = tp->mss_cache;
		v->mtu            = tp->inet_conn.icsk_pmtu_cookie;
		read_past(tp, v);
		read_options(tp, v);
		read_route(tp, v);
	}
	bpf_sk_release(sk);
}

SEC("tc")
int peek(void *ctx) {
	look(ctx, &views[0]);
	look(ctx, &views[1]);
	return 0;
}
