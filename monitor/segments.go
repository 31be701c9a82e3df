package monitor

import (
	"bytes"

	"github.com/quicway/quicway/internal/wire"
)

// maxSingle is the longest payload that is taken for one datagram. Ethernet
// carries no longer one without jumbo frames, so it may be several.
const maxSingle = 1500

// segments splits what the system has put together (GRO, GSO) into the datagrams
// that were sent. size is the length of each but the last, or 0 if it is not
// known. Then the connection ID with which each begins shows it.
func (t *Tracker) segments(a *arrival, size int) {
	if size <= 0 && a.length > maxSingle {
		if size = t.segmentSize(a); size == 0 {
			t.glued(a)
			return
		}
	}
	if size <= 0 || size >= a.length {
		t.classify(a)
		return
	}
	whole, length := a.payload, a.length
	for at := 0; at < length; at += size {
		a.length = min(size, length-at)
		a.payload = whole[min(at, len(whole)):min(at+a.length, len(whole))]
		if len(a.payload) == 0 {
			// Only the beginning was captured. The rest belongs to the same connection.
			t.counters.Datagrams++
			t.uncaptured(a)
			continue
		}
		if at > 0 {
			t.counters.Split++
		}
		t.classify(a)
	}
}

// uncaptured counts a segment of which nothing was captured.
func (t *Tracker) uncaptured(a *arrival) {
	if a.flow == nil || len(a.flow.paths) == 0 {
		t.index.countOther(a.key, 1)
		return
	}
	t.counters.Tracked++
	t.count(a, a.flow.choose(a, t.index.slack))
}

// glued counts datagrams that cannot be told apart as one.
func (t *Tracker) glued(a *arrival) {
	t.classify(a)
	if a.flow == nil || len(a.flow.paths) == 0 {
		return
	}
	t.counters.Glued++
	a.flow.choose(a, t.index.slack).conn.glued++
}

// segmentSize finds the size of the segments, and keeps it for the next ones of
// the path. It returns 0 if it finds none.
func (t *Tracker) segmentSize(a *arrival) int {
	if a.flow == nil || len(a.flow.paths) == 0 || len(a.payload) < minSegment || wire.IsLong(a.payload[0]) {
		return 0
	}
	p := a.flow.choose(a, t.index.slack)
	from := p.sender(a)
	size := p.sent[from].segmentSize(a.payload, int(p.conn.ids[1-from].length))
	if size != 0 {
		p.sent[from].segment = uint16(size)
	}
	return size
}

// minSegment is the least size of a segment.
const minSegment = 64

// segmentSize finds the size of the segments in a payload by the ID of n bytes
// that all have: each begins with a short header and the ID. It returns 0 if it
// finds none.
func (s *halfPath) segmentSize(payload []byte, n int) int {
	if n < minLookup || len(payload) < minSegment+n {
		return 0
	}
	id := payload[1 : 1+n]
	// The last size is tried first. The kernel tries only that one.
	if size := int(s.segment); s.id.is(id) && size > 0 && size+1+wire.MaxIDLen <= len(payload) && beginsShort(payload[size:], id) {
		return size
	}
	for at := minSegment; ; {
		i := bytes.Index(payload[at:], id)
		if i < 1 {
			return 0
		}
		if size := at + i - 1; repeats(payload, id, size) {
			return size
		}
		at += i + 1
	}
}

// repeats reports whether b has a short header with an ID every size bytes.
func repeats(b, id []byte, size int) bool {
	if size < minSegment {
		return false
	}
	for at := 0; at < len(b); at += size {
		if !beginsShort(b[at:], id) {
			return false
		}
	}
	return true
}

// beginsShort reports whether b begins with a short header that has an ID.
func beginsShort(b, id []byte) bool {
	return len(b) >= 1+len(id) && !wire.IsLong(b[0]) && bytes.Equal(b[1:1+len(id)], id)
}
