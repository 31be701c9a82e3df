package main

import "github.com/quicway/quicway/monitor"

// detail is all that the page shows of one connection.
type detail struct {
	monitor.Connection
	Name   string      `json:"name"`
	Uses   string      `json:"version_name"`
	Had    []string    `json:"version_names"`
	State  string      `json:"state"`
	Reason string      `json:"reason"` // why it has ended
	RTTs   []roundTrip `json:"rtts"`
}

// detail returns a connection by its number, or nil if it is not shown any more.
func (l *listing) detail(number uint64, h *history) *detail {
	for _, e := range l.all {
		if e.Number == number {
			return l.detailOf(e, h)
		}
	}
	return nil
}

// detailOf returns all that the page shows of a connection.
func (l *listing) detailOf(e *entry, h *history) *detail {
	out := &detail{
		Connection: e.Connection, Name: nameOf(&e.Connection), Uses: e.Version.String(), Had: []string{},
		State: e.state(l.clock).String(), Reason: e.why(), RTTs: e.rtts,
	}
	if e.ended.IsZero() {
		out.RTTs = h.roundTrips(e.Number)
	}
	for _, v := range e.Versions {
		out.Had = append(out.Had, v.String())
	}
	out.ServerName = cut(out.ServerName, maxName)
	out.ALPN = nil // a copy, cut
	for _, protocol := range e.ALPN {
		out.ALPN = append(out.ALPN, cut(protocol, maxName))
	}
	return out
}
