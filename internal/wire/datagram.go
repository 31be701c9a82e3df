package wire

import (
	"bytes"
	"iter"
)

// Packets yields the packets that are coalesced in a datagram (RFC 9000
// §12.2). It stops after an error, which also stands for
// trailing bytes that are no packet.
func Packets(datagram []byte, shortIDLen int) iter.Seq2[Header, error] {
	return func(yield func(Header, error) bool) {
		for rest := datagram; len(rest) > 0; {
			h, err := Parse(rest, shortIDLen)
			if !yield(h, err) || err != nil {
				return
			}
			rest = rest[len(h.Packet):]
		}
	}
}

// Run returns how many bytes at the start of data are datagrams that share
// one decision about where they go: the first, and if it has a short header,
// all that follow it with one as well and the same ID. data holds datagrams of
// segment bytes each, of which the last may be shorter, or a single one if
// segment is 0.
func Run(data []byte, segment, shortIDLen int) int {
	if segment <= 0 || segment >= len(data) {
		return len(data)
	}
	if IsLong(data[0]) || segment < 1+shortIDLen {
		return segment
	}
	id := data[1 : 1+shortIDLen]
	n := segment
	for ; n < len(data); n += segment {
		next := data[n:]
		if IsLong(next[0]) || len(next) < 1+shortIDLen || !bytes.Equal(next[1:1+shortIDLen], id) {
			return n
		}
	}
	return len(data)
}
