package datapath

import (
	"fmt"
	"iter"
	"sync/atomic"

	"github.com/quicway/quicway/cid"
)

// sessionBits is how many bits a slot has for the session: bpf/routes.h.
const sessionBits = 32 - 1 - CounterBits

// slotOf returns the slot for a route.
func slotOf(tag uint32, r Route) uint64 {
	low := r.Session<<(CounterBits+1) | uint32(r.Leg)<<CounterBits | uint32(r.Counter)%(1<<CounterBits)
	return uint64(tag)<<32 | uint64(low)
}

// routeOf returns the route of a slot.
func routeOf(slot uint64) Route {
	low := uint32(slot)
	return Route{Session: low >> (CounterBits + 1), Leg: uint8(low >> CounterBits & 1), Counter: uint64(low % (1 << CounterBits))}
}

// check returns an error if a slot has no room for the route.
func (r Route) check() error {
	if r.Leg > 1 || r.Session >= 1<<sessionBits {
		return fmt.Errorf("%w: session %d, leg %d, want leg 0 or 1", ErrConfig, r.Session, r.Leg)
	}
	return nil
}

// PutRoute sets the leg that an ID leads to. It returns ErrFull if there is no room, another error if
// the kernel could not tell the ID from another one, and ErrConfig if the session or the leg is out of
// range. An ID that has a route gets another one only after [Relay.DeleteRoute].
func (v *Relay) PutRoute(id cid.ID, r Route) error {
	v.program.mu.Lock()
	defer v.program.mu.Unlock()
	if v.program.closed {
		return ErrClosed
	}
	err := r.check()
	if err == nil {
		p := v.routes.place(id)
		err = v.routes.put(p, slotOf(p.tag, r))
	}
	if err != nil {
		return fmt.Errorf("xdp: put route: %w", err)
	}
	return nil
}

// DeleteRoute removes the route of an ID, which is the one that PutRoute was given. It returns nil if
// there is none.
func (v *Relay) DeleteRoute(id cid.ID, r Route) error {
	v.program.mu.Lock()
	defer v.program.mu.Unlock()
	if v.program.closed {
		return ErrClosed
	}
	p := v.routes.place(id)
	v.routes.remove(p, slotOf(p.tag, r))
	return nil
}

// Route returns the route that the kernel finds for an ID, and whether there is one.
func (v *Relay) Route(id cid.ID) (Route, bool, error) {
	v.program.mu.Lock()
	defer v.program.mu.Unlock()
	if v.program.closed {
		return Route{}, false, ErrClosed
	}
	if slot := v.routes.find(v.routes.place(id)); slot != nil {
		return routeOf(*slot), true, nil
	}
	return Route{}, false, nil
}

// Routes yields all routes, until the program is closed. The kernel does not know which IDs have
// them. Routes that are added or removed meanwhile may be missing, or appear twice.
func (v *Relay) Routes() iter.Seq[Route] {
	return func(yield func(Route) bool) {
		for _, slot := range v.slots() {
			if !yield(routeOf(slot)) {
				return
			}
		}
	}
}

// KeepRoutes deletes all routes but those that keep returns true for, and the ID that has the route.
// If the route is not that ID's, it is deleted as well. keep may call other methods.
func (v *Relay) KeepRoutes(keep func(Route) (cid.ID, bool)) {
	for number, slot := range v.slots() {
		id, ok := keep(routeOf(slot))
		v.deleteUnless(number, slot, id, ok)
	}
}

// deleteUnless deletes a slot of a set, unless it is to be kept, and is an ID's.
func (v *Relay) deleteUnless(number uint32, slot uint64, id cid.ID, keep bool) {
	v.program.mu.Lock()
	defer v.program.mu.Unlock()
	if v.program.closed || keep && v.routes.isAt(number, slot, v.routes.place(id)) {
		return
	}
	set := &v.routes.sets[number].Slot
	for i := range set {
		if set[i] == slot {
			atomic.StoreUint64(&set[i], 0)
		}
	}
}

// slots yields the slots in use, with the numbers of their sets. It holds the mutex while it reads a
// set, but not while it yields.
func (v *Relay) slots() iter.Seq2[uint32, uint64] {
	return func(yield func(uint32, uint64) bool) {
		for number := uint32(0); ; number++ {
			set, ok := v.set(number)
			if !ok {
				return
			}
			for _, slot := range set {
				if slot != 0 && !yield(number, slot) {
					return
				}
			}
		}
	}
}

// set returns a copy of a set, and false after the last one.
func (v *Relay) set(number uint32) ([routeSlots]uint64, bool) {
	v.program.mu.Lock()
	defer v.program.mu.Unlock()
	if v.program.closed || int(number) >= len(v.routes.sets) {
		return [routeSlots]uint64{}, false
	}
	return v.routes.sets[number].Slot, true
}
