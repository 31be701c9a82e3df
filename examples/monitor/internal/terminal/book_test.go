package terminal

import (
	"iter"
	"slices"
	"testing"
	"time"

	"github.com/quicway/quicway/monitor"
)

// updated updates a book, and returns the rows by number.
func updated(b *book, now time.Time, kept []monitor.Connection, closed ...monitor.Event) map[uint64]*row {
	out := make(map[uint64]*row)
	for _, r := range b.update(now, slices.Values(kept), func() []monitor.Event { return closed }) {
		out[r.number] = r
	}
	return out
}

// TestRates checks that rates are those since the snapshot before, also if two snapshots
// follow each other closely, and are never negative.
func TestRates(t *testing.T) {
	b, c := newBook(), connection(1, "a", 10)
	for i, step := range []struct {
		after    time.Duration
		bytes    uint64
		up, down float64
	}{
		{0, 1000, 100, 900}, {time.Second, 3000, 2000, 0}, {2 * time.Second, 3000, 0, 0},
		{2100 * time.Millisecond, 4000, 0, 0}, {3 * time.Second, 4000, 1000, 0},
		{4 * time.Second, 2000, 0, 0}, // the monitor has exchanged the sides
	} {
		c.FromClient.Bytes = step.bytes
		r := updated(b, start.Add(step.after), []monitor.Connection{c})[1]
		if r.up != step.up || r.down != step.down {
			t.Errorf("snapshot %d: got %v and %v bytes a second, want %v and %v", i, r.up, r.down, step.up, step.down)
		}
	}
}

// TestTrend checks that the latest round trips are kept, each once.
func TestTrend(t *testing.T) {
	b, c := newBook(), connection(1, "a", 10)
	c.Handshake = monitor.HandshakeRTT{}
	if r := updated(b, start, []monitor.Connection{c})[1]; len(r.rtts) != 0 || roundTrip(r.rtt) != "-" {
		t.Errorf("got %v without a round trip", r.rtts)
	}
	var before []float32
	for i := range 2 * maxSamples {
		c.SpinRTT = monitor.Milliseconds(i/2+1) * 1e6
		r := updated(b, start, []monitor.Connection{c})[1]
		if i > 0 && i%2 == 1 && !slices.Equal(r.rtts, before) {
			t.Fatalf("the same round trip was kept twice: %v", r.rtts)
		}
		before = r.rtts
	}
	if len(before) != maxSamples || before[maxSamples-1] != maxSamples {
		t.Errorf("got %v", before)
	}
	c.SpinRTT = 7e6
	if r := updated(b, start, []monitor.Connection{c})[1]; len(r.rtts) != maxSamples || r.rtts[maxSamples-1] != 7 || before[maxSamples-1] != maxSamples {
		t.Errorf("got %v, before %v", r.rtts, before)
	}
}

// TestEnds checks that a connection ends by an event or without one, once, and is forgotten.
func TestEnds(t *testing.T) {
	b, all := newBook(), three()
	updated(b, start, all)
	now := start.Add(time.Second)
	got := updated(b, now, all[2:], monitor.Event{Kind: monitor.EventClosed, Connection: all[0], Reason: monitor.Evicted})
	for _, number := range []uint64{1, 2} {
		if r := got[number]; r == nil || r.ended != now || !r.removed || r.up != 0 || r.state != removedState || !r.matches([]string{removedState}) || r.matches([]string{"open"}) {
			t.Errorf("connection %d: got %+v", number, r)
		}
	}
	all[1].State = monitor.StateEnded
	got = updated(b, now.Add(endedFor-1), all[2:], monitor.Event{Kind: monitor.EventClosed, Connection: all[1], Reason: monitor.Idle},
		monitor.Event{Kind: monitor.EventClosed, Connection: all[0], Reason: monitor.Evicted})
	if got[1] == nil || got[1].ended != now || got[1].state != removedState || got[2] == nil || got[2].ended != now || !got[2].matches([]string{"apple", "ended"}) {
		t.Errorf("got %+v", got)
	}
	if got = updated(b, now.Add(endedFor), all[2:]); len(got) != 1 || len(b.final) != 0 {
		t.Errorf("got %d rows and %d connections, want only the open one", len(got), len(b.final))
	}
}

// TestEndsInHandshake checks that a connection that has ended, but is kept by the monitor, is
// shown for as long as others that have ended, and again if its end is withdrawn.
func TestEndsInHandshake(t *testing.T) {
	b, c := newBook(), connection(1, "a", 1)
	ended := c
	ended.State, ended.Ended = monitor.StateEnded, &monitor.Ending{Time: start, By: "server"}
	for i, step := range []struct {
		after time.Duration
		c     monitor.Connection
		state string // "": not shown
	}{
		{0, c, "open"}, {time.Second, ended, "ended"}, {endedFor, ended, "ended"}, {endedFor + time.Second, ended, ""},
		{2 * endedFor, ended, ""}, {2*endedFor + 1, c, "open"}, {3 * endedFor, ended, "ended"},
	} {
		state := ""
		step.c.Last = start.Add(step.after)
		if r := updated(b, start.Add(step.after), []monitor.Connection{step.c})[1]; r != nil {
			state = r.state
		}
		if state != step.state {
			t.Errorf("step %d: got %q, want %q", i, state, step.state)
		}
	}
}

// TestClosedWins checks that a connection that is closed while it is copied has ended.
func TestClosedWins(t *testing.T) {
	all := three()
	got := updated(newBook(), start, all, monitor.Event{Kind: monitor.EventClosed, Connection: all[0]})
	if got[1].ended.IsZero() || !got[2].ended.IsZero() {
		t.Errorf("got %+v", got)
	}
}

// TestMaxEnded checks that the connections that have ended first make room for others.
func TestMaxEnded(t *testing.T) {
	b := newBook()
	for i := range uint64(3) {
		var closed []monitor.Event
		for n := range uint64(maxEnded / 2) {
			closed = append(closed, monitor.Event{Kind: monitor.EventClosed, Connection: connection(1+i*maxEnded+n, "a", 1)})
		}
		updated(b, start.Add(time.Duration(i)*time.Second), nil, closed...)
	}
	if len(b.rows) != maxEnded || len(b.final) != maxEnded || b.rows[1] != nil || b.rows[1+maxEnded] == nil {
		t.Errorf("got %d rows and %d connections, want the latest %d", len(b.rows), len(b.final), maxEnded)
	}
}

// TestLabel checks that the texts of a row follow what becomes known of the connection.
func TestLabel(t *testing.T) {
	b, c := newBook(), connection(1, "Name.Example", 1)
	named := c
	c.TLS, c.Version, c.Confidence = monitor.TLS{}, 0, monitor.MidFlow
	if r := updated(b, start, []monitor.Connection{c})[1]; r.name != "-" || r.alpn != "-" || r.version != "unknown" || r.sure != "midflow" {
		t.Errorf("got %+v", r.label)
	}
	r := updated(b, start, []monitor.Connection{named})[1]
	if r.name != "Name.Example" || r.alpn != "h3" || r.version != "v1" || r.sure != "proven" || !r.matches([]string{"name.ex", "v1", "open"}) {
		t.Errorf("got %+v", r.label)
	}
	if again := updated(b, start, []monitor.Connection{named})[1]; again.label != r.label {
		t.Errorf("got %+v, want the same label", again.label)
	}
}

// many yields n connections.
func many(n uint64) iter.Seq[monitor.Connection] {
	template := full()
	return func(yield func(monitor.Connection) bool) {
		for i := range n {
			c := template
			c.Number, c.ServerName = i+1, "host-"+string(rune('a'+i%26))+".example"
			c.FromClient.Bytes = i * 7919 % 1000003
			if !yield(c) {
				return
			}
		}
	}
}

// BenchmarkSnapshot measures a snapshot of the default number of connections.
func BenchmarkSnapshot(b *testing.B) {
	k := newBook()
	none := func() []monitor.Event { return nil }
	now := start
	for b.Loop() {
		now = now.Add(time.Second)
		k.update(now, many(monitor.DefaultMaxConnections), none)
	}
}

// BenchmarkView measures what a model does with that many rows.
func BenchmarkView(b *testing.B) {
	rows := newBook().update(start, many(monitor.DefaultMaxConnections), func() []monitor.Event { return nil })
	m := newModel(func(uint64) {})
	s := &snapshot{at: start, rows: rows}
	m.Update(s)
	b.Run("snapshot", func(b *testing.B) {
		for b.Loop() {
			m.Update(s)
		}
	})
	b.Run("filter", func(b *testing.B) {
		for b.Loop() {
			m.list.setFilter("host-c")
			m.list.setFilter("host-")
		}
	})
	b.Run("draw", func(b *testing.B) {
		for b.Loop() {
			m.View()
		}
	})
}
