// Sends what a socket receives to the other socket of its pair.
#include "types.h"

char __license[] SEC("license") = "Dual MIT/GPL";

enum { BPF_MAP_TYPE_SOCKHASH = 18 };
enum { SK_DROP = 0 };

struct __sk_buff {
	__u32 len;
};

// The peer of each socket, by the socket's cookie. No program belongs to this map, so that a socket
// can be a peer before its own data is redirected.
struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, 1);
	__type(key, __u64);
	__type(value, __u64);
} peers SEC(".maps");

// The sockets whose data is redirected, by their cookies. Go attaches the program to this map.
struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, 1);
	__type(key, __u64);
	__type(value, __u64);
} sources SEC(".maps");

// A FIN without data is an empty skb. To send nothing is an error (EPIPE) that the kernel sets on
// the other socket, where it would look like a reset. Go passes on the end.
//
// The data is dropped if the socket has no peer, because the peer was closed.
SEC("sk_skb/stream_verdict")
int quicway_to_peer(struct __sk_buff *skb) {
	if (!skb->len)
		return SK_DROP;
	__u64 cookie = bpf_get_socket_cookie(skb);
	return bpf_sk_redirect_hash(skb, &peers, &cookie, 0);
}
