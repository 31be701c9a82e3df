package udp

import (
	"iter"
	"net/netip"
)

// Message is one datagram, or a train of them to or from one address.
type Message struct {
	// Data is the payload. Of a message that has been read it is valid until
	// the next read.
	Data []byte
	// SegmentSize, if not 0, says that Data is datagrams of that many bytes
	// each, of which the last may be shorter.
	SegmentSize int
	// Remote is the other side. IPv4 is never mapped into IPv6.
	Remote netip.AddrPort
	// Local is our address. The zero Addr: not known, or the system chooses.
	Local netip.Addr
	// ECN is the two bits of RFC 3168 §5.
	ECN byte
	// HopLimit is the TTL of IPv4, or the Hop Limit of IPv6. Of a message that
	// has been read: how much was left, at least 1, or 0 where the system does
	// not tell. Of one that is written: how many hops it may make, or 0 for the
	// system's default. Only Linux tells, and only there it is heeded.
	HopLimit byte
}

// Count returns how many datagrams the message is.
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

// Bounds of what the kernel segments at once: UDP_MAX_SEGMENTS, and the largest
// payload of IPv4.
const (
	maxSegments = 64
	maxPayload  = 65507
)

// trains yields the message in parts that the kernel takes at once.
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
