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

func (e *ECN) subtract(less ECN) {
	e.ECT0 -= less.ECT0
	e.ECT1 -= less.ECT1
	e.CE -= less.CE
}
