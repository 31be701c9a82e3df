package monitor

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quicway/quicway/internal/test/wiretest"
	"github.com/quicway/quicway/internal/wire"
)

var start = time.Unix(1_700_000_000, 0)

// initialOf returns a client's first Initial of version 1.
func initialOf(tb testing.TB, dst, src []byte, number byte, frames []byte) []byte {
	tb.Helper()
	return sealed(tb, wire.Version1, wire.Client, dst, dst, src, number, frames)
}

// sealed returns an Initial of any version and side, with the keys that follow from
// keyID.
func sealed(tb testing.TB, v wire.Version, from wire.Side, keyID, dst, src []byte, number byte, frames []byte) []byte {
	tb.Helper()
	first, ok := wiretest.FirstByte(v, wire.Initial, 0)
	if !ok {
		tb.Fatalf("%v has no Initial", v)
	}
	payload := append(slices.Clone(frames), make([]byte, max(0, 1162-len(frames)))...)
	h := wire.Header{Type: wire.Initial, First: first, Version: v, DstID: dst, SrcID: src}
	header, err := wiretest.AppendLong(nil, &h, make([]byte, 1+len(payload)+wire.Overhead))
	if err != nil {
		tb.Fatal(err)
	}
	header = append(header[:len(header)-1-len(payload)-wire.Overhead], number)
	keys, err := wire.NewInitialKeys(v, keyID, from)
	if err != nil {
		tb.Fatal(err)
	}
	packet, err := keys.Seal(nil, header, payload)
	if err != nil {
		tb.Fatal(err)
	}
	return packet
}

// cryptoFrame returns a CRYPTO frame. data has less than 16 KiB.
func cryptoFrame(offset int, data []byte) []byte {
	b := []byte{0x06}
	b = binary.BigEndian.AppendUint16(b, 0x4000|uint16(offset))
	b = binary.BigEndian.AppendUint16(b, 0x4000|uint16(len(data)))
	return append(b, data...)
}

// helloOf returns a small ClientHello.
func helloOf(name string) []byte { return helloWith(serverNameOf(name)) }

// serverNameOf returns a server_name extension.
func serverNameOf(name string) []byte {
	sni := binary.BigEndian.AppendUint16(nil, uint16(len(name)+3))
	sni = append(sni, 0)
	sni = binary.BigEndian.AppendUint16(sni, uint16(len(name)))
	return extension(0, append(sni, name...))
}

// extension returns an extension of a hello.
func extension(kind uint16, data []byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, kind)
	return append(binary.BigEndian.AppendUint16(b, uint16(len(data))), data...)
}

// helloWith returns a ClientHello with extensions.
func helloWith(extensions ...[]byte) []byte {
	all := slices.Concat(extensions...)
	body := append([]byte{3, 3}, make([]byte, 32)...)
	body = append(body, 0, 0, 2, 0x13, 0x01, 1, 0)
	body = binary.BigEndian.AppendUint16(body, uint16(len(all)))
	body = append(body, all...)
	return append([]byte{1, 0, byte(len(body) >> 8), byte(len(body))}, body...)
}

func at(ms int, from, to string, data []byte) sent {
	return sent{at: start.Add(time.Duration(ms) * time.Millisecond), from: netip.MustParseAddrPort(from), to: netip.MustParseAddrPort(to), data: data}
}

// TestOverlappingCrypto checks CRYPTO frames out of order and with overlaps. The
// data that came first counts.
func TestOverlappingCrypto(t *testing.T) {
	hello, other := helloOf("first.example"), helloOf("wrong.example")
	id := []byte("original")
	tracker := newTracker(t, nil)
	for i, frames := range [][]byte{
		cryptoFrame(30, hello[30:]),
		cryptoFrame(20, other[20:]), // other data at the same offset
		cryptoFrame(40, other[40:50]),
		cryptoFrame(0, hello[:20]),
		cryptoFrame(0, other),
	} {
		tracker.Packet(frame(at(i, clientAddr, serverAddr, initialOf(t, id, []byte("scid"), byte(i), frames))))
	}
	if c := only(t, tracker); c.ServerName != "first.example" {
		t.Errorf("got %+v, want first.example", c.TLS)
	}
}

// TestLongLists checks that the long lists of a hello are not kept in full.
func TestLongLists(t *testing.T) {
	protocols := append([]byte{2, 'h', '3'}, make([]byte, 400)...) // and 400 empty ones
	groups := bytes.Repeat([]byte{0x11, 0xec}, 200)
	hello := helloWith(
		extension(0x10, append(binary.BigEndian.AppendUint16(nil, uint16(len(protocols))), protocols...)),
		extension(0x0a, append(binary.BigEndian.AppendUint16(nil, uint16(len(groups))), groups...)))
	long := helloOf(strings.Repeat("a", 15000))
	tracker := newTracker(t, nil)
	tracker.Packet(frame(at(0, clientAddr, serverAddr, initialOf(t, []byte("original"), nil, 0, cryptoFrame(0, hello)))))
	c := only(t, tracker)
	if len(c.ALPN) != maxALPN || c.ALPN[0] != "h3" || c.ALPNOmitted != 401-maxALPN || !slices.Equal(c.PostQuantumGroups, []string{"X25519MLKEM768"}) {
		t.Errorf("got ALPN %q, groups %q", c.ALPN, c.PostQuantumGroups)
	}
	if kept := tracker.index.connections.ring.next.value.tls; cap(kept.ALPN) > 2*maxALPN {
		t.Errorf("there is room for %d protocols", cap(kept.ALPN))
	}
	tracker = newTracker(t, &Config{Filter: mustFilter(t, "not name *a")})
	for at0 := 0; at0 < len(long); at0 += 1100 {
		piece := cryptoFrame(at0, long[at0:min(at0+1100, len(long))])
		tracker.Packet(frame(at(at0, clientAddr, serverAddr, initialOf(t, []byte("original"), nil, byte(at0/1100), piece))))
	}
	if c := only(t, tracker); c.ServerName != strings.Repeat("a", maxServerName) {
		t.Errorf("got %d bytes of a name", len(c.ServerName))
	}
}

// TestHalfHellos checks ten thousand handshakes that do not go on.
func TestHalfHellos(t *testing.T) {
	conf := &Config{MaxConnections: 1000, MaxHandshakes: 50}
	tracker := newTracker(t, conf)
	half := cryptoFrame(8000, make([]byte, 1000))
	for i := range 10_000 {
		id := binary.BigEndian.AppendUint64(nil, uint64(i)+1)
		from := fmt.Sprintf("192.0.2.%d:%d", i%250+1, 1024+i)
		tracker.Packet(frame(at(i/10, from, serverAddr, initialOf(t, id, id[4:], 0, half))))
	}
	stats := tracker.Stats()
	if got := tracker.index.handshakes.len(); got != conf.MaxHandshakes {
		t.Errorf("%d handshakes are kept, want %d", got, conf.MaxHandshakes)
	}
	if stats.HandshakesSkipped != 10_000-50 {
		t.Errorf("%d handshakes were skipped, want %d", stats.HandshakesSkipped, 10_000-50)
	}
	bounded(t, tracker)
	tracker.Packet(frame(at(1_000_000, clientAddr, serverAddr, make([]byte, 100))))
	if got := len(connections(tracker)); got != 0 {
		t.Errorf("%d connections are kept long after, want none", got)
	}
	for name, table := range tracker.Stats().Tables {
		if table.Entries != 0 && name != "potential" {
			t.Errorf("%s has %d entries long after, want none", name, table.Entries)
		}
	}
}

// bounded checks that every table is within its limit, that nothing leads to a removed
// connection, and that the census is right.
func bounded(tb testing.TB, t *Tracker) {
	tb.Helper()
	counted(tb, t)
	for name, table := range t.Stats().Tables {
		if table.Entries > table.Limit {
			tb.Errorf("%s has %d entries, limit %d", name, table.Entries, table.Limit)
		}
	}
	kept := func(r *connection) bool {
		e := t.index.connections.peek(r.number)
		return e != nil && e.value == r
	}
	for e := range t.index.flows.all() {
		if len(e.value.paths) == 0 || len(e.value.paths) > maxShared {
			tb.Fatalf("a flow has %d connections", len(e.value.paths))
		}
		for _, p := range e.value.paths {
			if !kept(p.conn) || !slices.Contains(p.conn.paths, p) {
				tb.Fatalf("a flow leads to connection %d, which is not kept", p.conn.number)
			}
		}
	}
	for e := range t.index.ids.all() {
		for _, o := range e.value.list {
			if !kept(o.conn) {
				tb.Fatalf("ID %v leads to connection %d, which is not kept", e.key, o.conn.number)
			}
		}
	}
	for e := range t.index.sources.all() {
		for _, r := range e.value.list {
			if !kept(r) {
				tb.Fatalf("a source leads to connection %d, which is not kept", r.number)
			}
		}
	}
	if n := len(t.moves.list); n > maxOpenMoves {
		tb.Fatalf("%d moves are open", n)
	}
	for _, m := range t.moves.list {
		if !kept(m.path.conn) || m.path.conn.move != m || len(m.choices) > maxSourceConn {
			tb.Fatalf("a move of connection %d with %d choices is open", m.path.conn.number, len(m.choices))
		}
	}
	for e := range t.index.connections.all() {
		r := e.value
		for _, p := range r.paths {
			if e := t.index.flows.peek(p.key); e == nil || !slices.Contains(e.value.paths, p) {
				tb.Fatalf("no flow leads to a path of connection %d", r.number)
			}
		}
		if len(r.paths) == 0 || len(r.paths) > maxPaths || !slices.Contains(r.paths, r.active) {
			tb.Fatalf("connection %d has %d paths, and the active one is not among them", r.number, len(r.paths))
		}
		for side := range r.ids {
			if len(r.ids[side].list) > maxSideIDs {
				tb.Fatalf("connection %d has %d IDs", r.number, len(r.ids[side].list))
			}
		}
		if len(r.changes) > maxChanges || len(r.origIDs) > maxOrigIDs {
			tb.Fatalf("connection %d is out of bounds", r.number)
		}
	}
}

// TestSpoofedInitial checks that Initials with the addresses of a live connection
// do not change it.
func TestSpoofedInitial(t *testing.T) {
	all := play(t, nil, false, func(s *scene) {
		conn := s.dial(nil)
		s.exchange(conn, 50000)
	})
	clean, tracker := newTracker(t, nil), newTracker(t, nil)
	track(clean, all)
	want := only(t, clean)
	for i, s := range all {
		tracker.Packet(frame(s))
		if i%5 == 4 {
			spoof := initialOf(t, fmt.Appendf(nil, "spoof%03d", i%1000), []byte("evil"), 0, cryptoFrame(0, helloOf("evil.example")))
			tracker.Packet(frame(sent{at: s.at, from: netip.MustParseAddrPort(clientAddr), to: netip.MustParseAddrPort(serverAddr), data: spoof}))
		}
	}
	bounded(t, tracker)
	for _, c := range connections(tracker) {
		if c.OriginalID != want.OriginalID {
			continue
		}
		if c.ServerName != serverName || len(c.Paths) != 1 || len(c.PathChanges) != 0 {
			t.Errorf("got %+v", c)
		}
		if c.FromServer != want.FromServer || c.FromClient != want.FromClient {
			t.Errorf("got traffic %v %v, want %v %v", c.FromClient, c.FromServer, want.FromClient, want.FromServer)
		}
		return
	}
	t.Error("the live connection is no longer known")
}

// TestNewIDBesideSpoof checks that a new ID belongs to the live connection, and not
// to one that an attacker has begun with its addresses.
func TestNewIDBesideSpoof(t *testing.T) {
	all := append(establishedConn(t), at(300, clientAddr, serverAddr, initialOf(t, []byte("spoofed!"), nil, 0, cryptoFrame(0, helloOf("evil.example")))))
	all = addShorts(all, 20, shortHeaders{clientAddr, serverAddr, newID, 300}, shortHeaders{serverAddr, clientAddr, cliNo, 1200})
	tracker := newTracker(t, nil)
	track(tracker, all)
	for _, c := range connections(tracker) {
		want := uint64(1)
		if c.ServerName == "moves.example" {
			want = uint64(len(all) - 1)
		}
		if got := c.FromClient.Packets + c.FromServer.Packets; got != want {
			t.Errorf("%s: got %d packets, want %d", c.ServerName, got, want)
		}
	}
}

// TestSpoofedID checks that an attacker who has seen an ID cannot move a
// connection, because nobody answers.
func TestSpoofedID(t *testing.T) {
	all := play(t, nil, false, func(s *scene) { s.exchange(s.dial(nil), 50000) })
	tracker := newTracker(t, nil)
	spoofed := 0
	for i, s := range all {
		tracker.Packet(frame(s))
		if i > 30 && s.to.String() == serverAddr && !wire.IsLong(s.data[0]) {
			for range 30 {
				spoofed++
				from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, byte(spoofed >> 8), byte(spoofed)}), 666)
				if spoofed%2 == 0 { // half of them come from the same port
					from = netip.MustParseAddrPort("203.0.113.66:666")
				}
				tracker.Packet(frame(sent{at: s.at, from: from, to: s.to, data: s.data}))
			}
		}
	}
	if spoofed < 30 {
		t.Fatal("no packets were spoofed")
	}
	c := only(t, tracker)
	if len(c.PathChanges) != 0 || !c.Paths[0].Active || c.Paths[0].Client.String() != clientAddr {
		t.Errorf("got changes %v, paths %v", c.PathChanges, c.Paths)
	}
	for _, p := range c.Paths[1:] {
		if p.Validated {
			t.Errorf("path %v of an attacker is validated", p)
		}
	}
	if len(c.Paths) > maxPaths || tracker.Stats().PathOverflow == 0 {
		t.Errorf("got %d paths, and an overflow of %d", len(c.Paths), tracker.Stats().PathOverflow)
	}
	bounded(t, tracker)
}

// TestRandomIDs checks that short headers with random IDs and a live connection's
// addresses do not exceed the bounds, and do not remove its own ID for good.
func TestRandomIDs(t *testing.T) {
	all := play(t, nil, false, func(s *scene) { s.exchange(s.dial(nil), 100000) })
	tracker := newTracker(t, nil)
	rng := rand.New(rand.NewPCG(1, 2))
	for _, s := range all {
		tracker.Packet(frame(s))
		if wire.IsLong(s.data[0]) {
			continue
		}
		noise := make([]byte, 60)
		for i := range noise {
			noise[i] = byte(rng.Uint32())
		}
		noise[0] = noise[0]&^0x80 | 0x40
		tracker.Packet(frame(sent{at: s.at, from: s.from, to: s.to, data: noise}))
	}
	bounded(t, tracker)
	if c := only(t, tracker); len(c.PathChanges) != 0 {
		t.Errorf("got changes %v", c.PathChanges)
	}
}

// TestGreasedFixedBit checks that a connection that greases the fixed bit is
// followed, and that another protocol on its port does not count.
func TestGreasedFixedBit(t *testing.T) {
	all := play(t, nil, false, func(s *scene) { s.exchange(s.dial(nil), 50000) })
	before := map[netip.AddrPort]string{}
	for i, s := range all {
		id := string(s.data[1:5])
		if i%2 == 0 && !wire.IsLong(s.data[0]) && before[s.from] == id { // not with a new ID
			all[i].data = slices.Clone(s.data)
			all[i].data[0] &^= fixedBit
		}
		before[s.from] = id
	}
	tracker := newTracker(t, nil)
	track(tracker, all)
	c := only(t, tracker)
	if got := c.FromClient.Packets + c.FromServer.Packets; got != uint64(len(all)) {
		t.Errorf("got %d packets, want %d", got, len(all))
	}
	stun := append([]byte{0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42}, make([]byte, 40)...)
	last := all[len(all)-1]
	tracker.Packet(frame(sent{at: last.at, from: last.from, to: last.to, data: stun}))
	if after := only(t, tracker); after.FromClient.Packets+after.FromServer.Packets != uint64(len(all)) {
		t.Error("STUN was counted as the connection's")
	}
	if tracker.Stats().Bogus != 1 {
		t.Errorf("got %d bogus, want 1", tracker.Stats().Bogus)
	}
}

// TestDisproved checks that packets that look like QUIC are not accepted if the
// endpoints also send another protocol.
func TestDisproved(t *testing.T) {
	opener := at(0, "192.0.2.5:5000", "192.0.2.6:6000", []byte{0})
	looks := addShorts([]sent{opener}, 20, shortHeaders{"192.0.2.5:5000", "192.0.2.6:6000", oldID, 300}, shortHeaders{"192.0.2.6:6000", "192.0.2.5:5000", cliID, 1200})[1:]
	long := func(n int, idLen byte) []byte {
		return append([]byte{0xc0, 0xde, 0xad, 0xbe, 0xef, idLen}, make([]byte, n-6)...)
	}
	for name, test := range map[string]struct {
		first []byte
		want  int
	}{
		"nothing else":                  {nil, 1},
		"a first flight":                {long(1200, 8), 1},
		"a long header in little":       {long(300, 8), 0},
		"a long header of no layout":    {append(long(6, 255), bytes.Repeat([]byte{255}, 1200)...), 0},
		"no fixed bit":                  {append([]byte{0x01}, make([]byte, 100)...), 0},
		"less than QUIC's least packet": {append([]byte{0x41}, make([]byte, 10)...), 0},
	} {
		tracker := newTracker(t, nil)
		if test.first != nil {
			tracker.Packet(frame(sent{at: opener.at, from: opener.from, to: opener.to, data: test.first}))
		}
		track(tracker, looks)
		if got := len(connections(tracker)); got != test.want {
			t.Errorf("%s: got %d connections, want %d", name, got, test.want)
		}
	}
}

// TestNotQUIC checks packets that look a little like QUIC.
func TestNotQUIC(t *testing.T) {
	tracker := newTracker(t, nil)
	rng := rand.New(rand.NewPCG(3, 4))
	for i := range 20000 {
		b := make([]byte, 20+rng.IntN(1400))
		for j := range b {
			b[j] = byte(rng.Uint32())
		}
		from := fmt.Sprintf("192.0.2.1:%d", 1000+i%50)
		to := serverAddr
		if i%2 == 1 {
			from, to = to, from
		}
		tracker.Packet(frame(at(i, from, to, b)))
	}
	for _, c := range connections(tracker) {
		if c.Confidence >= MidFlow {
			t.Errorf("got %v: %s", c.Confidence, c.Evidence)
		}
	}
	bounded(t, tracker)
}

// TestOriginalIDElsewhere checks that the ID of a client's first Initial is found
// before the length of the server's IDs is known.
func TestOriginalIDElsewhere(t *testing.T) {
	tracker := newTracker(t, nil)
	begin := func(from, id string) sent {
		return at(0, from, serverAddr, initialOf(t, []byte(id), []byte("scid"), 0, cryptoFrame(0, helloOf("known.example"))))
	}
	answer := append([]byte("\xe0\x00\x00\x00\x01\x04scid\x08serverID\x40\x20"), make([]byte, 0x20)...)
	short := append([]byte("\x40original"), make([]byte, 60)...)
	track(tracker, []sent{
		begin("192.0.2.9:50000", "another1"),
		at(1, serverAddr, "192.0.2.9:50000", answer),
		begin(clientAddr, "original"),
		at(2, "192.0.2.1:50001", serverAddr, short),
	})
	for c := range tracker.Connections() {
		if c.OriginalID == idOf([]byte("original")).String() {
			if len(c.Paths) != 2 || c.Paths[1].FromClient != (Traffic{Packets: 1, Bytes: uint64(len(short))}) || c.Paths[1].Validated {
				t.Errorf("got paths %v, want a second one that nobody has answered on", c.Paths)
			}
			return
		}
	}
	t.Error("the connection is not known")
}
