// Package cid makes the QUIC connection IDs of peers, and stores which peer an ID leads to.
//
// A peer that uses a relay gives its QUIC connections IDs that the relay can compute, and
// nobody else:
//
//	ID = BLAKE2b-96(key, counter)    12 bytes, counter is 64 bits big-endian
//	bit 7 of byte 0: 0 = between peers, 1 = between a peer and the relay
//
// The peer tells the relay the key. Without the key nobody can tell that two IDs belong to
// the same peer, as RFC 9000 §5.1 demands. A QUIC connection changes its ID every few
// thousand packets, and for every path, so a relay knows the IDs of a range of counters at
// a time: a [Window].
//
// A [Store] holds which peer an ID leads to, in the memory of the process. [MemoryStore] is
// the one that relays use by default; package storetest tests other implementations.
package cid
