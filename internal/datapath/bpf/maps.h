// The counters, and the maps of the relay stage, which the program shares with Go. Addresses,
// ports and IDs are in network byte order.
#pragma once
#include "types.h"

// Which stages the program has. Set before load: the verifier removes the code of the others.
volatile const bool quota_on = false;
volatile const bool relay_on = false;

// NEXT is the result of a stage that leaves the packet to the next stage.
#define NEXT -1

// reason says what the program has done with a packet.
enum reason {
	RELAYED,       // forwarded
	PASS_OTHER,    // not UDP to a port of the relay, or in an encapsulation that parse does not read
	PASS_SHORT,    // shorter than a short header with an ID
	PASS_LONG,     // a long header: a handshake
	PASS_CONTROL,  // of a control connection of the relay
	PASS_UNKNOWN,  // no leg has this ID
	PASS_SOURCE,   // not from the other leg, or not to the address of the relay that it uses
	PASS_TTL,      // the TTL or hop limit is 1 or less
	PASS_MIXED,    // the legs are of different families, or IPv6 without a UDP checksum
	PASS_NO_ROUTE, // no next hop, or the packet exceeds its MTU
	EVENT_LOST,    // not a packet: the ring of events was full

	// Packets to a guarded port. From QUOTA_DENIED on they are dropped.
	QUOTA_NO_LEASE,      // not evaluated: the lease has expired
	QUOTA_ALLOWED,       // on the allow list
	QUOTA_OTHER,         // not an Initial of version 1 or 2
	QUOTA_CONTINUING,    // an Initial of a handshake that the server has answered
	QUOTA_KNOWN_ATTEMPT, // an Initial of an attempt that was admitted before
	QUOTA_NEW,           // the first Initial of an attempt
	QUOTA_REPORT_LOST,   // not a packet: the ring of drops was full
	QUOTA_DENIED,        // on the deny list
	QUOTA_PACKET_RATE,   // the source exceeds its rate of packets
	QUOTA_SHORT_INITIAL, // an Initial in a datagram of less than 1200 bytes
	QUOTA_REFUSED,       // an attempt of a source that Go refuses
	QUOTA_ATTEMPT_RATE,  // the source exceeds its rate of attempts
	REASONS,
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, __u64);
	__uint(max_entries, REASONS);
} counters SEC(".maps");

// ports has a bit for each UDP port. The bit is set if a relay uses the port.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, __u64);
	__uint(max_entries, 65536 / 64);
} ports SEC(".maps");

// event reports that packets to a leg carry a new ID.
struct event {
	__u32 session;
	__u32 leg;
	__u16 counter; // low bits of it
	__u16 version; // of the leg, as the packet was forwarded
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 64 * 1024);
} events SEC(".maps");

// devices are the interfaces that the program is attached to. The relay stage sends packets only
// to these.
struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP_HASH);
	__type(key, __u32);
	__type(value, __u32);
	__uint(max_entries, 64);
} devices SEC(".maps");

// next is the XDP program that gets the packets that this one passes, if there is one.
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__type(key, __u32);
	__type(value, __u32);
	__uint(max_entries, 1);
} next SEC(".maps");

// epoch changes when devices change, so that cached next hops become invalid.
volatile __u32 epoch;

static __always_inline void count(enum reason why) {
	__u32 key = why;
	__u64 *n  = bpf_map_lookup_elem(&counters, &key);
	if (n)
		++*n;
}
