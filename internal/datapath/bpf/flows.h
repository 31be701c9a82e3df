// The maps of the monitor stage: the counters of each flow, and the samples for Go.
#pragma once
#include "types.h"

// pair is the two endpoints of a flow, the lesser one first, so that both directions have the
// same pair. IPv4 addresses are mapped to IPv6.
struct pair {
	__be32 a[4];
	__be32 b[4];
	__be16 a_port;
	__be16 b_port;
};

// spin is the state of the spin bit of one direction, as in monitor/spin.go. Times are in
// nanoseconds of the monotonic clock.
struct spin {
	__u32 packets;
	__u8 value;
	__u8 started;
	__u8 renewed; // Go has set this: the next packet has another ID than the latest one
	__u8 unused;
	__u64 edge; // when the value last changed
	__u64 sum;  // eight times the moving average of the samples
	__u64 half; // latest time from an edge of the other direction to the next edge of this one
	__u32 edges;
	__u32 samples;
	__u32 rejected;
	__u32 unused2;
};

#define ID_WORDS 5 // an ID has up to 20 bytes

// match says which packets of one direction the program only counts. It reports the others to Go.
enum match {
	MATCH_NONE,  // none
	MATCH_ID,    // short headers with the direction's ID
	MATCH_SHORT, // all packets without a long header
};

// tally counts packets by the ECN codepoint of their IP header (RFC 3168 §5). The counters of
// packets may overflow: Go reads them once a second.
struct tally {
	__u32 packets[4];
	__u64 bytes; // of their UDP payloads
};

// direction is one direction of a flow. Go sets id_len, match, segment and id. The program sets the
// other fields. What a packet that matches needs is in the first cache line.
struct direction {
	__u8 id_len;
	__u8 match;
	__u16 segment; // size of the datagrams that GRO puts together, 0: not known
	__u32 id[ID_WORDS];
	struct tally matched; // packets that match
	__u64 last;           // time of the last packet that was not reported, by clock()
	struct spin spin;
	struct tally unreported; // packets that do not match, and were not reported
	// The token buckets for reports of long headers [0], and of other packets [1]: the time at
	// which each is full again.
	__u64 full_at[2];
	// The bytes after the first one of the short header that was reported last, and how many
	// reported packets in a row had this ID.
	__u32 reported[ID_WORDS];
	__u32 repeats;
	__u32 whole; // datagrams that were reported whole because of their header
	__u32 unused[5];
};

// flow is the state of all datagrams between two endpoints. It and its directions begin at cache
// lines.
struct flow {
	struct pair pair;
	__u32 ignored; // Go has found that the flow is not QUIC
	__u64 born;    // when it was added: differs from an earlier entry of the pair
	__u64 unused[2];
	struct direction direction[2]; // from a to b, and back
};

// id_masks has for each length of an ID a mask of its bytes. Go sets it before the program runs. All flows
// share it, so that it is in the CPU's cache.
struct id_mask {
	__u32 word[ID_WORDS];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct id_mask);
	__uint(max_entries, 4 * ID_WORDS + 1);
} id_masks SEC(".maps");

// known has the flows that Go has given rules. Only Go adds and removes them, so that no packet
// evicts one.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE); // Go reads and writes the values in place
	__type(key, __u32);
	__type(value, struct flow);
	__uint(max_entries, 1); // set before load
} known SEC(".maps");

// slots leads from the hash of a pair to its index in known. The high bits of the hash select a set
// of slots. A slot has a tag, other bits of the hash, in its high half, and the index in its low
// half. 0 is a free slot.
#define SLOTS 8
struct slot_set {
	__u64 slot[SLOTS];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct slot_set);
	__uint(max_entries, 1); // set before load: a power of 2
} slots SEC(".maps");

// slots_shift is 64 less the number of bits that select a set of slots. pair_keys are secret random
// numbers, so that nobody can choose many pairs with the same set. Set before load.
#define PAIR_WORDS 9
volatile const __u32 slots_shift;
volatile const __u64 pair_keys[PAIR_WORDS];

// flows has the flows that Go has given no rules yet.
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__type(key, struct pair);
	__type(value, struct flow);
	__uint(max_entries, 1); // set before load
} flows SEC(".maps");

// blank is an empty flow. It is in a map because it is too large for the stack.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct flow);
	__uint(max_entries, 1);
} blank SEC(".maps");

// ignored_flows is a cache of ignored flows, with a faster lookup than the map of flows. Each flow
// has one slot, and a flow with the same slot overwrites it. Entries of another round are
// invalid.
struct ignored_flow {
	struct pair pair;
	__u32 round;
	__u32 shorts; // packets since the flow was added that look like QUIC short headers
};
#define IGNORED_BITS 12

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct ignored_flow);
	__uint(max_entries, 1 << IGNORED_BITS);
} ignored_flows SEC(".maps");

volatile __u32 ignored_round;

// seen has the hashes of flows of which one packet was seen. A flow gets an entry with its second
// packet: adding one takes longer than all the rest, and attacks have flows of one packet.
#define SEEN_BITS 16

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, __u32);
	__uint(max_entries, 1 << SEEN_BITS);
} seen SEC(".maps");

// sample is a packet that is reported to Go: this header, and then the frame.
struct sample {
	__u64 at; // by the monotonic clock
	__u32 iface;
	__u32 length;   // of the frame
	__u32 captured; // bytes of the frame that follow
	__u16 segment;  // size of the datagrams that GRO or GSO has put together, 0: not known
	__u8 outbound;
	__u8 unused[9];
};

// The number of bytes of a frame in a sample. SNAP_SHORT has room for the unprotected part of a
// short header. Long headers are reported whole, because Go can only decrypt complete Initials.
#define SNAP_SHORT 128
#define SNAP_WHOLE 1600

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096); // set before load
} samples SEC(".maps");

// outcome says what the monitor stage has done with a packet that does not match.
enum outcome {
	REPORTED,    // reported to Go as a sample
	LIMITED,     // counted: the limit of reports was reached
	RING_FULL,   // counted: the ring of samples was full
	IGNORED,     // the flow is ignored
	SKIPPED,     // not read, and not counted in a flow
	FLOW_NEW,    // not a packet: a flow was added
	FLOW_FAILED, // skipped: no flow could be added
	OUTCOMES,
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, __u64);
	__uint(max_entries, OUTCOMES);
} outcomes SEC(".maps");

static __always_inline void count_outcome(enum outcome what) {
	__u32 key = what;
	__u64 *n  = bpf_map_lookup_elem(&outcomes, &key);
	if (n)
		++*n;
}
