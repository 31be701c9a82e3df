package udp

import (
	"iter"
	"net/netip"
)

// Message is one datagram, or a train of datagrams to or from one address.
type Message struct {
	// Data is the payload. In a message that was read, it is valid until the next
	// read.
	Data []byte
	// SegmentSize is the size of each datagram of a train. Only the last datagram
	// may be smaller. 0: Data is one datagram.
	SegmentSize int
	// Remote is the remote address. It is never an IPv4-mapped IPv6 address.
	Remote netip.AddrPort
	// Local is the local address. The zero Addr: not known, or, in a message to
	// write, the system chooses.
	Local netip.Addr
	// ECN is the ECN field of the IP header (RFC 3168 §5).
	ECN byte
	// HopLimit is the TTL of IPv4, or the Hop Limit of IPv6. In a message that was
	// read it is at least 1, or 0 if it is not known. In a message to write, 0 means
	// the system's default. It is only supported on Linux; elsewhere it is 0, or
	// ignored.
	HopLimit byte
}

// Count returns the number of datagrams.
func (m *Message) Count() int {
	if m.SegmentSize <= 0 || len(m.Data) <= m.SegmentSize {
		return 1
	}
	return (len(m.Data) + m.SegmentSize - 1) / m.SegmentSize
}

// Segments yields the datagrams.
func (m *Message) Segments() iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		size := m.SegmentSize
		if size <= 0 {
			size = max(len(m.Data), 1)
		}
		for rest := m.Data; ; rest = rest[size:] {
			if len(rest) <= size {
				yield(rest)
				return
			}
			if !yield(rest[:size:size]) {
				return
			}
		}
	}
}

// Limits of the trains that the kernel takes: UDP_MAX_SEGMENTS datagrams, and the largest
// payload of UDP over IPv4.
const (
	maxSegments = 64
	maxPayload  = 65507
)

// trains yields the message in parts that are within these limits.
func (m *Message) trains() iter.Seq[Message] {
	return func(yield func(Message) bool) {
		part := *m
		if m.Count() == 1 {
			part.SegmentSize = 0
			yield(part)
			return
		}
		size := min(maxSegments, max(maxPayload/m.SegmentSize, 1)) * m.SegmentSize
		for rest := m.Data; len(rest) > 0; rest = rest[len(part.Data):] {
			part.Data = rest[:min(size, len(rest))]
			if len(part.Data) <= m.SegmentSize {
				part.SegmentSize = 0
			}
			if !yield(part) {
				return
			}
		}
	}
}
