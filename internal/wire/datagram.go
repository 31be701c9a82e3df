package wire

import (
	"bytes"
	"iter"
)

// Packets yields the coalesced packets of a datagram (RFC 9000 §12.2). After an error it stops;
// trailing bytes that are not a packet are an error, too.
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

// Run returns the length of the first run of datagrams in data, in bytes. A run is one datagram
// with a long header, or consecutive datagrams with short headers and the same connection ID, so
// all of them go to the same destination. data consists of datagrams of segment bytes each, of
// which the last may be shorter, or of a single one if segment is 0.
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
