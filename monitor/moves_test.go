package monitor

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quicway/quicway/internal/wire"
)

// shortHeaders are the short headers that one side sends on a path.
type shortHeaders struct {
	from, to string
	id       []byte
	length   int
}

// addShorts appends packets with short headers at intervals of five milliseconds: n
// of each kind.
func addShorts(all []sent, n int, kinds ...shortHeaders) []sent {
	rng := rand.New(rand.NewPCG(1, uint64(len(all))))
	last := all[len(all)-1].at.Sub(start)
	for range n {
		for _, l := range kinds {
			b := make([]byte, l.length)
			for i := range b {
				b[i] = byte(rng.Uint32())
			}
			b[0] = 0x40 | b[0]&0x1f
			copy(b[1:], l.id)
			last += 5 * time.Millisecond
			all = append(all, at(int(last/time.Millisecond), l.from, l.to, b))
		}
	}
	return all
}

// The all of a connection after its handshake, and those of the one that is made
// by settled.
var (
	oldID = []byte("srv-id-1")
	newID = []byte("srv-id-2")
	cliID = []byte("cli1")
	cliNo = []byte("cli2")
)

// establishedConn returns the packets of a connection up to some short headers.
func establishedConn(tb testing.TB) []sent { return establishedBy(tb, clientAddr, oldID, cliID) }

// establishedBy is establishedConn of another client.
func establishedBy(tb testing.TB, clientAddr string, oldID, cliID []byte) []sent {
	tb.Helper()
	orig := append([]byte("orig"), oldID...)
	if len(oldID) == 0 {
		orig = append(orig, clientAddr[len(clientAddr)-1]) // each client has another one
	}
	all := []sent{at(0, clientAddr, serverAddr, initialOf(tb, orig, cliID, 0, cryptoFrame(0, helloOf("moves.example"))))}
	handshake := []byte{0xe0, 0, 0, 0, 1, byte(len(cliID))}
	handshake = append(append(handshake, cliID...), byte(len(oldID)))
	handshake = append(append(handshake, oldID...), 0x40, 100)
	all = append(all, at(10, serverAddr, clientAddr, append(handshake, make([]byte, 100)...)))
	return addShorts(all, 20, shortHeaders{clientAddr, serverAddr, oldID, 300}, shortHeaders{serverAddr, clientAddr, cliID, 1200})
}

// TestPreferredAddress checks a client that probes and uses the server's preferred
// address (RFC 9000 §9.6). The address itself is encrypted.
func TestPreferredAddress(t *testing.T) {
	const preferred = "198.51.100.99:443"
	all := addShorts(establishedConn(t), 1, shortHeaders{clientAddr, preferred, newID, 1200}, shortHeaders{preferred, clientAddr, cliNo, 1200})
	all = addShorts(all, 20, shortHeaders{clientAddr, preferred, newID, 300}, shortHeaders{preferred, clientAddr, cliNo, 1200})
	tracker := newTracker(t, nil)
	track(tracker, all)
	c := only(t, tracker)
	if got, want := kinds(c), []ChangeKind{Probe, PreferredAddress}; !slices.Equal(got, want) {
		t.Fatalf("got changes %v, want %v", got, want)
	}
	change := c.PathChanges[1]
	if change.From.String() != serverAddr || change.To.String() != preferred || change.Confidence != Medium || change.Evidence == "" {
		t.Errorf("got %+v", change)
	}
	if p := c.Paths[len(c.Paths)-1]; !p.Active || p.Server.String() != preferred {
		t.Errorf("got active path %+v", p)
	}
}

// twoPaths returns the packets of a connection that probes a second path and
// alternates between both.
func twoPaths(tb testing.TB, turns, packets int) []sent {
	tb.Helper()
	const second = "192.0.2.1:50002"
	one := []shortHeaders{{clientAddr, serverAddr, oldID, 300}, {serverAddr, clientAddr, cliID, 1200}}
	two := []shortHeaders{{second, serverAddr, newID, 300}, {serverAddr, second, cliNo, 1200}}
	all := addShorts(establishedConn(tb), 1, shortHeaders{second, serverAddr, newID, 1200}, shortHeaders{serverAddr, second, cliNo, 1200})
	for range turns {
		all = addShorts(addShorts(all, packets, two...), packets, one...)
	}
	return all
}

// TestMultipath checks that a connection that alternates between two paths does not
// move all the time.
func TestMultipath(t *testing.T) {
	all := twoPaths(t, 20, 6)
	tracker := newTracker(t, nil)
	track(tracker, all)
	c := only(t, tracker)
	got := kinds(c)
	if len(got) == 0 || got[0] != Probe || got[len(got)-1] != Multipath || len(got) > 2+maxReturns {
		t.Errorf("got changes %v, want a probe first, and in the end %v", got, Multipath)
	}
	if change := c.PathChanges[len(got)-1]; change.Confidence != Medium || change.Evidence == "" {
		t.Errorf("got %+v", change)
	}
	if len(c.Paths) != 2 || c.FromClient.Packets+c.FromServer.Packets != uint64(len(all)) {
		t.Errorf("got %d paths with %v and %v, want 2 with %d packets", len(c.Paths), c.FromClient, c.FromServer, len(all))
	}
}

// TestMoveAmongEvicted checks that no connection is found by timing if more
// connections were at the server than are kept.
func TestMoveAmongEvicted(t *testing.T) {
	var all []sent
	for n := range maxSourceConn + 1 {
		client := fmt.Sprintf("192.1.%d.%d:50000", n/200, 10+n%200)
		for _, s := range establishedBy(t, client, fmt.Appendf(nil, "srv-%04d", n), fmt.Appendf(nil, "c%03d", n)) {
			s.at = s.at.Add(time.Duration(n) * 500 * time.Millisecond)
			all = append(all, s)
		}
	}
	all = addShorts(all, 20, shortHeaders{"203.0.113.7:50002", serverAddr, newID, 1200}, shortHeaders{serverAddr, "203.0.113.7:50002", cliNo, 1200})
	tracker := newTracker(t, nil)
	track(tracker, all)
	for _, c := range connections(tracker) {
		if len(c.PathChanges) > 0 {
			t.Errorf("got %+v", c.PathChanges)
		}
	}
}

// TestMoveAmongSeveral checks that no connection is found by timing if it may be
// any of several.
func TestMoveAmongSeveral(t *testing.T) {
	all := establishedConn(t)
	all = append(all, establishedBy(t, "192.0.2.77:50000", []byte("another1"), []byte("cli9"))...) // at the same time
	slices.SortStableFunc(all, func(a, b sent) int { return a.at.Compare(b.at) })
	all = addShorts(all, 20, shortHeaders{"203.0.113.7:50002", serverAddr, newID, 1200}, shortHeaders{serverAddr, "203.0.113.7:50002", cliNo, 1200})
	tracker := newTracker(t, nil)
	track(tracker, all)
	for _, c := range connections(tracker) {
		if c.Confidence == Proven && len(c.PathChanges) > 0 {
			t.Errorf("got %+v", c.PathChanges)
		}
	}
}

// pause returns the packets moved in time, so that what addShorts appends comes d
// later.
func pause(all []sent, d time.Duration) []sent {
	last := all[len(all)-1]
	last.at = last.at.Add(d)
	last.data = last.data[:1] // not QUIC
	return append(all, last)
}

// TestNoProbe checks full datagrams that are not taken for a probe: those of a host
// whose connection has been silent for long, those that began before the
// connection, and those that are not full.
func TestNoProbe(t *testing.T) {
	const second, elsewhere = "192.0.2.1:50002", "203.0.113.7:50002"
	all := []shortHeaders{{second, serverAddr, newID, 1200}, {serverAddr, second, cliNo, 1200}}
	small := []shortHeaders{{second, serverAddr, newID, 1199}, {serverAddr, second, cliNo, 1199}}
	first := at(0, second, serverAddr, append([]byte{0x41}, append(newID[:8:8], make([]byte, 1191)...)...))
	for name, all := range map[string][]sent{
		"late":                       addShorts(pause(establishedConn(t), 2*time.Minute), 6, all...),
		"in little, from the client": addShorts(establishedConn(t), 6, small[0], all[1]),
		"in little, from elsewhere":  addShorts(establishedConn(t), 6, shortHeaders{elsewhere, serverAddr, newID, 1199}, shortHeaders{serverAddr, elsewhere, cliNo, 1200}),
		"in little, from the server": addShorts(establishedConn(t), 6, all[0], small[1]),
		"early":                      addShorts(append([]sent{first}, establishedConn(t)...), 6, all...),
	} {
		tracker := newTracker(t, nil)
		track(tracker, all)
		for _, c := range connections(tracker) {
			if len(c.Paths) != 1 || len(c.PathChanges) != 0 {
				t.Errorf("%s: got paths %v, changes %v", name, c.Paths, c.PathChanges)
			}
		}
	}
}

// TestProbeAfterMove checks that a connection that has moved may probe the next
// path.
func TestProbeAfterMove(t *testing.T) {
	const second, third = "203.0.113.7:50001", "203.0.113.7:50002"
	all := addShorts(establishedConn(t), 20, shortHeaders{second, serverAddr, oldID, 300}, shortHeaders{serverAddr, second, cliID, 1200})
	all = addShorts(all, 20, shortHeaders{third, serverAddr, newID, 1200}, shortHeaders{serverAddr, third, cliNo, 1200})
	other := establishedBy(t, "192.0.2.77:50000", []byte("another1"), []byte("cli9")) // so that timing is not enough
	all = append(all, other...)
	slices.SortStableFunc(all, func(a, b sent) int { return a.at.Compare(b.at) })
	tracker := newTracker(t, nil)
	track(tracker, all)
	for _, c := range connections(tracker) {
		if c.Paths[0].Client.String() != clientAddr {
			continue
		}
		if got, want := kinds(&c), []ChangeKind{Migration, Probe, Migration}; !slices.Equal(got, want) {
			t.Errorf("got changes %v, want %v", got, want)
		}
		return
	}
	t.Error("the connection is not known")
}

// TestOneWayRebinding checks that a rebinding is found, with less confidence, if
// only one direction is captured.
func TestOneWayRebinding(t *testing.T) {
	const second = "192.0.2.1:50002"
	all := append(establishedConn(t), at(300, clientAddr, serverAddr, handshakeOf(t, wire.Version1, oldID, cliID)))
	all = addShorts(all, 20, shortHeaders{second, serverAddr, oldID, 300}, shortHeaders{serverAddr, second, cliID, 1200})
	for name, quiet := range map[string]string{"client": "silent for 5ms", "server": "silent for 100ms"} {
		half := slices.DeleteFunc(slices.Clone(all), func(s sent) bool { return (s.to.String() == serverAddr) != (name == "client") })
		tracker := newTracker(t, nil)
		track(tracker, half)
		c := only(t, tracker)
		if got := kinds(c); !slices.Equal(got, []ChangeKind{Rebinding}) || c.PathChanges[0].Confidence != Low || !strings.Contains(c.PathChanges[0].Evidence, quiet) {
			t.Errorf("%s alone: got changes %+v, want a rebinding of low confidence", name, c.PathChanges)
		}
		if got := c.FromClient.Packets + c.FromServer.Packets; got != uint64(len(half)) || len(c.Paths) != 2 {
			t.Errorf("%s alone: got %d packets on %d paths, want %d on 2", name, got, len(c.Paths), len(half))
		}
	}
}

// TestManyIDs checks that the latest of many IDs are kept, and that no earlier ID
// leads to a removed connection.
func TestManyIDs(t *testing.T) {
	const n = 30
	all := establishedConn(t)
	for i := range n {
		all = addShorts(all, 3, shortHeaders{clientAddr, serverAddr, []byte{9, 9, byte(i), 1, 2, 3, 4, 5}, 300}, shortHeaders{serverAddr, clientAddr, cliID, 1200})
	}
	tracker := newTracker(t, nil)
	track(tracker, all)
	bounded(t, tracker)
	c := only(t, tracker)
	if c.Rotations != n || len(c.ServerIDs) != maxSideIDs || c.ServerIDs[maxSideIDs-1] != "09091d0102030405" || len(c.PathChanges) != 0 {
		t.Errorf("got %d rotations, IDs %v, changes %v", c.Rotations, c.ServerIDs, c.PathChanges)
	}
	if got, want := tracker.Stats().IDOverflow, uint64(n+1-maxSideIDs); got != want {
		t.Errorf("got %d IDs too many, want %d", got, want)
	}
	track(tracker, pause(all, time.Hour)[len(all):])
	for name, table := range tracker.Stats().Tables {
		if table.Entries != 0 && name != "potential" {
			t.Errorf("%s has %d entries long after, want none", name, table.Entries)
		}
	}
}

// TestMoveAmongSilent checks that connections that have been silent for long are
// not taken to move.
func TestMoveAmongSilent(t *testing.T) {
	const second = "203.0.113.7:50002"
	all := establishedBy(t, "192.0.2.77:50000", []byte("another1"), []byte("cli9"))
	for _, s := range establishedConn(t) {
		s.at = s.at.Add(10 * time.Second)
		all = append(all, s)
	}
	all = addShorts(all, 20, shortHeaders{second, serverAddr, newID, 1200}, shortHeaders{serverAddr, second, cliNo, 1200})
	tracker := newTracker(t, nil)
	track(tracker, all)
	for _, c := range connections(tracker) {
		want := []ChangeKind{Probe, Migration}
		if c.Paths[0].Client.String() != clientAddr {
			want = nil
		}
		if got := kinds(&c); !slices.Equal(got, want) {
			t.Errorf("of %v: got changes %v, want %v", c.Paths[0].Client, got, want)
		}
	}
}

// TestTotalsOfDroppedPaths checks that the counters of a connection never go down: paths that are
// not kept any more stay in them, and are counted.
func TestTotalsOfDroppedPaths(t *testing.T) {
	const places = 3 * maxPaths
	all := establishedConn(t)
	for i := range places {
		all = addShorts(all, 3, shortHeaders{fmt.Sprintf("192.0.2.1:%d", 2000+i), serverAddr, oldID, 300})
	}
	tracker := newTracker(t, nil)
	var before Traffic
	var fromClient Traffic
	for _, s := range all {
		tracker.Packet(frame(s))
		c := only(t, tracker)
		if c.FromClient.Packets < before.Packets || c.FromClient.Bytes < before.Bytes {
			t.Fatalf("the client has sent %v, and %v before", c.FromClient, before)
		}
		before = c.FromClient
		if s.to == netip.MustParseAddrPort(serverAddr) {
			fromClient.add(Traffic{Packets: 1, Bytes: uint64(len(s.data))})
		}
	}
	c := only(t, tracker)
	if c.FromClient != fromClient {
		t.Errorf("the client has sent %v, want %v", c.FromClient, fromClient)
	}
	if len(c.Paths) > maxPaths || c.PathsDropped != places+1-len(c.Paths) {
		t.Errorf("%d paths are kept and %d dropped, of %d", len(c.Paths), c.PathsDropped, places+1)
	}
}

// TestPathOfNewConnection checks that the path of a connection has true times from the first event
// on, and is not validated before the server has sent something.
func TestPathOfNewConnection(t *testing.T) {
	all := establishedConn(t)
	tracker := newTracker(t, nil)
	for i, s := range all[:2] {
		tracker.Packet(frame(s))
		for _, e := range append(tracker.take(), Event{Connection: *only(t, tracker)}) {
			for _, p := range e.Connection.Paths {
				if p.Last.Before(p.First) || !p.First.Equal(all[0].at) {
					t.Errorf("packet %d, %v: the path was seen from %v to %v", i, e.Kind, p.First, p.Last)
				}
				if p.Validated && p.FromServer.Packets == 0 {
					t.Errorf("packet %d, %v: validated without a packet of the server", i, e.Kind)
				}
			}
		}
	}
	if c := only(t, tracker); !c.Paths[0].Validated {
		t.Error("the path is not validated after the server has answered")
	}
}
