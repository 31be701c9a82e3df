package relay

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/quicway/quicway/internal/datapath"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/control"
	"github.com/quicway/quicway/internal/test/nettest"
	"github.com/quicway/quicway/internal/test/xdptest"
	"github.com/quicway/quicway/xdp"
)

// TestRestoreChecksNotes checks that a server takes over only those pinned sessions whose
// notes make sense to it, and deletes the others.
func TestRestoreChecksNotes(t *testing.T) {
	program := xdptest.Load(t, &xdp.Config{Sessions: 8, Pin: filepath.Join(nettest.BPFFS(t), "quicway")})
	stage := xdptest.Relay(t, program)
	legs := [2]datapath.Leg{
		{Remote: netip.MustParseAddrPort("192.0.2.1:1"), Local: netip.MustParseAddrPort("127.0.0.1:4433")},
		{Remote: netip.MustParseAddrPort("192.0.2.2:2"), Local: netip.MustParseAddrPort("127.0.0.1:4433")},
	}
	leave := func(slot uint32, n note) {
		for r := range n.Legs {
			n.Legs[r].Present, n.Legs[r].Key = true, cid.NewKey()
		}
		b, err := binary.Append(nil, binary.BigEndian, &n)
		err = errors.Join(err, stage.PutSession(slot, legs), stage.PutNote(slot, b))
		if err != nil {
			t.Fatal(err)
		}
	}
	forever := note{Version: noteVersion, ID: control.SessionID{1}}
	forever.Legs[0].TTL, forever.Legs[1].TTL = 1<<62, -1
	leave(1, forever)
	leave(2, note{Version: noteVersion, ID: control.SessionID{1}})     // the same session as in slot 1
	leave(3, note{Version: noteVersion + 1, ID: control.SessionID{3}}) // of a later version
	leave(6, note{Version: noteVersion, ID: control.SessionID{6}})     // the server has no room for this slot

	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server, err := New(&Config{XDP: program, MaxSessions: 4, TTL: time.Minute}, conn)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	if sessions, legs := server.sessions.count(); sessions != 1 || legs != 2 {
		t.Errorf("%d sessions, %d legs, want 1 and 2", sessions, legs)
	}
	for slot := range stage.Sessions() {
		kept, err := stage.Session(slot)
		if want := slot == 1; err != nil || kept[0].Valid() != want {
			t.Errorf("slot %d: %v, %v, want it kept: %v", slot, kept, err, want)
		}
		b, err := stage.Note(slot)
		if want := slot == 1; err != nil || (b[0] != 0) != want {
			t.Errorf("slot %d: note of version %d, %v, want one: %v", slot, b[0], err, want)
		}
	}
	ses := server.sessions.atSlot(1)
	if got := [2]time.Duration{ses.legs[0].ttl, ses.legs[1].ttl}; got != [2]time.Duration{time.Minute, minTTL} {
		t.Errorf("TTLs of the legs are %v, want those that the server grants", got)
	}
}

// TestRestoreChecksRoutes checks that a server keeps of the pinned routes those of the IDs that the legs use,
// and deletes others, also if they have the session, the leg and the counter of one.
func TestRestoreChecksRoutes(t *testing.T) {
	program := xdptest.Load(t, &xdp.Config{Sessions: 8, Pin: filepath.Join(nettest.BPFFS(t), "quicway")})
	stage := xdptest.Relay(t, program)
	legs := [2]datapath.Leg{
		{Remote: netip.MustParseAddrPort("192.0.2.1:1"), Local: netip.MustParseAddrPort("127.0.0.1:4433")},
		{Remote: netip.MustParseAddrPort("192.0.2.2:2"), Local: netip.MustParseAddrPort("127.0.0.1:4433")},
	}
	const near = 1000
	n := note{Version: noteVersion, ID: control.SessionID{1}}
	for r := range n.Legs {
		n.Legs[r] = legNote{Present: true, Key: cid.NewKey(), TTL: time.Minute, Near: near}
	}
	b, err := binary.Append(nil, binary.BigEndian, &n)
	if err := errors.Join(err, stage.PutSession(1, legs), stage.PutNote(1, b)); err != nil {
		t.Fatal(err)
	}
	known, stray := n.Legs[1].Key.Deriver(cid.Peer), cid.NewKey().Deriver(cid.Peer)
	for id, r := range map[cid.ID]datapath.Route{
		known.ID(near):            {Session: 1, Leg: 1, Counter: near},
		known.ID(near - 1):        {Session: 1, Leg: 1, Counter: near - 1},
		known.ID(near + 128):      {Session: 1, Leg: 1, Counter: near + 128},
		stray.ID(near):            {Session: 1, Leg: 1, Counter: near},
		stray.ID(1):               {Session: 2},
		n.Legs[0].Key.ID(0, near): {Session: 1, Leg: 1, Counter: near},
	} {
		if err := stage.PutRoute(id, r); err != nil {
			t.Fatal(err)
		}
	}
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server, err := New(&Config{XDP: program}, conn)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	routes := 0
	for range stage.Routes() {
		routes++
	}
	if routes != 2*pinnedIDs {
		t.Errorf("%d routes, want %d", routes, 2*pinnedIDs)
	}
	for leg := range uint8(2) {
		for c := uint64(near); c < near+pinnedIDs; c++ {
			want := datapath.Route{Session: 1, Leg: leg, Counter: c % (1 << datapath.CounterBits)}
			if r, ok, err := stage.Route(n.Legs[leg].Key.ID(cid.Peer, c)); r != want || !ok || err != nil {
				t.Errorf("ID %d of leg %d: %+v, %v, %v", c, leg, r, ok, err)
			}
		}
	}
	if got := server.Stats().OffloadErrors; got != 0 {
		t.Errorf("%d errors of the offload", got)
	}
}

// TestEndPinnedSessions checks that the operator can list and end sessions that an earlier
// server has opened, and that they are removed from the program.
func TestEndPinnedSessions(t *testing.T) {
	program, err := xdp.Load(&xdp.Config{Sessions: 8, Pin: filepath.Join(nettest.BPFFS(t), "quicway")})
	if errors.Is(err, xdp.ErrPermission) || errors.Is(err, xdp.ErrUnsupported) {
		nettest.Missing(t, err.Error())
	}
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	stage := xdptest.Relay(t, program)
	start := func() *Server {
		conn, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		server, err := New(&Config{XDP: program, Secret: testSecret}, conn)
		if err != nil {
			t.Fatal(err)
		}
		return server
	}
	secrets, err := deriveSecrets(testSecret)
	if err != nil {
		t.Fatal(err)
	}
	legs := [2]datapath.Leg{
		{Remote: netip.MustParseAddrPort("192.0.2.1:1"), Local: netip.MustParseAddrPort("127.0.0.1:4433")},
		{Remote: netip.MustParseAddrPort("192.0.2.2:2"), Local: netip.MustParseAddrPort("127.0.0.1:4433")},
	}
	for slot, name := range []string{"A", "B", "B", "C"} {
		n := note{Version: noteVersion, ID: control.SessionID{byte(slot) + 1}, Account: secrets.tokens.account(name)}
		for r := range n.Legs {
			n.Legs[r] = legNote{Present: true, Key: cid.NewKey(), TTL: time.Minute}
		}
		b, err := binary.Append(nil, binary.BigEndian, &n)
		if err := errors.Join(err, stage.PutSession(uint32(slot), legs), stage.PutNote(uint32(slot), b)); err != nil {
			t.Fatal(err)
		}
	}
	left := func(server *Server) (ids []string) {
		for s := range server.Sessions() {
			if s.Legs[0].Remote != legs[0].Remote || s.Legs[1].Remote != legs[1].Remote || s.Legs[0].Connected {
				t.Errorf("got %+v", s)
			}
			ids = append(ids, s.ID)
		}
		return ids
	}
	server := start()
	if n := len(left(server)); n != 4 {
		t.Fatalf("%d sessions, want 4", n)
	}
	if !server.EndSession(control.SessionID{1}.String()) || server.EndAccount("B") != 2 {
		t.Error("not all sessions were ended")
	}
	last := control.SessionID{4}.String()
	if got := left(server); len(got) != 1 || got[0] != last {
		t.Errorf("left %v, want %v", got, last)
	}
	for r := range stage.Routes() {
		if r.Session != 3 {
			t.Errorf("a route leads to session %d", r.Session)
		}
	}
	if err := server.Close(); err != nil {
		t.Error(err)
	}
	server = start()
	defer server.Close()
	if got := left(server); len(got) != 1 || got[0] != last {
		t.Errorf("taken over %v, want %v", got, last)
	}
}
