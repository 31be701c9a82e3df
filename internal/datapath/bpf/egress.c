// The monitor stage at egress, as a TCX program. It shares the maps of the XDP program.
#include "monitor.h"
#include "maps.h"

char __license[] SEC("license") = "Dual MIT/GPL";

// __sk_buff is as in include/uapi/linux/bpf.h.
struct __sk_buff {
	__u32 len;
	__u32 unused0[8];
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

#define TCX_NEXT -1

// interfaces says which interfaces the XDP program is attached to: each is at its index modulo
// INTERFACES. If several have the same place, it has SEVERAL.
#define INTERFACES 64
#define SEVERAL (~0U)
volatile __u32 interfaces[INTERFACES];

// came_in says whether a packet was seen at ingress of an interface. It is 0 if this host has sent
// the packet.
static __always_inline bool came_in(__u32 interface) {
	if (!interface)
		return false;
	__u32 there = interfaces[interface % INTERFACES];
	return there == interface || (there == SEVERAL && bpf_map_lookup_elem(&devices, &interface));
}

SEC("tcx/egress")
int quicway_out(struct __sk_buff *ctx) {
	// Packets that this host forwards were seen at ingress.
	if (came_in(ctx->ingress_ifindex))
		return TCX_NEXT;
	struct datagram g = {.segment = ctx->gso_size};
	int found         = scan(ctx, true, &g);
	if (found == FOUND_UDP)
		count_or_report(ctx, true, ctx->len, ctx->ifindex, &g);
	else if (found == UNREAD)
		report_unread(ctx, true, ctx->len, ctx->ifindex, &g);
	return TCX_NEXT;
}
