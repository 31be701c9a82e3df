package monitor

import (
	"bytes"

	"github.com/quicway/quicway/internal/wire"
)

// maxSingle is the longest payload of a datagram that came by itself: more is
// beyond what Ethernet carries without jumbo frames, so it may be several.
const maxSingle = 1500

// segments splits what the system has put together (GRO, GSO) into the
// datagrams that were sent. size is that of each but the last, 0 if it is not
// known. Then the connection ID, which each begins with, shows where.
func (t *Tracker) segments(a *arrival, size int) {
	if size <= 0 && a.length > maxSingle {
		if size = t.findSegments(a); size == 0 {
			t.glued(a)
			return
		}
		p := t.choose(a)
		p.ways[p.sender(a)].segment = uint16(size)
	}
	if size <= 0 || size >= a.length {
		t.one(a)
		return
	}
	whole, length := a.payload, a.length
	for at := 0; at < length; at += size {
		a.length = min(size, length-at)
		a.payload = whole[min(at, len(whole)):min(at+a.length, len(whole))]
		if len(a.payload) == 0 {
			// The capture has only the beginning: the rest is like it.
			t.counters.Datagrams++
			t.uncaptured(a)
			continue
		}
		if at > 0 {
			t.counters.Split++
		}
		t.one(a)
	}
}

// uncaptured counts a segment of which nothing was captured.
func (t *Tracker) uncaptured(a *arrival) {
	if a.flow == nil || len(a.flow.paths) == 0 {
		t.counters.Other++
		return
	}
	t.counters.Tracked++
	t.count(a, t.choose(a))
}

// glued takes what cannot be split as one.
func (t *Tracker) glued(a *arrival) {
	t.one(a)
	if a.flow == nil || len(a.flow.paths) == 0 {
		return
	}
	t.counters.Glued++
	t.choose(a).record.glued++
}

// minSegment is the least size that a train's segments are taken for.
const minSegment = 64

// findSegments looks for the size of the segments by the ID that all have: it
// must be where each begins, with a short header before it.
func (t *Tracker) findSegments(a *arrival) int {
	if a.flow == nil || len(a.flow.paths) == 0 || len(a.payload) < minSegment || wire.IsLong(a.payload[0]) {
		return 0
	}
	p := t.choose(a)
	n := int(p.record.ends[1-p.sender(a)].idLen)
	if n < minLookup || len(a.payload) < minSegment+n {
		return 0
	}
	id := a.payload[1 : 1+n]
	w := &p.ways[p.sender(a)]
	if size := int(w.segment); w.id.is(id) && size > 0 && size+1+wire.MaxIDLen <= len(a.payload) && begins(a.payload[size:], id) {
		return size // as the kernel has it, which does not search
	}
	for at := minSegment; ; {
		i := bytes.Index(a.payload[at:], id)
		if i < 1 {
			return 0
		}
		if size := at + i - 1; repeats(a.payload, id, size) {
			return size
		}
		at += i + 1
	}
}

// repeats says whether every size bytes a short header with this ID begins.
func repeats(b, id []byte, size int) bool {
	if size < minSegment {
		return false
	}
	for at := 0; at < len(b); at += size {
		if !begins(b[at:], id) {
			return false
		}
	}
	return true
}

// begins says whether a short header with an ID comes first.
func begins(b, id []byte) bool {
	return len(b) >= 1+len(id) && !wire.IsLong(b[0]) && bytes.Equal(b[1:1+len(id)], id)
}
