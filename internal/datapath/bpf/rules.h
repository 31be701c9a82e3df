// The maps of the quota stage. Go writes verdicts, each with an end; the program
// writes what it has seen of attempts and rates.
#pragma once
#include "clock.h"

// A limit is a token bucket: the nanoseconds that one token takes, 0 for no limit,
// and those that a full bucket does.
struct limits {
	__u64 attempt, attempt_depth;
	__u64 packet, packet_depth;
	__u32 bits; // of the prefix that they are an exception for
	__u32 pad;
};

// rules are what is the same for all.
struct rules {
	__u64 lease;    // until when Go answers for what it has decided
	__u64 patience; // how long an attempt may take
	struct limits limits;
	__be32 mask4[4], mask6[4]; // what of an address is a source
	__u32 packets;             // whether anybody has a rate of packets
	__u32 exceptions;          // whether there are any
	__u32 allows, denies;      // whether there may be entries on the lists
	__u32 hosts;               // whether there may be any
	__u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct rules);
	__uint(max_entries, 1);
} policy SEC(".maps");

// guard is, for each of 64 UDP ports under the quota, one more than the length of its
// server's connection IDs.
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

// prefix is an address, or a part of it.
struct prefix {
	__u32 bits;
	__be32 addr[4];
};

// rule is an entry of a list.
struct rule {
	__u64 until;
	__u64 packets; // that have hit it, about
	__u32 bits;    // as in its key
	__u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct prefix);
	__type(value, struct rule);
	__uint(max_entries, 1); // set before load
} allowed SEC(".maps"), denied SEC(".maps");

// exceptions are limits other than those of the policy.
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct prefix);
	__type(value, struct limits);
	__uint(max_entries, 1); // set before load
} exceptions SEC(".maps");

// source is who limits are kept for.
struct source {
	__be32 addr[4];
};

// hosts are denied prefixes that are one source each. There may be very many, and
// a trie takes a step, and a line of the cache, for each bit that it branches at. A
// host is in one of the places that its hash leads to, or in the trie if there is none.
#define HOSTS 8
struct host_set {
	struct source of[HOSTS];
	__u64 until[HOSTS];
	__u64 packets[HOSTS]; // that have hit it, about
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct host_set);
	__uint(max_entries, 1); // set before load: a power of 2
} hosts SEC(".maps");

// hosts_mask is what of a number is an index of hosts. Set before load.
volatile const __u32 hosts_mask;

// turn is of a source of which no new attempts are let in for a while.
struct refusal {
	__u64 until;
	__u64 packets; // that it lost by that
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct source);
	__type(value, struct refusal);
	__uint(max_entries, 1); // set before load
} refused SEC(".maps");

// bucket is what a source has used of its rates: when its buckets are full again.
struct bucket {
	__u64 attempt;
	__u64 packet;
	__u64 dropped;  // since the last report
	__u64 reported; // when that was
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__type(key, struct source);
	__type(value, struct bucket);
	__uint(max_entries, 1); // set before load
} buckets SEC(".maps");

// attempts are those that have been let in, by hashes of their addresses, ports and
// IDs. Each has a few places, where it takes that of the oldest.
#define SET_SIZE 4
struct attempt_set {
	__u64 tag[SET_SIZE];
	__u64 until[SET_SIZE]; // they are remembered
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct attempt_set);
	__uint(max_entries, 1); // set before load: a power of 2
} attempts SEC(".maps");

// attempts_mask is what of a number is an index of attempts. Set before load.
volatile const __u32 attempts_mask;

// origin is where an attempt was from, by its port, with its token if it had one. Go
// knows the tag of a port alone: the bytes of the port as on the wire.
struct origin {
	__be32 addr[4];
	__u64 tag;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__type(key, struct origin);
	__type(value, __u64);   // until when it is remembered
	__uint(max_entries, 1); // set before load
} origins SEC(".maps");

// drop reports to Go that a source exceeds its rates.
struct drop {
	struct source source;
	__u32 reason;
	__u32 packets;
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 64 * 1024);
} drops SEC(".maps");
