package terminal

import (
	"cmp"
	"iter"
	"slices"
	"time"

	"github.com/quicway/quicway/monitor"
)

// Limits for connections that have ended: how long they are shown, and how many are kept that the
// monitor has removed.
const (
	endedFor = 20 * time.Second
	maxEnded = 1024
)

// book keeps the rows between snapshots. It notices by itself which connections have ended,
// because an event may be lost.
type book struct {
	rows   map[uint64]*row
	final  map[uint64]*monitor.Connection // removed, the last that is known of them
	follow uint64                         // the number of the connection whose details are shown, or 0
	whole  *monitor.Connection            // that connection, as far as it is known
}

func newBook() *book {
	return &book{rows: make(map[uint64]*row), final: make(map[uint64]*monitor.Connection)}
}

// update returns the rows of the connections that the monitor keeps now, and of those that it
// has removed, but for those that have ended endedFor ago. It calls closed, for the events of
// those that were removed, when it has all that are kept.
func (b *book) update(now time.Time, kept iter.Seq[monitor.Connection], closed func() []monitor.Event) []*row {
	rows := make(map[uint64]*row, len(b.rows))
	for c := range kept {
		rows[c.Number] = newRow(&c, b.rows[c.Number], now)
		if c.Number == b.follow {
			b.whole = &c
		}
	}
	for _, e := range closed() {
		number := e.Connection.Number
		rows[number] = newRow(&e.Connection, b.rows[number], now).end(now)
		b.final[number] = &e.Connection
	}
	for number, r := range b.rows {
		switch {
		case rows[number] != nil:
		case !r.removed:
			rows[number] = r.end(now)
		case now.Sub(r.ended) < endedFor:
			rows[number] = r
		}
	}
	b.rows = rows
	b.forget()
	if c := b.final[b.follow]; c != nil {
		b.whole = c
	}
	out := make([]*row, 0, len(rows))
	for _, r := range rows {
		if !r.isOver() || now.Sub(r.ended) < endedFor {
			out = append(out, r)
		}
	}
	return out
}

// forget forgets those of the removed connections that are more than maxEnded. These are the
// ones that have ended first.
func (b *book) forget() {
	var removed []*row
	for _, r := range b.rows {
		if r.removed {
			removed = append(removed, r)
		}
	}
	if more := len(removed) - maxEnded; more > 0 {
		slices.SortFunc(removed, func(a, b *row) int {
			return cmp.Or(a.ended.Compare(b.ended), cmp.Compare(a.number, b.number))
		})
		for _, r := range removed[:more] {
			delete(b.rows, r.number)
		}
	}
	for number := range b.final {
		if b.rows[number] == nil {
			delete(b.final, number)
		}
	}
}

// watch sets the connection whose details are shown.
func (b *book) watch(number uint64) {
	if number != b.follow {
		b.follow, b.whole = number, nil
	}
}
