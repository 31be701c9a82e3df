// The maps of the monitor stage: what the program counts of each flow, and what
// it tells Go of.
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

// taught is what Go has said of one direction of a flow.
enum taught {
	UNTAUGHT,  // nothing: it has to see all packets
	BY_ID,     // short headers with the lane's ID need no look
	ANY_SHORT, // nothing without a long header does
};

struct tally {
	__u64 packets;
	__u64 bytes; // of their UDP payloads
};

// lane is one direction of a flow. The ID, its length and mask, and taught are
// Go's, the rest is what the program has seen.
struct lane {
	struct tally known; // packets that are as Go has said
	struct tally held;  // others that Go was not told of
	__u64 last;         // when, by clock()
	// When Go may be told again of all that it may be told at once: of long
	// headers, and of others, so that neither keeps it from the other.
	__u64 rest[2];
	__u32 id[ID_WORDS];
	__u32 mask[ID_WORDS]; // which bytes of it count
	__u8 id_len;
	__u8 taught;
	__u16 segment; // size of what longer packets are made of, 0: not known
	__u32 whole;   // datagrams with a long header that Go was given whole
	// The short header that Go was told of last, and of how many with the same
	// ID one after the other.
	__u32 told[ID_WORDS];
	__u32 alike;
	struct spin spin;
};

// track is a flow.
struct track {
	__u64 born;          // tells it from another of the same pair
	struct lane lane[2]; // from a to b, and back
	__u32 ruled_out;     // Go has seen that it is none of QUIC's
	__u32 unused;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__type(key, struct pair);
	__type(value, struct track);
	__uint(max_entries, 1); // set before load
} tracks SEC(".maps");

// blank is a flow of which nothing is known, too large for the stack.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct track);
	__uint(max_entries, 1);
} blank SEC(".maps");

// strangers remembers pairs that are ruled out where it is quicker to look: each
// has one place, which is another's as soon as that one comes. What was written in
// another round is void.
struct stranger {
	struct pair pair;
	__u32 round;
	__u32 shorts; // packets since that look like QUIC's
};
#define STRANGER_BITS 12

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct stranger);
	__uint(max_entries, 1 << STRANGER_BITS);
} strangers SEC(".maps");

volatile __u32 strangers_round;

// sample is a packet that Go has to look at: this, and then its frame.
struct sample {
	__u64 at;       // of the monotonic clock
	__u32 iface;
	__u32 length;   // of the frame
	__u32 captured; // of it
	__u16 segment;  // size of the datagrams that it is made of, 0: not known
	__u8 outbound;
	__u8 unused[9];
};

// What of a frame is in a sample: of short headers what is not protected, of long
// ones all, because Initials open only whole.
#define SNAP_SHORT 128
#define SNAP_WHOLE 1600

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096); // set before load
} samples SEC(".maps");

// sight says what the monitor stage has done with a packet, if that is not one
// that Go has said it need not see.
enum sight {
	SIGHT_TOLD,    // to Go
	SIGHT_HELD,    // counted, because its flow has been told of enough
	SIGHT_LOST,    // counted, because there was no room to tell Go
	SIGHT_STRANGE, // of a flow that is ruled out
	SIGHT_SKIPPED, // neither looked at nor counted
	FLOWS_NEW,     // not a packet: a flow was made
	FLOWS_FULL,    // skipped, because no flow could be made
	SIGHTS,
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, __u64);
	__uint(max_entries, SIGHTS);
} sights SEC(".maps");

static __always_inline void note(enum sight what) {
	__u32 key = what;
	__u64 *n  = bpf_map_lookup_elem(&sights, &key);
	if (n)
		++*n;
}
