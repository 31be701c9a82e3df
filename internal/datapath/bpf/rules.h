// The maps of the quota stage. Go writes the rules, and verdicts that expire. The program writes
// which attempts it has admitted, and how much of its rates each source has used.
#pragma once
#include "clock.h"

// limits are the token buckets of a source, for attempts and for packets. Each has the time for one
// token to be added, 0 for no limit, and the time for an empty bucket to fill, in nanoseconds.
struct limits {
	__u64 attempt, attempt_depth;
	__u64 packet, packet_depth;
	__u32 bits; // of an exception: the length of its prefix
	__u32 pad;
};

// rules are the policy for all sources.
struct rules {
	__u64 lease;    // when the lease expires
	__u64 patience; // how long an attempt is remembered, in nanoseconds
	struct limits limits;
	__be32 mask4[4], mask6[4]; // the bits of an address that identify its source
	__u32 packets;             // whether the policy or an exception limits packets
	__u32 exceptions;          // whether there are exceptions
	__u32 allows, denies;      // whether the lists may have prefixes
	__u32 sources;             // whether there may be denied sources
	__u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct rules);
	__uint(max_entries, 1);
} policy SEC(".maps");

// guard has an entry for each of 64 UDP ports: 0 if the port is not guarded, or else 1 + the length
// of the connection IDs that its server issues.
#define GUARDS 64
struct guard {
	__u8 port[GUARDS];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct guard);
	__uint(max_entries, 1); // set before load
} guards SEC(".maps");

// prefix is a prefix of an address, where IPv4 is mapped to IPv6.
struct prefix {
	__u32 bits;
	__be32 addr[4];
};

// rule is an entry of a list.
struct rule {
	__u64 until;   // when the entry expires
	__u64 packets; // that have matched, approximately
	__u32 bits;    // as in the key
	__u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct prefix);
	__type(value, struct rule);
	__uint(max_entries, 1); // set before load
} allowed SEC(".maps"), denied SEC(".maps");

// exceptions are the limits of sources for which those of the policy do not hold.
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct prefix);
	__type(value, struct limits);
	__uint(max_entries, 1); // set before load
} exceptions SEC(".maps");

// source is a source: the first address of the prefix that limits are kept for.
struct source {
	__be32 addr[4];
};

// denied_sources are the denied prefixes that are exactly one source: there may be very many. It
// is a hash table, because a trie reads another cache line for each bit at which it branches. The
// hash of a source selects a set, and the source is in one of the slots of that set, or in the
// trie if the set is full.
#define DENIED_SLOTS 8
struct denied_set {
	struct source source[DENIED_SLOTS];
	__u64 until[DENIED_SLOTS];
	__u64 packets[DENIED_SLOTS]; // that have matched, approximately
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct denied_set);
	__uint(max_entries, 1); // set before load: a power of 2
} denied_sources SEC(".maps");

// denied_mask is the number of sets of denied_sources, less one. Set before load.
volatile const __u32 denied_mask;

// refusal is a source whose new attempts are dropped.
struct refusal {
	__u64 until;   // when the refusal expires
	__u64 packets; // that were dropped
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct source);
	__type(value, struct refusal);
	__uint(max_entries, 1); // set before load
} refused SEC(".maps");

// bucket is the state of the token buckets of a source: the time at which each is full again.
struct bucket {
	__u64 attempt;
	__u64 packet;
	__u64 dropped;  // packets since the last report
	__u64 reported; // time of the last report
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__type(key, struct source);
	__type(value, struct bucket);
	__uint(max_entries, 1); // set before load
} buckets SEC(".maps");

// attempts are the admitted attempts, by hashes of their addresses, ports and IDs. The hash selects
// a set. A new attempt overwrites the one of the set that expires first.
#define ATTEMPT_SLOTS 4
struct attempt_set {
	__u64 tag[ATTEMPT_SLOTS];
	__u64 until[ATTEMPT_SLOTS]; // when they expire
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct attempt_set);
	__uint(max_entries, 1); // set before load: a power of 2
} attempts SEC(".maps");

// attempts_mask is the number of sets of attempts, less one. Set before load.
volatile const __u32 attempts_mask;

// origin is the origin of an attempt: its address, and a tag. The tag is a hash with the port and
// the token, or the port itself in network byte order if the attempt has no token. Go computes
// only tags of the second kind.
struct origin {
	__be32 addr[4];
	__u64 tag;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__type(key, struct origin);
	__type(value, __u64);   // when the entry expires
	__uint(max_entries, 1); // set before load
} origins SEC(".maps");

// drop reports to Go that packets of a source were dropped because it exceeds its rates.
struct drop {
	struct source source;
	__u32 reason;
	__u32 packets;
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 64 * 1024);
} drops SEC(".maps");
