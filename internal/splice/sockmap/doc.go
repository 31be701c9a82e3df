// Package sockmap lets the kernel relay between two TCP sockets: what one of them receives, a
// program of type SK_SKB gives to the other one to send, without userspace. The sockets go on
// to acknowledge, to repeat and to pace what they have, as for a relay in userspace.
//
//	client ── TCP ──▶ socket ─ program ─▶ socket ── TCP ──▶ upstream
//	       ◀────────        ◀─ program ─        ◀────────
//
// The package is here to be compared, and for kernels that do it right. Those that were tested
// do not: they take bytes from a sender without bound while the receiver reads nothing, because
// they open the sender's window as soon as the program has seen a byte. So [Load] tests the
// kernel first, on loopback, and refuses one that loses, repeats or hoards bytes, or turns a
// reset into an end. The error says which test has failed.
//
// # Takeover
//
// [Program.Take] wants sockets that nobody reads or writes, with no byte in userspace: the
// kernel would let later bytes overtake it. So a relay takes a connection before it begins to
// copy, or after it has stopped. Bytes that have arrived before are relayed first.
//
// # The end of a direction
//
// The bytes that a program has redirected wait in a queue in front of the other socket, which
// no system call shows. If a socket is shut down for writing while the queue has bytes, they
// are lost. So the end of a direction is passed on when the other socket has got as many bytes
// as have arrived:
//
//	bytes received − FIN == bytes acknowledged + bytes in the send queue
//
// both counted since the takeover. One goroutine watches all pairs; data does not wake it.
package sockmap
