package datapath

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/test/nettest"
)

// manyWire is a wire with as many sessions from alice to ports of bob.
func manyWire(t testing.TB, conf *Config) *wire {
	t.Helper()
	w := newWireFor(t, conf)
	for s := range uint32(conf.Sessions) {
		legs := [2]Leg{
			{Remote: alice.at(0, 1000), Local: relayAB.at(0, relayPort)},
			{Remote: bob.at(0, 2000+uint16(s)), Local: relayAB.at(0, relayPort)},
		}
		if err := errors.Join(w.program.relay.PutSession(s, legs), w.program.relay.SetDue(s, 1, 64)); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// frames returns a frame with an ID, and the one that leaves if the ID leads to a session.
func (w *wire) frames(id cid.ID, session uint32) (in, out []byte) {
	f := w.good(0)
	copy(f.Payload[1:], id.Bytes())
	r := relayed(f, bob, relayAB)
	r.Dst = bob.at(0, 2000+uint16(session))
	return f.Build(edgeMAC, w.in.HardwareAddr), r.Build(w.in.HardwareAddr, peerMAC)
}

// leads checks that an ID leads to a session.
func (w *wire) leads(id cid.ID, session uint32) {
	w.Helper()
	in, want := w.frames(id, session)
	if got := w.run(in, TX, Relayed); !bytes.Equal(got, want) {
		w.Errorf("%v does not lead to session %d:\ngot  %x\nwant %x", id, session, got[:60], want[:60])
	}
}

// leadsNowhere checks that packets with an ID are for Go.
func (w *wire) leadsNowhere(id cid.ID) {
	w.Helper()
	in, _ := w.frames(id, 0)
	w.run(in, Pass, PassUnknown)
}

// TestRouteTableInKernel checks that the program finds all IDs of a table whose slots are all in use,
// and no others, and that those without room are for Go.
func TestRouteTableInKernel(t *testing.T) {
	w := manyWire(t, &Config{Sessions: 16, IDs: 80})
	relay := &w.program.relay
	slots := len(relay.routes.sets) * routeSlots
	known := make(map[cid.ID]Route)
	var refused []cid.ID
	for i := uint64(0); len(known) < slots || len(refused) < 20; i++ {
		if i > 1<<20 {
			t.Fatalf("%d of %d slots are in use, and %d IDs refused", len(known), slots, len(refused))
		}
		id, r := w.key.ID(cid.Peer, i), Route{Session: uint32(i % 16), Leg: 1, Counter: i % 64}
		switch err := relay.PutRoute(id, r); {
		case err == nil:
			known[id] = r
		case errors.Is(err, ErrFull):
			refused = append(refused, id)
		default:
			t.Fatal(err)
		}
	}
	for id, r := range known {
		w.leads(id, r.Session)
	}
	for _, id := range refused[:20] {
		w.leadsNowhere(id)
		if err := relay.DeleteRoute(id, Route{Session: 1, Leg: 1}); err != nil {
			t.Fatal(err)
		}
	}
	routes := 0
	for range relay.Routes() {
		routes++
	}
	if routes != slots {
		t.Errorf("%d routes, want %d", routes, slots)
	}
	for id, r := range known {
		if err := relay.DeleteRoute(id, r); err != nil {
			t.Fatal(err)
		}
		w.leadsNowhere(id)
	}
	for r := range relay.Routes() {
		t.Errorf("route %+v is left", r)
	}
}

// TestGroundIDs checks that IDs that all belong into the same two sets, as if a peer knew the keys,
// take these sets and no others, that those without room are for Go, and that all IDs find their own
// session meanwhile.
func TestGroundIDs(t *testing.T) {
	w := manyWire(t, &Config{Sessions: 40, IDs: 80})
	relay := &w.program.relay
	target := relay.routes.place(w.key.ID(cid.Peer, 0))
	var ground, others []cid.ID
	for i := uint64(0); len(ground) < 2*routeSlots+4; i++ {
		id := w.key.ID(cid.Peer, i)
		p := relay.routes.place(id)
		switch {
		case min(p.first, p.second) == min(target.first, target.second) && max(p.first, p.second) == max(target.first, target.second):
			ground = append(ground, id)
		case len(others) < 10 && p.first != target.first && p.first != target.second && p.second != target.first && p.second != target.second:
			others = append(others, id)
		}
	}
	for i, id := range append(others, ground...) {
		session := uint32(i)
		err := relay.PutRoute(id, Route{Session: session, Leg: 1})
		if full := i >= len(others)+2*routeSlots; errors.Is(err, ErrFull) != full {
			t.Fatalf("ID %d: %v, want an error: %v", i, err, full)
		}
	}
	check := func() {
		t.Helper()
		for i, id := range append(others, ground[:2*routeSlots]...) {
			w.leads(id, uint32(i))
		}
		for _, id := range ground[2*routeSlots:] {
			w.leadsNowhere(id)
		}
	}
	check()
	last := len(others) + 2*routeSlots - 1
	if err := relay.DeleteRoute(ground[2*routeSlots-1], Route{Session: uint32(last), Leg: 1}); err != nil {
		t.Fatal(err)
	}
	ground[2*routeSlots-1], ground[2*routeSlots] = ground[2*routeSlots], ground[2*routeSlots-1]
	if err := relay.PutRoute(ground[2*routeSlots-1], Route{Session: uint32(last), Leg: 1}); err != nil {
		t.Errorf("after one was deleted: %v", err)
	}
	check()
}

// TestSameHash checks that of two IDs that the program cannot tell apart, the second one is left to
// Go until the first one is deleted, and that deleting the second one leaves the first one alone.
func TestSameHash(t *testing.T) {
	dir := filepath.Join(nettest.BPFFS(t), "quicway")
	if err := os.MkdirAll(filepath.Join(dir, pinnedMaps), 0o700); err != nil {
		t.Fatal(err)
	}
	keys := newRouteKeys()
	keys[2], keys[5] = 0, 0 // the last word of an ID makes no difference
	if err := pinRouteKeys(filepath.Join(dir, pinnedMaps, pinnedKeys), &keys); err != nil {
		t.Fatal(err)
	}
	w := manyWire(t, &Config{Sessions: 16, Pin: dir})
	relay := &w.program.relay
	one, two := testID(1, 2, 3), testID(1, 2, 4)
	if err := relay.PutRoute(one, Route{Session: 5, Leg: 1}); err != nil {
		t.Fatal(err)
	}
	if err := relay.PutRoute(two, Route{Session: 6, Leg: 1}); !errors.Is(err, errTagTaken) {
		t.Errorf("%v, want %v", err, errTagTaken)
	}
	if err := relay.DeleteRoute(two, Route{Session: 6, Leg: 1}); err != nil {
		t.Error(err)
	}
	w.leads(one, 5)
	if err := errors.Join(relay.DeleteRoute(one, Route{Session: 5, Leg: 1}), relay.PutRoute(two, Route{Session: 6, Leg: 1})); err != nil {
		t.Error(err)
	}
	w.leads(two, 6)
	if err := errors.Join(w.program.Close(), Unpin(dir)); err != nil {
		t.Error(err)
	}
}

// TestKeepRoutes checks that of pinned routes those are kept that belong to an ID, and neither others
// with the same session, leg and counter, nor copies.
func TestKeepRoutes(t *testing.T) {
	w := manyWire(t, &Config{Sessions: 16, IDs: 80})
	relay := &w.program.relay
	for counter := range uint64(8) {
		if err := relay.PutRoute(w.key.ID(cid.Peer, counter), Route{Session: 3, Leg: 1, Counter: counter}); err != nil {
			t.Fatal(err)
		}
	}
	stray, copied := cid.NewKey().ID(cid.Peer, 5), w.key.ID(cid.Peer, 5)
	if err := relay.PutRoute(stray, Route{Session: 3, Leg: 1, Counter: 5}); err != nil {
		t.Fatal(err)
	}
	p := relay.routes.place(copied)
	slot := slotOf(p.tag, Route{Session: 3, Leg: 1, Counter: 5})
	*relay.routes.free(p.first) = slot
	*relay.routes.free(p.second) = slot
	relay.KeepRoutes(func(r Route) (cid.ID, bool) { return w.key.ID(cid.Peer, r.Counter), r.Counter >= 4 })
	var left []uint64
	for r := range relay.Routes() {
		left = append(left, r.Counter)
	}
	if len(left) < 4 || len(left) > 5 { // the copy in the first set may be another slot of it
		t.Errorf("left: counters %v, want 4 to 7", left)
	}
	for counter := range uint64(8) {
		id := w.key.ID(cid.Peer, counter)
		if counter < 4 {
			w.leadsNowhere(id)
		} else {
			w.leads(id, 3)
		}
	}
	w.leadsNowhere(stray)
}

// TestPinFormer checks that a program of an earlier version is replaced, without what it knew, and that
// nothing of that version is left, neither by a program nor by Unpin.
func TestPinFormer(t *testing.T) {
	for _, former := range formerMaps {
		for _, load := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/%v", former, load), func(t *testing.T) {
				newVeth(t, 1500)
				dir := filepath.Join(nettest.BPFFS(t), "quicway")
				id, route := cid.NewKey().ID(cid.Peer, 7), Route{Session: 1}
				first := loadPinned(t, dir, 4)
				putState(t, first, id, route)
				if _, err := first.Attach("q0", Generic); err != nil {
					t.Fatal(err)
				}
				if err := errors.Join(first.Close(), os.Rename(filepath.Join(dir, pinnedMaps), filepath.Join(dir, former))); err != nil {
					t.Fatal(err)
				}
				if load {
					before := attachedTo(t, "q0")
					second := loadPinned(t, dir, 4)
					if _, ok, err := second.relay.Route(id); ok || err != nil {
						t.Errorf("routes of an earlier version: %v, %v", ok, err)
					}
					if _, err := os.Stat(filepath.Join(dir, former)); !errors.Is(err, os.ErrNotExist) {
						t.Errorf("maps of an earlier version are left: %v", err)
					}
					if _, err := second.Attach("q0", Generic); err != nil || attachedTo(t, "q0") == before {
						t.Errorf("the program was not replaced: %v", err)
					}
					second.Close()
				}
				if err := Unpin(dir); err != nil || attachedTo(t, "q0") != 0 {
					t.Errorf("%v, program %d is left", err, attachedTo(t, "q0"))
				}
				if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("the directory is left: %v", err)
				}
			})
		}
	}
}

// TestPinWithoutKeys checks that routes whose keys are lost are not taken over.
func TestPinWithoutKeys(t *testing.T) {
	nettest.Namespace(t)
	dir := filepath.Join(nettest.BPFFS(t), "quicway")
	first := loadPinned(t, dir, 4)
	putState(t, first, cid.NewKey().ID(cid.Peer, 7), Route{Session: 1})
	keys := first.relay.routes.keys
	if err := errors.Join(first.Close(), os.Remove(filepath.Join(dir, pinnedMaps, pinnedKeys))); err != nil {
		t.Fatal(err)
	}
	second := loadPinned(t, dir, 4)
	for r := range second.relay.Routes() {
		t.Errorf("route %+v was taken over", r)
	}
	if second.relay.routes.keys == keys || second.relay.routes.keys == (routeKeys{}) {
		t.Error("no new keys")
	}
	if err := errors.Join(second.Close(), Unpin(dir)); err != nil {
		t.Error(err)
	}
}
