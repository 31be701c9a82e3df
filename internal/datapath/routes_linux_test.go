package datapath

import (
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/quicway/quicway/cid"
)

// testRoutes returns a table with so many sets, in memory that no program reads.
func testRoutes(sets int) *routeTable {
	h := routeHash{keys: newRouteKeys(), mask: uint32(sets - 1)}
	return &routeTable{routeHash: h, sets: make([]datapathRouteSet, sets)}
}

// testID returns an ID of three words.
func testID(words ...byte) cid.ID {
	var b [cid.Len]byte
	for i, w := range words {
		b[4*i] = w
	}
	id, _ := cid.IDFrom(b[:])
	return id
}

// add adds the route of an ID, and returns its slot.
func (t *routeTable) add(id cid.ID, r Route) (uint64, error) {
	p := t.place(id)
	slot := slotOf(p.tag, r)
	return slot, t.put(p, slot)
}

// used returns how many slots are in use, and fails if two sets that belong together have a tag twice.
func (t *routeTable) used(tb testing.TB) (n int) {
	tb.Helper()
	type pair struct{ low, high, tag uint32 }
	seen := make(map[pair]bool)
	for number := range t.sets {
		for _, slot := range t.sets[number].Slot {
			if slot == 0 {
				continue
			}
			n++
			tag := uint32(slot >> 32)
			one, two := uint32(number), t.other(uint32(number), tag)
			p := pair{min(one, two), max(one, two), tag}
			if seen[p] {
				tb.Errorf("sets %d and %d have tag %x twice", one, two, tag)
			}
			seen[p] = true
		}
	}
	return n
}

// TestRouteTableFills checks that a table takes as many IDs as it was made for without a refusal, few
// of them in their second set, and that it can be filled to its last slot, and emptied.
func TestRouteTableFills(t *testing.T) {
	const ids = 5 * 1024
	table := testRoutes(int(routeSets(ids)))
	keys := cid.NewKey().Deriver(cid.Peer)
	known := make(map[cid.ID]Route)
	second := 0
	for i := uint64(0); len(known) < len(table.sets)*routeSlots; i++ {
		if i > 1<<22 {
			t.Fatalf("only %d of %d slots are in use", len(known), len(table.sets)*routeSlots)
		}
		id, r := keys.ID(i), Route{Session: uint32(i % (1 << sessionBits)), Leg: uint8(i % 2), Counter: i % 128}
		_, err := table.add(id, r)
		if err == nil {
			known[id] = r
		} else if i < ids || !errors.Is(err, ErrFull) && !errors.Is(err, errTagTaken) {
			t.Fatalf("ID %d of %d: %v", i, ids, err)
		}
		if i != ids-1 {
			continue
		}
		for id := range known {
			if p := table.place(id); table.inSet(p.second, p.tag) {
				second++
			}
		}
		if second*4 > ids {
			t.Errorf("%d of %d IDs are in their second set", second, ids)
		}
	}
	if n := table.used(t); n != len(known) {
		t.Errorf("%d slots are in use, want %d", n, len(known))
	}
	for id, r := range known {
		p := table.place(id)
		if slot := table.find(p); slot == nil || routeOf(*slot) != r {
			t.Fatalf("%v is lost", id)
		}
		table.remove(p, slotOf(p.tag, r))
	}
	if n := table.used(t); n != 0 {
		t.Errorf("%d slots are left", n)
	}
}

// inSet says whether a set has a tag.
func (t *routeTable) inSet(number, tag uint32) bool {
	for _, slot := range t.sets[number].Slot {
		if uint32(slot>>32) == tag {
			return true
		}
	}
	return false
}

// TestRouteCopies checks that a slot that is there twice, because a process ended while it moved the
// slot, is removed with its ID, and that one of both is known as the copy.
func TestRouteCopies(t *testing.T) {
	table := testRoutes(8)
	id := cid.NewKey().ID(cid.Peer, 1)
	slot, err := table.add(id, Route{Session: 3})
	if err != nil {
		t.Fatal(err)
	}
	p := table.place(id)
	table.sets[p.second].Slot[5] = slot
	if !table.isAt(p.first, slot, p) || table.isAt(p.second, slot, p) {
		t.Error("the copy is the one in the first set, want the one in the second")
	}
	if _, err := table.add(id, Route{Session: 3}); err != nil {
		t.Errorf("added again: %v", err)
	}
	table.remove(p, slot)
	if n := table.used(t); n != 0 {
		t.Errorf("%d slots are left", n)
	}
	table.sets[p.second].Slot[5] = slot
	if !table.isAt(p.second, slot, p) || table.isAt(p.second^2, slot, p) {
		t.Error("a slot in its second set is taken for a copy, or one in another set is not")
	}
}

// FuzzRouteTable checks a table with few sets and few tags against a map: what was put is found until
// it is deleted, whatever moves, and nothing else is.
func FuzzRouteTable(f *testing.F) {
	every := make([]byte, 0, 512)
	for i := range 256 {
		every = append(every, byte(i), 0)
	}
	f.Add(every)
	random := make([]byte, 1024)
	for i := range random {
		random[i] = byte(rand.Uint32())
	}
	f.Add(random)
	f.Fuzz(func(t *testing.T, in []byte) {
		table := testRoutes(8)
		table.keys = routeKeys{1 << 32, 0, 0, 1 << 31, 1 << 32, 0} // the last word makes no difference
		known := make(map[cid.ID]Route)
		for ; len(in) > 1; in = in[2:] {
			id := testID(in[0]&15, in[0]>>4, in[1]>>6&1)
			r := Route{Session: uint32(in[0]), Leg: in[1] >> 6 & 1, Counter: uint64(in[1] >> 6 & 1)}
			p := table.place(id)
			if in[1]&3 == 3 {
				table.remove(p, slotOf(p.tag, r))
				delete(known, id)
			} else if _, err := table.add(id, r); err == nil {
				known[id] = r
			} else if _, ok := known[id]; ok {
				t.Fatalf("%v is refused, though it is there: %v", id, err)
			}
			if n := table.used(t); n != len(known) {
				t.Fatalf("%d slots are in use, want %d", n, len(known))
			}
			for id, r := range known {
				if slot := table.find(table.place(id)); slot == nil || routeOf(*slot) != r {
					t.Fatalf("%v is lost", id)
				}
			}
		}
	})
}

// TestRouteHashDoesNotAllocate checks that the window of a leg is moved without garbage.
func TestRouteHashDoesNotAllocate(t *testing.T) {
	table := testRoutes(8)
	id := cid.NewKey().ID(cid.Peer, 1)
	if n := testing.AllocsPerRun(100, func() {
		slot, _ := table.add(id, Route{})
		table.remove(table.place(id), slot)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
