package monitor

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/quic-go/quic-go"

	"github.com/quicway/quicway/internal/test/nettest"
	"github.com/quicway/quicway/internal/test/wiretest"
	"github.com/quicway/quicway/internal/wire"
)

// linkQUIC follows the published rules of the monitor LinkQUIC: five maps, IPv4,
// version 1, no keys. Where they leave a choice it takes the better one.
type linkQUIC struct {
	connections map[[2]netip.AddrPort]string // source and destination → the first ID
	dcids       map[string]string
	dests       map[netip.AddrPort]bool
	sips        map[[2]netip.AddrPort]int // source without port and destination → length of IDs
	potential   map[[2]netip.AddrPort]bool
	followed    int
	moves       int
}

// newLinkQUIC returns an empty linkQUIC.
func newLinkQUIC() *linkQUIC {
	return &linkQUIC{
		connections: map[[2]netip.AddrPort]string{}, dcids: map[string]string{},
		dests: map[netip.AddrPort]bool{}, sips: map[[2]netip.AddrPort]int{}, potential: map[[2]netip.AddrPort]bool{},
	}
}

func (l *linkQUIC) packet(s sent) {
	if !s.from.Addr().Is4() || len(s.data) < 21 {
		return
	}
	way := [2]netip.AddrPort{s.from, s.to}
	if wire.IsLong(s.data[0]) {
		l.long(s, way)
		return
	}
	if s.data[0]&fixedBit == 0 {
		return
	}
	source := [2]netip.AddrPort{netip.AddrPortFrom(s.from.Addr(), 0), s.to}
	if l.connections[way] != "" || l.potential[way] {
		l.followed++
		return
	}
	if !l.dests[s.to] {
		return
	}
	for n := 1; n <= wire.MaxIDLen; n++ { // one lookup for each length
		if first := l.dcids[string(s.data[1:1+n])]; first != "" {
			l.connections[way] = first
			l.followed++
			l.moves++
			return
		}
	}
	if l.sips[source] > 0 {
		l.potential[way] = true
	}
}

func (l *linkQUIC) long(s sent, way [2]netip.AddrPort) {
	h, err := wire.NoDialect.Parse(s.data)
	if err != nil || h.Version != wire.Version1 {
		return
	}
	first := l.connections[way]
	if first == "" {
		if first = l.connections[[2]netip.AddrPort{s.to, s.from}]; first == "" {
			first = string(h.DstID)
		}
		l.connections[way] = first
	}
	if len(h.DstID) > 0 {
		l.dcids[string(h.DstID)] = first
	}
	l.dests[s.to] = true
	l.sips[[2]netip.AddrPort{netip.AddrPortFrom(s.from.Addr(), 0), s.to}] = len(h.DstID) + 1
	l.followed++
}

func (l *linkQUIC) count() int {
	all := map[string]bool{}
	for _, first := range l.connections {
		all[first] = true
	}
	return len(all)
}

// draftConn returns a connection of a draft that differs from version 1 by its
// number and keys.
func draftConn(tb testing.TB, v wire.Version) []sent {
	tb.Helper()
	first, _ := wiretest.FirstByte(wire.Version1, wire.Initial, 0)
	payload := append(cryptoFrame(0, helloOf("made.example")), make([]byte, 1000)...)
	h := wire.Header{Type: wire.Initial, First: first, Version: wire.Version1, DstID: []byte("original"), SrcID: cliID}
	header, err := wiretest.AppendLong(nil, &h, make([]byte, 1+len(payload)+wire.Overhead))
	if err != nil {
		tb.Fatal(err)
	}
	header = append(header[:len(header)-1-len(payload)-wire.Overhead], 0)
	binary.BigEndian.PutUint32(header[1:], uint32(v))
	keys, err := v.Dialect().InitialKeys(h.DstID, wire.Client)
	if err != nil {
		tb.Fatal(err)
	}
	initial, err := keys.Seal(nil, header, payload)
	if err != nil {
		tb.Fatal(err)
	}
	answer := establishedConn(tb)[1]
	binary.BigEndian.PutUint32(answer.data[1:], uint32(v))
	all := []sent{at(0, clientAddr, serverAddr, initial), answer}
	return addShorts(all, 20, shortHeaders{clientAddr, serverAddr, oldID, 300}, shortHeaders{serverAddr, clientAddr, cliID, 1200})
}

// comparison is a capture, and the connections and moves in it.
type comparison struct {
	name               string
	all                []sent
	connections, moves int
}

// comparisons returns the captures of the table in docs/benchmarks.md.
func comparisons(t *testing.T) []comparison {
	exchange := func(conf *quic.Config) func(*scene) {
		return func(s *scene) { s.exchange(s.dial(conf), 50000) }
	}
	rebind := func(to string) []sent {
		return play(t, nil, false, func(s *scene) {
			conn := s.dial(nil)
			s.exchange(conn, 50000)
			synctest.Wait()
			s.network.Rebind(s.client, to)
			s.exchange(conn, 50000)
		})
	}
	one := play(t, &quic.Config{Versions: v1}, false, exchange(nil))
	two := play(t, nil, false, func(s *scene) {
		for range 2 {
			s.exchange(s.dial(nil), 20000)
		}
	})
	return []comparison{
		{"version 1", one, 1, 0},
		{"version 1, IPv6", toIPv6(one), 1, 0},
		{"version 2", play(t, &quic.Config{Versions: v2}, false, exchange(&quic.Config{Versions: v2})), 1, 0},
		{"draft 29", draftConn(t, 0xff00001d), 1, 0},
		{"draft 23", draftConn(t, 0xff000017), 1, 0},
		{"Version Negotiation, then version 1", play(t, &quic.Config{Versions: v1}, false, exchange(&quic.Config{Versions: []quic.Version{quic.Version2, quic.Version1}})), 1, 0},
		{"Retry", play(t, nil, true, exchange(nil)), 1, 0},
		{"IDs of length zero at the client", play(t, nil, false, func(s *scene) { s.short() }), 1, 0},
		{"two connections between two sockets", two, 2, 0},
		{"IDs change, nothing moves", play(t, nil, false, func(s *scene) { s.exchange(s.dial(nil), 30<<20) }), 1, 0},
		{"a NAT changes the port", rebind("192.0.2.1:50001"), 1, 1},
		{"a NAT changes the address", rebind("192.0.2.99:50001"), 1, 1},
		{"migration, another port, new IDs", play(t, nil, false, func(s *scene) { s.migrate("192.0.2.1:50002") }), 1, 1},
		{"migration, another address, new IDs", play(t, nil, false, func(s *scene) { s.migrate("203.0.113.7:50002") }), 1, 1},
		{"capture begins within", slices.DeleteFunc(slices.Clone(one), func(s sent) bool { return wire.IsLong(s.data[0]) }), 1, 0},
		{"long headers that are none", forged(), 0, 0},
		{"random datagrams", noise(5000), 0, 0},
	}
}

// short opens a connection with quic.Dial, whose IDs have length zero.
func (s *scene) short() {
	s.t.Helper()
	conn, err := quic.Dial(s.t.Context(), s.client, nettest.UDPAddr(netip.MustParseAddrPort(serverAddr)), s.tls, &quic.Config{DisablePathMTUDiscovery: true})
	if err != nil {
		s.t.Fatal(err)
	}
	s.exchange(conn, 50000)
	conn.CloseWithError(0, "")
	synctest.Wait()
}

// forged returns Initials that do not open.
func forged() (out []sent) {
	for i, s := range noise(200) {
		s.data = append(bytes.Repeat([]byte{byte(i)}, 1200)[:1200:1200], s.data...)[:1200]
		copy(s.data, []byte{0xc0, 0, 0, 0, 1, 8, 1, 2, 3, 4, 5, 6, 7, byte(i), 8, 8, 7, 6, 5, 4, 3, 2, byte(i)})
		out = append(out, s)
	}
	return out
}

// share returns which part of the datagrams was followed.
func share(n, all int) string {
	switch {
	case n == 0:
		return "none"
	case n*100 >= all*99:
		return "all"
	}
	return "a part"
}

// movedTo returns the number of moves of a connection.
func movedTo(c *Connection) (n int) {
	for _, change := range c.PathChanges {
		if change.Kind != Probe {
			n++
		}
	}
	return n
}

// The marks in docs/benchmarks.md that the table is between.
const compareBegin, compareEnd = "<!-- make compare -->\n", "<!-- end of make compare -->\n"

// TestLinkQUIC compares the connections found by LinkQUIC's rules and by the
// tracker. It checks the table in docs/benchmarks.md, or writes it if QUICWAY_WRITE is set.
func TestLinkQUIC(t *testing.T) {
	var table strings.Builder
	table.WriteString("| capture | connections, moves | LinkQUIC's rules: connections | moves | datagrams | ours: connections | moves | datagrams |\n|---|---|---:|---:|---|---:|---:|---|\n")
	for _, c := range comparisons(t) {
		theirs, ours := newLinkQUIC(), newTracker(t, nil)
		for _, s := range c.all {
			theirs.packet(s)
		}
		track(ours, c.all)
		n, moves, followed := 0, 0, 0
		for _, found := range connections(ours) {
			if found.Confidence < Proven && c.connections == 0 {
				continue // it is marked as not proven
			}
			n++
			moves += movedTo(&found)
			followed += int(found.FromClient.Packets + found.FromServer.Packets)
		}
		if n != c.connections || moves != c.moves {
			t.Errorf("%s: got %d connections and %d moves, want %d and %d", c.name, n, moves, c.connections, c.moves)
		}
		fmt.Fprintf(&table, "| %s | %d, %d | %d | %d | %s | %d | %d | %s |\n", c.name, c.connections, c.moves,
			theirs.count(), theirs.moves, share(theirs.followed, len(c.all)), n, moves, share(followed, len(c.all)))
	}
	t.Log("\n" + table.String())
	document, err := os.ReadFile("../docs/benchmarks.md")
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := bytes.Cut(document, []byte(compareBegin))
	now, after, ok2 := bytes.Cut(rest, []byte(compareEnd))
	switch {
	case !ok || !ok2:
		t.Fatalf("docs/benchmarks.md has no lines %q and %q", compareBegin, compareEnd)
	case os.Getenv("QUICWAY_WRITE") != "":
		text := slices.Concat(before, []byte(compareBegin), []byte(table.String()), []byte(compareEnd), after)
		if err := os.WriteFile("../docs/benchmarks.md", text, 0o644); err != nil {
			t.Fatal(err)
		}
	case string(now) != table.String():
		t.Error("docs/benchmarks.md has another table: make compare writes this one")
	}
}
