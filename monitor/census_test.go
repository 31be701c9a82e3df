package monitor

import (
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"github.com/quicway/quicway/internal/test/wiretest"
	"github.com/quicway/quicway/internal/wire"
)

// counted checks that the census has what a count of all connections gives.
func counted(tb testing.TB, t *Tracker) {
	tb.Helper()
	var want census
	now := t.clock.now
	t.index.listen(now)
	for e := range t.index.connections.all() {
		c := e.value
		want.add(c.group(), 1)
		// A connection may be counted as silent late, and as open or in its handshake only if it is not.
		late, _ := c.state(now - touchAfter)
		if state, _ := c.state(now); c.counted.state != state && (c.counted.state == StateSilent || late == StateSilent) {
			tb.Errorf("connection %d is counted as %v, want %v", c.number, c.counted.state, state)
		}
	}
	if t.index.census != want {
		tb.Errorf("the census has %+v, want %+v", t.index.census, want)
	}
}

// alpnOf returns an ALPN extension.
func alpnOf(names ...string) []byte {
	var list []byte
	for _, name := range names {
		list = append(append(list, byte(len(name))), name...)
	}
	return extension(16, append(binary.BigEndian.AppendUint16(nil, uint16(len(list))), list...))
}

// TestCensus checks the numbers of connections by confidence, version and protocol, while
// connections come, are identified, and go.
func TestCensus(t *testing.T) {
	tracker := newTracker(t, nil)
	for i, hello := range [][]byte{
		helloWith(serverNameOf("a.example"), alpnOf("h3", "h3-29")),
		helloWith(serverNameOf("b.example"), alpnOf("hq-interop")),
		helloWith(alpnOf("<script>")), // a stranger's
		helloWith(alpnOf("unknown")),  // a group, not a protocol
		helloWith(serverNameOf("c.example")),
		nil, // not complete
	} {
		version := wire.Version1
		if i == 1 {
			version = wire.Version2
		}
		id := fmt.Appendf(nil, "original%d", i)
		tracker.Packet(frame(at(i, fmt.Sprintf("192.0.2.%d:5000", i+1), serverAddr,
			sealed(t, version, wire.Client, id, id, nil, 0, cryptoFrame(0, append(hello, 1)[:max(len(hello), 1)])))))
	}
	tracker.Packet(frame(at(10, "192.0.2.70:5000", serverAddr, googleLong("Q046"))))
	s := tracker.Stats()
	for name, want := range map[string]int{"h3": 1, "hq-interop": 1, "other": 2, "none": 1, "unknown": 2, "doq": 0} {
		if got := s.ALPN[name]; got != want {
			t.Errorf("ALPN %s: got %d, want %d", name, got, want)
		}
	}
	for name, want := range map[string]int{"v1": 5, "v2": 1, "gquic": 1, "draft": 0, "other": 0, "unknown": 0} {
		if got := s.Versions[name]; got != want {
			t.Errorf("version %s: got %d, want %d", name, got, want)
		}
	}
	if s.Connections[Proven] != 6 || s.Connections[GoogleQUIC] != 1 || s.Opened != 7 {
		t.Errorf("got %v, %d opened, want 6 that are proven, one of Google's, and 7 opened", s.Connections, s.Opened)
	}
	if len(s.ALPN) != len(protocolGroups) || len(s.Versions) != len(versionGroups) {
		t.Errorf("got ALPN %v and versions %v, want all groups", s.ALPN, s.Versions)
	}
	counted(t, tracker)
	tracker.Packet(frame(at(int(time.Hour/time.Millisecond), clientAddr, serverAddr, []byte{0})))
	if s := tracker.Stats(); s.ALPN["h3"] != 0 || s.Versions["v1"] != 0 || s.Connections[Proven] != 0 || s.Opened != 7 {
		t.Errorf("an hour later: got %v, %v, %v, %d opened", s.ALPN, s.Versions, s.Connections, s.Opened)
	}
	counted(t, tracker)
}

// TestVersionGroup checks that each version is in a group.
func TestVersionGroup(t *testing.T) {
	for v, want := range map[wire.Version]string{
		0: "unknown", 1: "v1", 0x6b3343cf: "v2", 0xff00001d: "draft", 0xff000022: "draft", 0xff000023: "other",
		0x51303433: "gquic", 0x51999999: "other", 0xfaceb002: "other", 0x1a2a3a4a: "other",
	} {
		if got := versionGroups[versionGroup(v)]; got != want {
			t.Errorf("%v: got %s, want %s", v, got, want)
		}
	}
}

// TestHandshakeHistogram checks that each handshake counts once, with and without a Retry.
func TestHandshakeHistogram(t *testing.T) {
	for _, retry := range []bool{false, true} {
		tracker := newTracker(t, nil)
		track(tracker, play(t, nil, retry, func(s *scene) {
			for range 3 {
				s.exchange(s.dial(nil), 3000)
			}
		}))
		s := tracker.Stats()
		sum := Milliseconds(0)
		for _, c := range connections(tracker) {
			sum += c.Handshake.ServerSide + c.Handshake.ClientSide
		}
		for name, h := range map[string]Histogram{"RTT": s.HandshakeRTT, "server": s.HandshakeServerSide, "client": s.HandshakeClientSide} {
			if h.Count != 3 || h.Buckets[len(h.Buckets)-1].Count != 3 || h.Buckets[0].Count == 3 {
				t.Errorf("Retry %v, %s: got %+v, want 3 handshakes of at least %v", retry, name, h, 2*oneWay)
			}
		}
		if s.HandshakeRTT.Sum != sum || s.HandshakeServerSide.Sum+s.HandshakeClientSide.Sum != sum {
			t.Errorf("Retry %v: got sums %v, and %v + %v, want %v", retry,
				s.HandshakeRTT.Sum, s.HandshakeServerSide.Sum, s.HandshakeClientSide.Sum, sum)
		}
	}
}

// TestHandshakeEndsShort checks a handshake whose last packet has a short header.
func TestHandshakeEndsShort(t *testing.T) {
	tracker := newTracker(t, nil)
	track(tracker, establishedConn(t))
	if h := tracker.Stats().HandshakeRTT; h.Count != 1 || h.Sum.Duration() != 15*time.Millisecond {
		t.Errorf("got %d with the sum %v, want 1 with 15 ms", h.Count, h.Sum)
	}
}

// TestHistogram checks the buckets, which include their bounds and those below.
func TestHistogram(t *testing.T) {
	var d durations
	for _, add := range []time.Duration{-time.Second, 0, time.Millisecond, time.Millisecond + 1, time.Second, time.Hour} {
		d.add(int64(add))
	}
	h := d.histogram()
	for _, b := range h.Buckets {
		want := uint64(3)
		switch up := b.UpTo.Duration(); {
		case up >= time.Second:
			want = 5
		case up > time.Millisecond:
			want = 4
		}
		if b.Count != want {
			t.Errorf("up to %v: got %d, want %d", b.UpTo, b.Count, want)
		}
	}
	if want := Milliseconds(time.Hour + time.Second + 2*time.Millisecond + 1); h.Count != 6 || h.Sum != want {
		t.Errorf("got %d with the sum %v, want 6 with %v", h.Count, h.Sum, want)
	}
}

// TestChangesAreCounted checks that changes count by kind and level, also those beyond
// what a connection keeps.
func TestChangesAreCounted(t *testing.T) {
	all := establishedConn(t)
	const moves = maxChanges + 3
	for n := range moves {
		client := fmt.Sprintf("192.0.2.1:%d", 60000+n)
		all = addShorts(all, 6, shortHeaders{client, serverAddr, oldID, 300}, shortHeaders{serverAddr, client, cliID, 1200})
	}
	tracker := newTracker(t, nil)
	track(tracker, all)
	s, c := tracker.Stats(), only(t, tracker)
	if got := s.PathChanges[Rebinding][High]; got != moves || len(c.PathChanges)+c.PathChangesOmitted != moves {
		t.Errorf("got %v, and %d changes and %d more of the connection, want %d", s.PathChanges, len(c.PathChanges), c.PathChangesOmitted, moves)
	}
	if _, ok := s.PathChanges[NoChange]; ok || len(s.PathChanges) != len(changeNames)-1 || len(s.PathChanges[Probe]) != len(levelNames) {
		t.Errorf("got kinds %v, want all but %v, with all levels", s.PathChanges, NoChange)
	}
}

// BenchmarkStats measures how long reading the counters locks the tracker.
func BenchmarkStats(b *testing.B) {
	tracker := newTracker(b, nil)
	tracker.events.wanted.Store(false)
	first, _ := wiretest.FirstByte(wire.Version1, wire.Handshake, 0)
	for i := range DefaultMaxConnections {
		id := binary.BigEndian.AppendUint64(nil, uint64(i)+1)
		h := wire.Header{Type: wire.Handshake, First: first, Version: wire.Version1, DstID: id[4:], SrcID: id}
		data, err := wiretest.AppendLong(nil, &h, make([]byte, 100))
		if err != nil {
			b.Fatal(err)
		}
		s := at(i/1000, clientAddr, serverAddr, data)
		s.from = addrOf(i)
		tracker.Packet(frame(s))
	}
	if n := tracker.Stats().Tables["connections"].Entries; n != DefaultMaxConnections {
		b.Fatalf("got %d connections, want %d", n, DefaultMaxConnections)
	}
	b.ReportAllocs()
	for b.Loop() {
		tracker.Stats()
	}
}
