// The maps that the program shares with Go. Go writes what it has decided, the
// program what it has seen. Addresses and IDs are bytes as on the wire.
#pragma once
#include "types.h"

// Stages that are off when the program is loaded are not in it.
volatile const bool quota_on = false;
volatile const bool relay_on = false;

// NEXT is the verdict of a stage that has nothing against the next one.
#define NEXT -1

// reason says what became of a packet.
enum reason {
	RELAYED,       // forwarded
	PASS_OTHER,    // not UDP to one of our ports, or in an encapsulation that is not read
	PASS_SHORT,    // too short for the header that it begins
	PASS_LONG,     // a long header: a handshake
	PASS_CONTROL,  // for the relay itself
	PASS_UNKNOWN,  // an ID that no leg has
	PASS_SOURCE,   // not from the other leg, or not to the address that it uses
	PASS_TTL,      // its life would end here
	PASS_MIXED,    // from one family to the other, or an IPv6 packet without checksum
	PASS_NO_ROUTE, // no next hop that is sure
	EVENT_LOST,    // not a packet: the ring of events was full

	// Of packets to a port under the quota. Those from QUOTA_DENIED on are
	// dropped.
	QUOTA_NO_LEASE,      // not decided: no lease
	QUOTA_ALLOWED,       // on the allow list
	QUOTA_OTHER,         // no Initial of a version that is known
	QUOTA_CONTINUING,    // an Initial of a handshake that the server has answered
	QUOTA_KNOWN_ATTEMPT, // an Initial of an attempt that has been let in
	QUOTA_NEW,           // the first Initial of an attempt
	QUOTA_REPORT_LOST,   // not a packet: the ring of drops was full
	QUOTA_DENIED,        // on the deny list
	QUOTA_PACKET_RATE,
	QUOTA_SHORT_INITIAL,
	QUOTA_REFUSED, // an attempt of a source that has all it may have
	QUOTA_ATTEMPT_RATE,
	REASONS,
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, __u64);
	__uint(max_entries, REASONS);
} counters SEC(".maps");

// ports is a bit for each UDP port that a relay has on this host.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, __u64);
	__uint(max_entries, 65536 / 64);
} ports SEC(".maps");

#define ID_LEN 12

struct id {
	__u32 word[ID_LEN / 4];
};

// route is who is behind an ID: a leg of a session.
struct route {
	__u32 session; // its index, and in the highest bit the leg that the ID leads to
	__u32 counter; // the low bits of the ID's counter
};
#define ROUTE_LEG 31

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct id);
	__type(value, struct route);
	__uint(max_entries, 1); // set before load
} routes SEC(".maps");

// endpoint is an address and a port. An address of IPv4 is in the last word.
struct endpoint {
	__be32 addr[4];
	__be16 port;
	__u16 family; // 0: nowhere
};

// leg is how packets reach one leg of a session. It fills two cache lines. Go changes it while
// packets are forwarded, so a reader checks version, or hop, again after it has read the
// fields that these protect.
struct leg {
	struct endpoint from; // the other leg, which alone may send
	struct endpoint at;   // our address that it sends to
	struct endpoint via;  // our address that the leg sees
	struct endpoint to;   // the leg
	__u32 due;            // IDs with this counter, and those after it, are reported to Go
	__u16 version;        // odd while Go changes the above, and then another one
	__u16 reported;       // when an ID was last reported, in ticks

	// The next hop, as the kernel's routing table said when it was last
	// asked. Only the program writes it.
	__u64 hop;    // in the high half when it was asked, in ticks; in the low one the interface
	__u16 hop_of; // the version and epoch that it is of
	__u16 hop_mtu;
	__u8 macs[12]; // as a frame begins: destination, source

	__u64 packets;
	__u64 bytes; // of UDP payload
};

// HOP_BUSY is a hop that a processor is writing: of no time, as one that nobody
// has asked for.
#define HOP_BUSY 1

struct session {
	struct leg legs[2];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE); // Go reads and writes in place
	__type(key, __u32);
	__type(value, struct session);
	__uint(max_entries, 1); // set before load
} sessions SEC(".maps");

// event reports that packets to a leg carry a new ID.
struct event {
	__u32 session;
	__u32 leg;
	__u32 counter;
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 64 * 1024);
} events SEC(".maps");

// devices are the interfaces that packets may leave by: those that the program
// is attached to.

struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP_HASH);
	__type(key, __u32);
	__type(value, __u32);
	__uint(max_entries, 64);
} devices SEC(".maps");

// next is a program that gets what this one passes.
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__type(key, __u32);
	__type(value, __u32);
	__uint(max_entries, 1);
} next SEC(".maps");

// epoch changes with the devices: next hops of another epoch are void.
volatile __u32 epoch;

static __always_inline void count(enum reason why) {
	__u32 key = why;
	__u64 *n  = bpf_map_lookup_elem(&counters, &key);
	if (n)
		++*n;
}
