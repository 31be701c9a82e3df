package terminal

import (
	"cmp"
	"strings"
	"time"
)

// column is a column of the list.
type column struct {
	title string
	// least is the width in cells that the column needs. A column that grows takes up to
	// most, as far as its texts need it.
	least, most int
	// leave says in which order columns are left out that do not fit: the largest first.
	leave int
	text  func(r *row, now time.Time, width int) string
	// static is the text whose length the column may grow to. It is nil for a column that
	// does not grow.
	static  func(r *row) string
	compare func(a, b *row) int
	falling bool // sorted with the largest value first, unless it is reversed
}

// The columns that the code names.
const (
	nameColumn  = 0
	trendColumn = 8
	ageColumn   = 12
)

// columns are the columns, from the left.
var columns = [...]column{
	{title: "NAME", least: 16, most: 48, static: func(r *row) string { return r.name },
		compare: func(a, b *row) int { return strings.Compare(a.name, b.name) }},
	{title: "CLIENT", least: 15, most: 47, leave: 1, static: func(r *row) string { return r.clientText },
		compare: func(a, b *row) int { return a.client.Compare(b.client) }},
	{title: "SERVER", least: 14, most: 47, leave: 4, static: func(r *row) string { return r.serverText },
		compare: func(a, b *row) int { return a.server.Compare(b.server) }},
	{title: "ALPN", least: 5, most: 14, leave: 7, static: func(r *row) string { return r.alpn },
		compare: func(a, b *row) int { return strings.Compare(a.alpn, b.alpn) }},
	{title: "VERS", least: 5, most: 10, leave: 10, static: func(r *row) string { return r.version },
		compare: func(a, b *row) int { return strings.Compare(a.version, b.version) }},
	{title: "STATE", least: 6, most: 9, leave: 8, static: func(r *row) string { return r.state },
		compare: func(a, b *row) int { return cmp.Compare(a.source.state, b.source.state) }},
	{title: "SURE", least: 6, most: 9, leave: 12, static: func(r *row) string { return r.sure },
		compare: func(a, b *row) int { return cmp.Compare(a.confidence, b.confidence) }},
	{title: "RTT", least: 6, leave: 2, text: right(func(r *row, _ time.Time) string { return roundTrip(r.rtt) }), falling: true,
		compare: func(a, b *row) int { return cmp.Compare(a.rtt, b.rtt) }},
	{title: "TREND", least: 8, leave: 11, text: func(r *row, _ time.Time, width int) string { return fit(spark(r.rtts, width), width) },
		falling: true, compare: func(a, b *row) int { return cmp.Compare(variation(a.rtts), variation(b.rtts)) }},
	{title: "UP/s", least: 5, leave: 5, text: right(func(r *row, _ time.Time) string { return rate(r, r.up) }), falling: true,
		compare: func(a, b *row) int { return cmp.Compare(a.up, b.up) }},
	{title: "DN/s", least: 5, leave: 3, text: right(func(r *row, _ time.Time) string { return rate(r, r.down) }), falling: true,
		compare: func(a, b *row) int { return cmp.Compare(a.down, b.down) }},
	{title: "PKTS", least: 5, leave: 9, text: right(func(r *row, _ time.Time) string { return amount(float64(r.packets)) }), falling: true,
		compare: func(a, b *row) int { return cmp.Compare(a.packets, b.packets) }},
	{title: "AGE", least: 5, leave: 6, text: right(func(r *row, now time.Time) string { return period(age(r, now)) }),
		compare: func(a, b *row) int { return -a.first.Compare(b.first) }},
}

// right returns the text of a column whose values are at its right edge.
func right(value func(r *row, now time.Time) string) func(*row, time.Time, int) string {
	return func(r *row, now time.Time, width int) string { return alignRight(value(r, now), width) }
}

// cell returns the text of a row in a column, with a width in cells.
func (c *column) cell(r *row, now time.Time, width int) string {
	if c.text != nil {
		return c.text(r, now, width)
	}
	return tail(c.static(r), width)
}

// rate formats a rate of a connection that may have ended.
func rate(r *row, bytes float64) string {
	if r.isOver() {
		return "-"
	}
	return amount(bytes)
}

// age returns how long a connection has lasted.
func age(r *row, now time.Time) time.Duration {
	if r.isOver() {
		now = r.ended
	}
	return now.Sub(r.first)
}

// variation returns the difference between the largest and the least value.
func variation(values []float32) float32 {
	if len(values) == 0 {
		return -1
	}
	low, high := values[0], values[0]
	for _, v := range values {
		low, high = min(low, v), max(high, v)
	}
	return high - low
}
