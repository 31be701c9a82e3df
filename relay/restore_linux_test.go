package relay

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/control"
	"github.com/quicway/quicway/internal/nettest"
	"github.com/quicway/quicway/internal/xdptest"
	"github.com/quicway/quicway/xdp"
)

// TestRestoreJudgesNotes: what is pinned is taken over only as far as it makes
// sense to this server, and whatever is not is deleted.
func TestRestoreJudgesNotes(t *testing.T) {
	program := xdptest.Load(t, &xdp.Config{Sessions: 8, Pin: filepath.Join(nettest.BPFFS(t), "quicway")})
	legs := [2]xdp.Leg{
		{Remote: netip.MustParseAddrPort("192.0.2.1:1"), Local: netip.MustParseAddrPort("127.0.0.1:4433")},
		{Remote: netip.MustParseAddrPort("192.0.2.2:2"), Local: netip.MustParseAddrPort("127.0.0.1:4433")},
	}
	leave := func(slot uint32, n note) {
		for r := range n.Legs {
			n.Legs[r].Present, n.Legs[r].Key = true, cid.NewKey()
		}
		b, err := binary.Append(nil, binary.BigEndian, &n)
		err = errors.Join(err, program.PutSession(slot, legs), program.PutNote(slot, b))
		if err != nil {
			t.Fatal(err)
		}
	}
	forever := note{Version: noteVersion, ID: control.SessionID{1}}
	forever.Legs[0].TTL, forever.Legs[1].TTL = 1<<62, -1
	leave(1, forever)
	leave(2, note{Version: noteVersion, ID: control.SessionID{1}})     // that of slot 1 again
	leave(3, note{Version: noteVersion + 1, ID: control.SessionID{3}}) // of a server to come
	leave(6, note{Version: noteVersion, ID: control.SessionID{6}})     // no room

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
	for slot := range program.Sessions() {
		kept, err := program.Session(slot)
		if want := slot == 1; err != nil || kept[0].Valid() != want {
			t.Errorf("slot %d: %v, %v, want it kept: %v", slot, kept, err, want)
		}
		b, err := program.Note(slot)
		if want := slot == 1; err != nil || (b[0] != 0) != want {
			t.Errorf("slot %d: note of version %d, %v, want one: %v", slot, b[0], err, want)
		}
	}
	ses := server.sessions.atSlot(1)
	if got := [2]time.Duration{ses.legs[0].ttl, ses.legs[1].ttl}; got != [2]time.Duration{time.Minute, minTTL} {
		t.Errorf("legs live for %v, want what a server grants", got)
	}
}
