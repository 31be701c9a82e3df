// The one program of an interface. It is a cache of what Go has decided: whatever
// it is not sure of goes up to Go unchanged.
//
// Stages run in this order, each of them a header that returns NEXT or a verdict
// that is final. Those that are off when the program is loaded are not in it.
#include "maps.h"
#include "monitor.h"
#include "parse.h"
#include "quota.h"
#include "relay.h"

char __license[] SEC("license") = "Dual MIT/GPL";

volatile const bool monitor_on = false;

// pass gives a packet to the next program, if there is one, or to the kernel.
static __always_inline int pass(struct xdp_md *ctx) {
	bpf_tail_call(ctx, &next, 0);
	return XDP_PASS;
}

// stages runs them on a packet of one family.
static __always_inline int stages(struct xdp_md *ctx, struct ethhdr *eth, void *end, bool v6) {
	struct packet p;
	bool plain = parse(ctx, &p, eth, end, v6);
	if (monitor_on)
		monitor(ctx, plain ? &p : NULL);
	if (!plain) {
		count(PASS_OTHER);
		return NEXT;
	}
	int verdict = quota_on ? quota(ctx, &p) : NEXT;
	if (verdict == NEXT && relay_on)
		verdict = relay(ctx, &p);
	return verdict;
}

SEC("xdp")
int quicway(struct xdp_md *ctx) {
	struct ethhdr *eth = (void *)(long)ctx->data;
	void *end          = (void *)(long)ctx->data_end;
	int verdict        = NEXT;
	if ((void *)(eth + 1) <= end && eth->proto == bpf_htons(ETH_P_IP))
		verdict = stages(ctx, eth, end, false);
	else if ((void *)(eth + 1) <= end && eth->proto == bpf_htons(ETH_P_IPV6))
		verdict = stages(ctx, eth, end, true);
	else {
		if (monitor_on)
			monitor(ctx, NULL);
		count(PASS_OTHER);
	}
	return verdict == NEXT ? pass(ctx) : verdict;
}

// ticks is what the clock program has seen.
volatile __u64 ticks;

// clocked tells Go what time it is here.
SEC("xdp")
int clocked(struct xdp_md *ctx) {
	ticks = clock();
	return XDP_PASS;
}
