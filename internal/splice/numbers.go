package splice

// Sequence numbers and timestamps of TCP are numbers modulo 2^32 (RFC 9293 §3.4, RFC 7323 §5.2).

// after says whether number a comes after number b.
func after(a, b uint32) bool { return int32(a-b) > 0 }

// latest returns the number that comes after the other.
func latest(a, b uint32) uint32 {
	if after(b, a) {
		return b
	}
	return a
}

// position is how far the stream of a socket has come, in both directions.
type position struct {
	sndUna, writeSeq      uint32 // the first byte that the peer has not acknowledged, that is not written
	rcvNxt, copiedSeq     uint32 // the next byte from the peer, and the next byte to be read
	bytesAcked, bytesRecv uint64
}

// sent returns the number of the first byte that the socket has sent. Linux counts the SYN of a
// connection that this host has dialed as a byte that was acknowledged.
func (p *position) sent(dialed bool) uint32 {
	first := p.sndUna - uint32(p.bytesAcked)
	if dialed {
		first++
	}
	return first
}

// received returns the number of the first byte that the socket has received. It is one too small
// when the FIN of the peer has come.
func (p *position) received() uint32 { return p.rcvNxt - uint32(p.bytesRecv) }

// drained says whether all bytes that have come from one socket were read, written to the other
// socket and acknowledged there. add is what a sequence number grows by from one to the other.
func drained(from, to *position, add uint32) bool {
	return from.copiedSeq == from.rcvNxt && to.writeSeq == from.copiedSeq+add && to.sndUna == to.writeSeq
}

// offsets are what the numbers of a pair's packets grow by when they are forwarded. They stay the
// same as long as the pair exists, because every byte keeps its place in the stream.
type offsets struct {
	toUpstream, toClient     uint32 // of sequence numbers of the client, of the upstream
	tsToUpstream, tsToClient uint32 // of timestamps of the client, of the upstream
}

// newOffsets returns the offsets of sequence numbers. injected is the number of bytes that were
// sent to the upstream before those of the client. restored says that the sockets were made from
// numbers, at the same place of the streams.
func newOffsets(client, upstream *position, injected uint64, restored bool) offsets {
	if restored {
		injected = 0
	}
	return offsets{
		toUpstream: upstream.sent(!restored) + uint32(injected) - client.received(),
		toClient:   client.sent(false) - upstream.received(),
	}
}

// setTimestamps sets the offsets of timestamps. The first one that is forwarded continues those of
// our own socket: now* are the clocks of our sockets, and recent* the last timestamps that they
// have got.
func (o *offsets) setTimestamps(nowClient, recentClient, nowUpstream, recentUpstream uint32) {
	o.tsToUpstream = nowUpstream - recentClient
	o.tsToClient = nowClient - recentUpstream
}
