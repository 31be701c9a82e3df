package terminal

import (
	"context"
	"encoding/binary"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/quicway/quicway/internal/test/nettest"
	"github.com/quicway/quicway/internal/test/packet"
	"github.com/quicway/quicway/monitor"
)

// sample returns a monitor of a capture with two connections, one of which moves.
func sample(t *testing.T) *monitor.Monitor {
	t.Helper()
	source, err := monitor.OpenFile("../../testdata/sample.pcap")
	if err != nil {
		t.Fatal(err)
	}
	m, err := monitor.New(source, nil)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestFeed checks what a snapshot has of a monitor.
func TestFeed(t *testing.T) {
	f := newFeed(sample(t), new(Log))
	var all sync.WaitGroup
	f.listen(t.Context(), &all)
	if err := f.monitor.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	all.Wait()
	select {
	case <-f.asked:
	default:
		t.Error("no snapshot is wanted after a change of path")
	}
	s := f.snapshot(start)
	if len(s.rows) != 2 || s.moved != 1 || len(s.moves) != 1 || s.whole != nil {
		t.Fatalf("got %d rows, %d moves, details %v", len(s.rows), s.moved, s.whole)
	}
	if v := s.moves[0]; v.name != "moving.example" || v.kind != monitor.Rebinding || v.to.Port() != 50123 {
		t.Errorf("got %+v", v)
	}
	f.follow(mover(s).number)
	if s = f.snapshot(start); s.whole == nil || s.whole.ServerName != "moving.example" || len(s.whole.PathChanges) != 1 {
		t.Errorf("got details %+v", s.whole)
	}
	f.follow(0)
	if s = f.snapshot(start); s.whole != nil {
		t.Errorf("got details %+v, want none", s.whole)
	}
}

// mover returns the row of the connection that has moved.
func mover(s *snapshot) *row {
	for _, r := range s.rows {
		if r.moves > 0 {
			return r
		}
	}
	return nil
}

// TestFeedBounds checks that events do not fill the memory.
func TestFeedBounds(t *testing.T) {
	f := newFeed(sample(t), new(Log))
	c := connection(1, "a", 1)
	for n := range uint64(2 * maxClosed) {
		c.Number = n
		f.event(&monitor.Event{Kind: monitor.EventClosed, Connection: c})
		f.event(&monitor.Event{Kind: monitor.EventPathChanged, Connection: c, Change: &monitor.PathChange{}})
	}
	if len(f.closed) != maxClosed || f.closed[maxClosed-1].Connection.Number != 2*maxClosed-1 {
		t.Errorf("%d closed connections are kept", len(f.closed))
	}
	if len(f.moves) != maxMoves || f.moves[0].number != 2*maxClosed-maxMoves || f.moved != 2*maxClosed {
		t.Errorf("%d changes of path are kept, of %d", len(f.moves), f.moved)
	}
}

// TestFeedRate checks that there is a snapshot each second, and that it does not help to ask
// for more than some.
func TestFeedRate(t *testing.T) {
	const seconds = 10
	for _, ask := range []bool{false, true} {
		nettest.Bubble(t, func(t *testing.T) {
			f := newFeed(sample(t), new(Log))
			ctx, cancel := context.WithTimeout(t.Context(), seconds*interval+minRest/2)
			defer cancel()
			var asking sync.WaitGroup
			defer asking.Wait()
			if ask {
				asking.Go(func() {
					for ctx.Err() == nil {
						f.ask()
						time.Sleep(time.Millisecond)
					}
				})
			}
			got, least, most := 0, seconds+1, seconds+1
			if ask {
				least, most = 3*seconds, int(seconds*interval/minRest)+1
			}
			f.run(ctx, func(*snapshot) { got++ })
			if got < least || got > most {
				t.Errorf("asked %v: got %d snapshots in %d seconds, want %d to %d", ask, got, seconds, least, most)
			}
		})
	}
}

// TestPauses checks that snapshots take at most a fifth of the time.
func TestPauses(t *testing.T) {
	for took, want := range map[time.Duration][2]time.Duration{
		0:                      {minRest, interval - minRest},
		minRest / restByWork:   {minRest, interval - minRest},
		200 * time.Millisecond: {800 * time.Millisecond, 200 * time.Millisecond},
		3 * time.Second:        {12 * time.Second, 0},
	} {
		if rest, further := pauses(took); rest != want[0] || further != want[1] {
			t.Errorf("after %v: got %v and %v, want %v", took, rest, further, want)
		}
	}
}

// BenchmarkFeed measures a snapshot of a monitor that keeps its default number of connections.
func BenchmarkFeed(b *testing.B) {
	source, err := monitor.OpenFile("../../testdata/sample.pcap")
	if err != nil {
		b.Fatal(err)
	}
	m, err := monitor.New(source, nil)
	if err != nil {
		b.Fatal(err)
	}
	fill(m.Tracker(), monitor.DefaultMaxConnections)
	f := newFeed(m, new(Log))
	now := time.Now()
	for b.Loop() {
		now = now.Add(interval)
		if got := len(f.snapshot(now).rows); got < monitor.DefaultMaxConnections*9/10 {
			b.Fatalf("got %d connections", got)
		}
	}
}

// fill adds n connections of one of Google's versions, whose packets are the simplest, to a
// tracker.
func fill(t *monitor.Tracker, n int) {
	payload := append([]byte("\xc0Q046\x50"), make([]byte, 1200)...)
	at := time.Now()
	for i := range n {
		binary.BigEndian.PutUint64(payload[6:], uint64(i)+1)
		client := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 50000)
		server := netip.MustParseAddrPort("198.51.100.2:443")
		for _, frame := range []packet.Frame{{Src: client, Dst: server, Payload: payload}, {Src: server, Dst: client, Payload: payload}} {
			data := frame.Build(make([]byte, 6), make([]byte, 6))
			t.Packet(&monitor.Packet{Time: at, Link: monitor.LinkEthernet, Data: data, Length: len(data)})
		}
		at = at.Add(time.Microsecond)
	}
}
