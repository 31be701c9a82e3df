// Package cid makes the connection IDs of peers, and keeps who is behind them.
//
// A peer that is reached through a relay gives its QUIC connections IDs that
// the relay can predict and nobody else:
//
//	ID = BLAKE2b-96(key, counter)    12 bytes, counter is 64 bits big-endian
//	bit 7 of byte 0: 0 = between peers, 1 = between a peer and the relay
//
// Without the key one ID says nothing about another (RFC 9000 §5.1 asks for
// that), so only the relay, which is told the key, can tell that they belong
// together. QUIC turns to another ID every few thousand packets, and for every
// path; a [Window] says which counters the relay has to know at a time.
//
// A [Store] keeps who is behind an ID, in the memory of the process.
// [MemoryStore] is the one that relays use; package storetest checks others.
package cid
