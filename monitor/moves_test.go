package monitor

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quicway/quicway/internal/wire"
)

// lane is how shorts of a side look on a path.
type lane struct {
	from, to string
	id       []byte
	length   int
}

// talk appends packets with short headers, some milliseconds apart.
func talk(all []sent, n int, lanes ...lane) []sent {
	rng := rand.New(rand.NewPCG(1, uint64(len(all))))
	last := all[len(all)-1].at.Sub(start)
	for range n {
		for _, l := range lanes {
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

// The lanes of a connection after its handshake, and those of the one that is made
// by settled.
var (
	oldID = []byte("srv-id-1")
	newID = []byte("srv-id-2")
	cliID = []byte("cli1")
	cliNo = []byte("cli2")
)

// settled is a connection whose handshake is over.
func settled(tb testing.TB) []sent { return settledBy(tb, clientAddr, oldID, cliID) }

// settledBy is one of another client.
func settledBy(tb testing.TB, clientAddr string, oldID, cliID []byte) []sent {
	tb.Helper()
	all := []sent{at(0, clientAddr, serverAddr, initialOf(tb, append([]byte("orig"), oldID...), cliID, 0, cryptoFrame(0, helloOf("moves.example"))))}
	handshake := []byte{0xe0, 0, 0, 0, 1, byte(len(cliID))}
	handshake = append(append(handshake, cliID...), byte(len(oldID)))
	handshake = append(append(handshake, oldID...), 0x40, 100)
	all = append(all, at(10, serverAddr, clientAddr, append(handshake, make([]byte, 100)...)))
	return talk(all, 20, lane{clientAddr, serverAddr, oldID, 300}, lane{serverAddr, clientAddr, cliID, 1200})
}

// TestPreferredAddress: the server has told of another address, in what nobody can
// read, and the client tries it and goes there (RFC 9000 §9.6).
func TestPreferredAddress(t *testing.T) {
	const preferred = "198.51.100.99:443"
	all := talk(settled(t), 1, lane{clientAddr, preferred, newID, 1200}, lane{preferred, clientAddr, cliNo, 1200})
	all = talk(all, 20, lane{clientAddr, preferred, newID, 300}, lane{preferred, clientAddr, cliNo, 1200})
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

// twoPaths is a connection that tries a second path, and goes by both in turns.
func twoPaths(tb testing.TB, turns, packets int) []sent {
	tb.Helper()
	const second = "192.0.2.1:50002"
	one := []lane{{clientAddr, serverAddr, oldID, 300}, {serverAddr, clientAddr, cliID, 1200}}
	two := []lane{{second, serverAddr, newID, 300}, {serverAddr, second, cliNo, 1200}}
	all := talk(settled(tb), 1, lane{second, serverAddr, newID, 1200}, lane{serverAddr, second, cliNo, 1200})
	for range turns {
		all = talk(talk(all, packets, two...), packets, one...)
	}
	return all
}

// TestMultipath: a connection that goes on by two paths in turns is not one that
// moves all the time.
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

// TestMoverAmongForgotten: the connections that are known at a server are not all that
// there are.
func TestMoverAmongForgotten(t *testing.T) {
	var all []sent
	for n := range maxOwners + 1 { // of which the last and the first go on
		client := fmt.Sprintf("192.0.2.%d:50000", 10+n)
		for _, s := range settledBy(t, client, fmt.Appendf(nil, "server-%d", n), fmt.Appendf(nil, "c-%02d", n)) {
			s.at = s.at.Add(time.Duration(n) * 10 * time.Second)
			all = append(all, s)
		}
	}
	all = talk(all, 20, lane{"203.0.113.7:50002", serverAddr, newID, 1200}, lane{serverAddr, "203.0.113.7:50002", cliNo, 1200})
	tracker := newTracker(t, nil)
	track(tracker, all)
	for _, c := range connections(tracker) {
		if len(c.PathChanges) > 0 {
			t.Errorf("got %+v", c.PathChanges)
		}
	}
}

// TestMoverInACrowd: from another address it may be any of several connections, and
// so is none of them.
func TestMoverInACrowd(t *testing.T) {
	all := settled(t)
	all = append(all, settledBy(t, "192.0.2.77:50000", []byte("another1"), []byte("cli9"))...) // at the same time
	slices.SortStableFunc(all, func(a, b sent) int { return a.at.Compare(b.at) })
	all = talk(all, 20, lane{"203.0.113.7:50002", serverAddr, newID, 1200}, lane{serverAddr, "203.0.113.7:50002", cliNo, 1200})
	tracker := newTracker(t, nil)
	track(tracker, all)
	for _, c := range connections(tracker) {
		if len(c.PathChanges) > 0 && c.PathChanges[0].To.String() == "203.0.113.7:50002" {
			t.Errorf("got %+v", c.PathChanges)
		}
	}
}

// pause lets time pass before what is appended next.
func pause(all []sent, d time.Duration) []sent {
	last := all[len(all)-1]
	last.at = last.at.Add(d)
	last.data = last.data[:1] // nothing that is QUIC
	return append(all, last)
}

// TestNoProbe: full datagrams from a host whose connection has been silent for long
// try no path of it, and neither do those that were under way before it, or others that
// are not full.
func TestNoProbe(t *testing.T) {
	const second, elsewhere = "192.0.2.1:50002", "203.0.113.7:50002"
	lanes := []lane{{second, serverAddr, newID, 1200}, {serverAddr, second, cliNo, 1200}}
	small := []lane{{second, serverAddr, newID, 1199}, {serverAddr, second, cliNo, 1199}}
	first := at(0, second, serverAddr, append([]byte{0x41}, append(newID[:8:8], make([]byte, 1191)...)...))
	for name, all := range map[string][]sent{
		"late":                       talk(pause(settled(t), 2*time.Minute), 6, lanes...),
		"in little, from the client": talk(settled(t), 6, small[0], lanes[1]),
		"in little, from elsewhere":  talk(settled(t), 6, lane{elsewhere, serverAddr, newID, 1199}, lane{serverAddr, elsewhere, cliNo, 1200}),
		"in little, from the server": talk(settled(t), 6, lanes[0], small[1]),
		"early":                      talk(append([]sent{first}, settled(t)...), 6, lanes...),
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

// TestProbeAfterMove: where a connection has moved it tries the next path from.
func TestProbeAfterMove(t *testing.T) {
	const second, third = "203.0.113.7:50001", "203.0.113.7:50002"
	all := talk(settled(t), 20, lane{second, serverAddr, oldID, 300}, lane{serverAddr, second, cliID, 1200})
	all = talk(all, 20, lane{third, serverAddr, newID, 1200}, lane{serverAddr, third, cliNo, 1200})
	other := settledBy(t, "192.0.2.77:50000", []byte("another1"), []byte("cli9")) // so that time alone says nothing
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

// TestMoveOfOneSide: of a connection whose other direction is not captured a NAT's
// rebinding is seen all the same, if with less confidence.
func TestMoveOfOneSide(t *testing.T) {
	const second = "192.0.2.1:50002"
	all := append(settled(t), at(300, clientAddr, serverAddr, handshakeOf(t, wire.Version1, oldID, cliID)))
	all = talk(all, 20, lane{second, serverAddr, oldID, 300}, lane{serverAddr, second, cliID, 1200})
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

// TestManyIDs: of IDs that change without end the latest are kept, and nothing leads on
// to a connection that has gone, not from an ID that it had long before either.
func TestManyIDs(t *testing.T) {
	const n = 30
	all := settled(t)
	for i := range n {
		all = talk(all, 3, lane{clientAddr, serverAddr, []byte{9, 9, byte(i), 1, 2, 3, 4, 5}, 300}, lane{serverAddr, clientAddr, cliID, 1200})
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

// TestMoverAmongSilent: of the connections at a server those that are over, most likely,
// have not moved.
func TestMoverAmongSilent(t *testing.T) {
	const second = "203.0.113.7:50002"
	all := settledBy(t, "192.0.2.77:50000", []byte("another1"), []byte("cli9"))
	for _, s := range settled(t) {
		s.at = s.at.Add(10 * time.Second)
		all = append(all, s)
	}
	all = talk(all, 20, lane{second, serverAddr, newID, 1200}, lane{serverAddr, second, cliNo, 1200})
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
