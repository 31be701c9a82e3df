package datapath

import (
	"errors"
	"net/netip"
	"os"
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
// takes a leg that was being changed when its process ended for none. It puts and deletes all sessions without
// a trace of what was cut off.
func TestPinCutOff(t *testing.T) {
	nettest.Namespace(t)
	dir := filepath.Join(nettest.BPFFS(t), "quicway")
	first := loadPinned(t, dir, 4)
	for i := range uint32(3) {
		if err := first.relay.PutSession(i, legsAt(localOf(int(i)), localOf(9))); err != nil {
			t.Fatal(err)
		}
	}
	cutOff(&first.relay.legs, 1, 0)
	cutOff(&first.relay.legs, 2, 1)
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
	locals := &relay.legs.locals
	if n := len(locals.numbers); n != 3 {
		t.Errorf("%d addresses in use, want 3", n)
	}
	for session := range uint32(3) {
		want := legsAt(localOf(20+int(session)), localOf(9))
		if err := relay.PutSession(session, want); err != nil {
			t.Fatal(err)
		}
		if got, err := relay.Session(session); got != want || err != nil {
			t.Errorf("session %d, put again: %v, %v, want %v", session, got, err, want)
		}
	}
	for session := range uint32(3) {
		if err := relay.DeleteSession(session); err != nil {
			t.Fatal(err)
		}
	}
	if users := slices.Max(locals.users); users != 0 || len(locals.numbers) != 0 {
		t.Errorf("%d users and %d addresses are left", users, len(locals.numbers))
	}
	if err := errors.Join(second.Close(), Unpin(dir)); err != nil {
		t.Error(err)
	}
}

// cutOff leaves a session as a process leaves it that ends when it has put so many of the legs again.
func cutOff(t *legTable, session uint32, legs uint8) {
	before := [2]datapathLeg{*t.at(session, 0), *t.at(session, 1)}
	t.begin(session)
	for leg := range legs {
		l := t.at(session, leg)
		s := before[leg].load()
		l.end(s.at(), s.via())
	}
}

// TestPinWithoutLocals checks that no address of the relay is changed while a leg has its number, also if the
// leg is of an earlier process whose addresses are lost.
func TestPinWithoutLocals(t *testing.T) {
	nettest.Namespace(t)
	dir := filepath.Join(nettest.BPFFS(t), "quicway")
	first := loadPinned(t, dir, 4)
	if err := errors.Join(first.relay.PutSession(0, legsAt(localOf(1), localOf(2))), first.Close()); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, pinnedMaps, datapathMapCommons)); err != nil {
		t.Fatal(err)
	}
	second := loadPinned(t, dir, 4)
	relay := &second.relay
	if legs, err := relay.Session(0); legs != [2]Leg{} || err != nil {
		t.Errorf("legs without addresses of the relay: %v, %v", legs, err)
	}
	want := legsAt(localOf(3), localOf(4))
	if err := errors.Join(relay.PutSession(1, want), relay.DeleteSession(0), relay.PutSession(2, legsAt(localOf(5), localOf(6)))); err != nil {
		t.Fatal(err)
	}
	if legs, err := relay.Session(1); legs != want || err != nil {
		t.Errorf("legs %v, %v after another session has come, want %v", legs, err, want)
	}
	if err := errors.Join(second.Close(), Unpin(dir)); err != nil {
		t.Error(err)
	}
}
