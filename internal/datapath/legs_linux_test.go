package datapath

import (
	"errors"
	"net/netip"
	"path/filepath"
	"slices"
	"testing"

	"github.com/quicway/quicway/internal/test/nettest"
)

// localOf returns an address of the relay that is one of many.
func localOf(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, byte(i >> 8), byte(i)}), relayPort)
}

// legsAt returns two legs at addresses of the relay.
func legsAt(a, b netip.AddrPort) [2]Leg {
	return [2]Leg{{Remote: alice.at(0, 1000), Local: a}, {Remote: bob.at(0, 2000), Local: b}}
}

// TestManyLocals checks that a session that uses one more address of the relay than there is room for is
// left to Go, with what it had before, and that there is room again after others have left the table.
func TestManyLocals(t *testing.T) {
	const room = 255
	p := mustLoad(t, &Config{Sessions: 256})
	for i := range room {
		if err := p.relay.PutSession(uint32(i), legsAt(localOf(0), localOf(i))); err != nil {
			t.Fatalf("session %d: %v", i, err)
		}
	}
	if err := p.relay.PutSession(7, legsAt(localOf(0), localOf(300))); err != nil {
		t.Errorf("with the place of the address that it leaves: %v", err)
	}
	if err := p.relay.PutSession(7, legsAt(localOf(300), localOf(301))); !errors.Is(err, ErrFull) {
		t.Errorf("%v, want %v", err, ErrFull)
	}
	if legs, err := p.relay.Session(7); legs != [2]Leg{} || err != nil {
		t.Errorf("legs without room: %v, %v", legs, err)
	}
	if err := p.relay.DeleteSession(8); err != nil {
		t.Fatal(err)
	}
	want := legsAt(localOf(300), localOf(301))
	if err := p.relay.PutSession(7, want); err != nil {
		t.Errorf("after another one was deleted: %v", err)
	}
	if legs, err := p.relay.Session(7); legs != want || err != nil {
		t.Errorf("legs %v, %v, want %v", legs, err, want)
	}
	for i := range uint32(256) {
		if err := p.relay.DeleteSession(i); err != nil {
			t.Fatal(err)
		}
	}
	l := &p.relay.legs.locals
	if users := slices.Max(l.users); users != 0 || len(l.numbers) != 0 {
		t.Errorf("%d users and %d addresses are left", users, len(l.numbers))
	}
}

// TestPinCutOff checks that the next process takes over the addresses of the relay that legs have, and
// takes a leg that was being changed when its process ended for none.
func TestPinCutOff(t *testing.T) {
	nettest.Namespace(t)
	dir := filepath.Join(nettest.BPFFS(t), "quicway")
	first := loadPinned(t, dir, 4)
	for i := range uint32(2) {
		if err := first.relay.PutSession(i, legsAt(localOf(int(i)), localOf(9))); err != nil {
			t.Fatal(err)
		}
	}
	first.relay.legs.begin(1)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second := loadPinned(t, dir, 4)
	relay := &second.relay
	for i, want := range [][2]Leg{legsAt(localOf(0), localOf(9)), {}} {
		if got, err := relay.Session(uint32(i)); got != want || err != nil {
			t.Errorf("session %d: %v, %v, want %v", i, got, err, want)
		}
	}
	if n := len(relay.legs.locals.numbers); n != 2 {
		t.Errorf("%d addresses in use, want 2", n)
	}
	again := legsAt(localOf(1), localOf(9))
	if err := relay.PutSession(1, again); err != nil {
		t.Fatal(err)
	}
	for leg := range uint8(2) {
		if s := relay.legs.at(1, leg).load(); !s.complete() || s.via() == 0 {
			t.Errorf("state %#x of a leg that was put again", s)
		}
	}
	if err := errors.Join(relay.DeleteSession(0), relay.DeleteSession(1), second.Close(), Unpin(dir)); err != nil {
		t.Error(err)
	}
}
