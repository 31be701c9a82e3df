package monitor

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/quicway/quicway/internal/decap"
	"github.com/quicway/quicway/internal/wire"
)

// balanced checks that the counters of a tracker, and those of all its connections, count the same
// datagrams. It returns the events, in which the connections that are not kept any more are.
func balanced(tb testing.TB, t *Tracker) (events []Event) {
	tb.Helper()
	all := connections(t)
	events = t.take()
	for _, e := range events {
		if e.Kind == EventClosed {
			all = append(all, e.Connection)
		}
	}
	tracked := uint64(0)
	for i := range all {
		c := &all[i]
		onPaths := uint64(0)
		for _, p := range c.Paths {
			onPaths += p.FromClient.Packets + p.FromServer.Packets
		}
		n := c.FromClient.Packets + c.FromServer.Packets
		if c.PathsDropped == 0 && onPaths != n {
			tb.Errorf("connection %d has %d datagrams, and %d on its paths", c.Number, n, onPaths)
		}
		tracked += n
	}
	s := t.Stats()
	unread := uint64(0)
	for _, n := range s.Unread {
		unread += n
	}
	if tracked != s.Tracked {
		tb.Errorf("connections have %d datagrams, and %d are tracked", tracked, s.Tracked)
	}
	if s.Tracked+s.Other != s.Datagrams || s.Potential > s.Other || s.Adopted > s.Tracked {
		tb.Errorf("got %d tracked (%d adopted) + %d other (%d potential), want %d", s.Tracked, s.Adopted, s.Other, s.Potential, s.Datagrams)
	}
	if s.Packets > unread+s.Datagrams {
		tb.Errorf("got %d packets, more than %d unread and %d datagrams", s.Packets, unread, s.Datagrams)
	}
	return events
}

// timely checks that the times in events are in order, and that no path is validated without packets
// of its server.
func timely(tb testing.TB, events []Event) {
	tb.Helper()
	for i := range events {
		e := &events[i]
		c := &e.Connection
		if c.Last.Before(c.First) || e.Kind == EventNew && e.Time.Before(c.First) {
			tb.Errorf("event %d, %v at %v: the connection was seen from %v to %v", i, e.Kind, e.Time, c.First, c.Last)
		}
		for _, p := range c.Paths {
			if p.Last.Before(p.First) || p.First.Before(c.First) || p.Last.After(c.Last) {
				tb.Errorf("event %d, %v: a path was seen from %v to %v, the connection from %v to %v", i, e.Kind, p.First, p.Last, c.First, c.Last)
			}
			if p.Validated && p.FromServer.Packets == 0 {
				tb.Errorf("event %d, %v: a path is validated without a packet of the server", i, e.Kind)
			}
		}
	}
}

// TestBalance checks that the counters agree, whenever a datagram's connection was found.
func TestBalance(t *testing.T) {
	live := establishedConn(t)
	midFlow := slices.DeleteFunc(slices.Clone(live), func(s sent) bool { return wire.IsLong(s.data[0]) })
	unknown := slices.Clone(live[0].data)
	copy(unknown[1:], "\x1a\x2a\x3a\x4a")
	negotiated := []sent{
		at(0, clientAddr, serverAddr, unknown), at(1, clientAddr, serverAddr, unknown),
		at(20, serverAddr, clientAddr, append(append([]byte{0x80, 0, 0, 0, 0, byte(len(cliID))}, cliID...), append([]byte("\x0corigsrv-id-1"), 0, 0, 0, 1)...)),
	}
	many := slices.Clone(live)
	for i := range 40 {
		many = after(many, establishedBy(t, fmt.Sprintf("192.0.2.1:%d", 50001+i), oldID, cliID))
	}
	for name, test := range map[string]struct {
		all  []sent
		conf *Config
	}{
		"established":    {live, nil},
		"mid-flow":       {midFlow, nil},
		"found late":     {append(slices.Clone(midFlow[:2]), pause(live, 100*time.Millisecond)...), nil},
		"two paths":      {twoPaths(t, 10, 6), nil},
		"negotiation":    {negotiated, nil},
		"noise":          {noise(5000), nil},
		"mixed":          {after(live, noise(500)), nil},
		"evicted":        {many, &Config{MaxConnections: 2}},
		"idle":           {append(slices.Clone(live), pause(live, time.Hour)...), nil},
		"other protocol": {after(noise(50), midFlow), nil},
	} {
		tracker := newTracker(t, test.conf)
		track(tracker, test.all)
		s := tracker.Stats()
		if n := uint64(len(test.all)); s.Packets != n || s.Datagrams != n {
			t.Errorf("%s: got %d packets and %d datagrams, want %d", name, s.Packets, s.Datagrams, n)
		}
		if got := s.Adopted > 0; got != slices.Contains([]string{"mid-flow", "two paths", "negotiation", "other protocol"}, name) {
			t.Errorf("%s: %d datagrams were adopted", name, s.Adopted)
		}
		t.Run(name, func(t *testing.T) { timely(t, balanced(t, tracker)) })
	}
}

// TestBalanceOfSegments checks that the counters agree for datagrams that the system has put together.
func TestBalanceOfSegments(t *testing.T) {
	short := append([]byte{0x40}, append(slices.Clone(oldID), make([]byte, 91)...)...)
	train := slices.Repeat(short, 20)
	for name, p := range map[string]struct{ segment, captured int }{
		"told": {100, 0}, "guessed": {0, 0}, "cut": {100, 250}, "one": {2000, 0}, "coalesced": {0, 150},
	} {
		tracker := newTracker(t, nil)
		all := establishedConn(t)
		track(tracker, all)
		last := all[len(all)-1].at
		for range 3 {
			packet := frame(sent{at: last, from: all[0].from, to: all[0].to, data: train})
			packet.SegmentSize = p.segment
			if p.captured > 0 {
				packet.Data = packet.Data[:p.captured]
			}
			tracker.Packet(packet)
		}
		tracker.Packet(&Packet{Time: last, Link: LinkRaw, Data: []byte{0x45}, Length: 1})
		s := tracker.Stats()
		if want := uint64(len(all) + 4); s.Packets != want || s.Unread[decap.Truncated.String()]+s.Unread[decap.Malformed.String()] != 1 {
			t.Errorf("%s: got %d packets, want %d, with one unread of %v", name, s.Packets, want, s.Unread)
		}
		t.Run(name, func(t *testing.T) { timely(t, balanced(t, tracker)) })
	}
}
