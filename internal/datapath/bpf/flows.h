// The maps of the monitor stage: the counters of each flow, and the samples for Go.
#pragma once
#include "types.h"

// pair is the two endpoints of a flow, the lesser first, so that both directions
// have one. IPv4 addresses are mapped into IPv6.
struct pair {
	__be32 a[4];
	__be32 b[4];
	__be16 a_port;
	__be16 b_port;
};

// spin follows the spin bit of one direction, as monitor/spin.go does. Times are
// in nanoseconds of the monotonic clock.
struct spin {
	__u64 edge; // when the value last changed
	__u64 sum;  // of the latest samples, by decay
	__u64 half; // the latest: since the edge came the other way
	__u32 packets;
	__u32 edges;
	__u32 samples;
	__u32 rejected;
	__u8 value;
	__u8 started;
	__u8 unused[6];
};

#define ID_WORDS 5 // an ID has up to 20 bytes

// match says which packets of one direction are only counted. The others are reported to Go.
enum match {
	MATCH_NONE,  // none
	MATCH_ID,    // short headers with the direction's ID
	MATCH_SHORT, // all without a long header
};

struct tally {
	__u64 packets;
	__u64 bytes; // of their UDP payloads
};

// direction is one direction of a flow. Go sets the ID, its length and mask, match and
// segment. The rest is what the program has counted.
struct direction {
	struct tally matched;    // packets that match
	struct tally unreported; // packets that do not match, and were not reported either
	__u64 last;              // when, by clock()
	// When a full burst may be reported again: of long headers, and of others. Each has
	// a limit of its own.
	__u64 rest[2];
	__u32 id[ID_WORDS];
	__u32 mask[ID_WORDS]; // which bytes of it count
	__u8 id_len;
	__u8 match;
	__u16 segment; // size of what longer packets are made of, 0: not known
	__u32 whole;   // datagrams with a long header that Go was given whole
	// The bytes after the first one of the short header that was reported last, and how
	// many in a row had the same ID.
	__u32 reported[ID_WORDS];
	__u32 alike;
	struct spin spin;
};

// flow is what is known of the datagrams between two endpoints.
struct flow {
	__u64 born;                    // tells it from another of the same pair
	struct direction direction[2]; // from a to b, and back
	__u32 ignored;                 // Go has found that the flow is not QUIC
	__u32 unused;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__type(key, struct pair);
	__type(value, struct flow);
	__uint(max_entries, 1); // set before load
} flows SEC(".maps");

// blank is a flow of which nothing is known, too large for the stack.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct flow);
	__uint(max_entries, 1);
} blank SEC(".maps");

// ignored_flows is a cache of flows that are ignored, which is faster to ask than the map of
// flows. Each flow has one place, and the next flow with that place overwrites it. Entries
// of another round are void.
struct ignored_flow {
	struct pair pair;
	__u32 round;
	__u32 shorts; // packets since then that look like QUIC short headers
};
#define IGNORED_BITS 12

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct ignored_flow);
	__uint(max_entries, 1 << IGNORED_BITS);
} ignored_flows SEC(".maps");

volatile __u32 ignored_round;

// sample is a packet that is reported to Go: this header, and then the frame.
struct sample {
	__u64 at; // of the monotonic clock
	__u32 iface;
	__u32 length;   // of the frame
	__u32 captured; // of it
	__u16 segment;  // size of the datagrams that it is made of, 0: not known
	__u8 outbound;
	__u8 unused[9];
};

// How much of a frame is in a sample: of short headers the unprotected part, of long headers
// all of it, because Go can decrypt only whole Initials.
#define SNAP_SHORT 128
#define SNAP_WHOLE 1600

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096); // set before load
} samples SEC(".maps");

// outcome says what the monitor stage has done with a packet that does not match.
enum outcome {
	REPORTED,    // to Go, as a sample
	LIMITED,     // counted: the limit of reports was reached
	RING_FULL,   // counted: the ring of samples was full
	IGNORED,     // of a flow that is ignored
	SKIPPED,     // not read, and not counted in a flow
	FLOW_NEW,    // not a packet: a flow was made
	FLOW_FAILED, // skipped: no flow could be made
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
