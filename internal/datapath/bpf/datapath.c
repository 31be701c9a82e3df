// The XDP program of an interface. It applies what Go has decided, and passes every packet that it
// is not sure of, unchanged.
//
// The stages run in the order monitor, quota, relay. Each is a header. The quota stage and the
// relay stage return NEXT or a final verdict; the monitor stage passes every packet.
#include "maps.h"
#include "monitor.h"
#include "parse.h"
#include "quota.h"
#include "relay.h"

char __license[] SEC("license") = "Dual MIT/GPL";

volatile const bool monitor_on = false;

// pass hands a packet to the next program, if there is one, or to the kernel.
static __always_inline int pass(struct xdp_md *ctx) {
	bpf_tail_call(ctx, &next, 0);
	return XDP_PASS;
}

// stages runs the stages on a packet of one address family.
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

// ticks is the result of read_clock.
volatile __u64 ticks;

// read_clock stores the time of clock() in ticks. Go runs it to compare the clocks.
SEC("xdp")
int read_clock(struct xdp_md *ctx) {
	ticks = clock();
	return XDP_PASS;
}
