package monitor

import "github.com/quicway/quicway/internal/decap"

// ECN counts datagrams by the ECN codepoint of their IP header (RFC 3168 §5). The rest of a
// [Traffic]'s datagrams are Not-ECT. Congestion turns ECT(0) and ECT(1) into CE on the way, so
// CE is the part of the congestion that lies before the point of capture. In a tunnel the
// codepoint of the inner header counts.
type ECN struct {
	ECT0 uint64 `json:"ect0"`
	ECT1 uint64 `json:"ect1"`
	CE   uint64 `json:"ce"`
}

// count counts n datagrams with a codepoint.
func (e *ECN) count(codepoint decap.ECN, n uint64) {
	switch codepoint {
	case decap.ECT0:
		e.ECT0 += n
	case decap.ECT1:
		e.ECT1 += n
	case decap.CE:
		e.CE += n
	}
}

func (e *ECN) add(more ECN) {
	e.ECT0 += more.ECT0
	e.ECT1 += more.ECT1
	e.CE += more.CE
}

// uncount takes back a datagram that was counted.
func (e *ECN) uncount(codepoint decap.ECN) {
	switch codepoint {
	case decap.ECT0:
		e.ECT0--
	case decap.ECT1:
		e.ECT1--
	case decap.CE:
		e.CE--
	}
}

// ecnCounts are an ECN that is only there once there was a marked datagram. Most paths have none.
type ecnCounts struct{ counts *ECN }

// count counts n datagrams with a codepoint.
func (e *ecnCounts) count(codepoint decap.ECN, n uint64) {
	if codepoint != decap.NotECT {
		e.own().count(codepoint, n)
	}
}

func (e *ecnCounts) add(more ECN) {
	if more != (ECN{}) {
		e.own().add(more)
	}
}

// uncount takes back a datagram that was counted.
func (e *ecnCounts) uncount(codepoint decap.ECN) { e.own().uncount(codepoint) }

// own returns the counts to change them.
func (e *ecnCounts) own() *ECN {
	if e.counts == nil {
		e.counts = new(ECN)
	}
	return e.counts
}

// get returns a copy of the counts.
func (e *ecnCounts) get() (out ECN) {
	if e.counts != nil {
		out = *e.counts
	}
	return out
}
