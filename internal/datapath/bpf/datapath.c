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
	if (!parse(ctx, &p, eth, end, v6)) {
		count(PASS_OTHER);
		return NEXT;
	}
	int verdict = quota_on ? quota(ctx, &p) : NEXT;
	if (verdict == NEXT && relay_on)
		verdict = relay(ctx, &p);
	return verdict;
}

// is_frame says whether a packet has an Ethernet header, which all have. The verifier first follows
// what comes after this instruction, the answer no. So it follows the other stages once without all
// that the monitor stage leaves on the stack.
static __always_inline bool is_frame(struct xdp_md *ctx) {
	void *after = (void *)(long)READ_ONCE(ctx->data) + sizeof(struct ethhdr);
	void *end   = (void *)(long)READ_ONCE(ctx->data_end);
	asm goto("if %0 >= %1 goto %l[yes]" ::"r"(end), "r"(after)::yes);
	return false;
yes:
	return true;
}

SEC("xdp")
int quicway(struct xdp_md *ctx) {
	int verdict = NEXT;
	if (monitor_on && is_frame(ctx))
		monitor(ctx);
	// Read again: the verifier would follow all that the monitor stage knows of the packet.
	struct ethhdr *eth = (void *)(long)READ_ONCE(ctx->data);
	void *end          = (void *)(long)READ_ONCE(ctx->data_end);
	if ((void *)(eth + 1) <= end && eth->proto == bpf_htons(ETH_P_IP))
		verdict = stages(ctx, eth, end, false);
	else if ((void *)(eth + 1) <= end && eth->proto == bpf_htons(ETH_P_IPV6))
		verdict = stages(ctx, eth, end, true);
	else
		count(PASS_OTHER);
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
