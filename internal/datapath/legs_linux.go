package datapath

import (
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"

	"github.com/cilium/ebpf"
)

// legTable is the legs of all sessions, in the memory that the program reads: bpf/legs.h describes
// it. The program's mutex guards it against other writers.
//
// The program must see the stores to a leg in their order. So all of them are atomic: atomic stores
// of Go are releases, of which none becomes visible before anything that was stored earlier.
type legTable struct {
	memory mappedMemory // of the map legs
	legs   []datapathLeg
	locals localTable
}

// newLegTable maps the memory of the table. An earlier process may have filled pinned maps.
func newLegTable(legs, common *ebpf.Map, pinned bool) (t legTable, err error) {
	if t.memory, t.legs, err = mapMemory[datapathLeg](legs); err == nil {
		t.locals, err = newLocalTable(common)
	}
	if err != nil {
		return legTable{}, errors.Join(fmt.Errorf("map the memory of the legs: %w", err), t.memory.close())
	}
	for i := 0; pinned && i < len(t.legs); i++ {
		if s := t.legs[i].load(); s.complete() {
			t.locals.adopt(s.at())
			t.locals.adopt(s.via())
		}
	}
	return t, nil
}

func (t *legTable) close() error {
	memory, locals := t.memory, t.locals.memory
	*t = legTable{}
	return errors.Join(memory.close(), locals.close())
}

// at returns a leg of a session.
func (t *legTable) at(session uint32, leg uint8) *datapathLeg { return &t.legs[2*session+uint32(leg)] }

// put sets the addresses of the legs of a session. The session has none if a leg is not valid, or
// if there is no room for the addresses of the relay.
func (t *legTable) put(session uint32, legs [2]Leg) error {
	t.begin(session)
	var numbers [2]uint8
	var err error
	if !legs[0].Valid() || !legs[1].Valid() {
		legs = [2]Leg{}
	} else if numbers, err = t.locals.acquire(legs[0].Local, legs[1].Local); err != nil {
		legs = [2]Leg{}
	}
	for leg := range uint8(2) {
		l := t.at(session, leg)
		l.store(legs[leg^1].Remote, legs[leg].Remote)
		l.end(numbers[leg^1], numbers[leg])
	}
	return err
}

// delete deletes a session.
func (t *legTable) delete(session uint32) {
	t.begin(session)
	for leg := range uint8(2) {
		l := t.at(session, leg)
		l.store(netip.AddrPort{}, netip.AddrPort{})
		l.Due, l.Told = 0, 0
		atomic.StoreUint64(&l.Packets, 0)
		atomic.StoreUint64(&l.Bytes, 0)
		l.end(0, 0)
	}
}

// traffic returns what was forwarded to the legs of a session.
func (t *legTable) traffic(session uint32) (out [2]Traffic) {
	for leg := range out {
		l := t.at(session, uint8(leg))
		out[leg] = Traffic{Packets: atomic.LoadUint64(&l.Packets), Bytes: atomic.LoadUint64(&l.Bytes)}
	}
	return out
}

// session returns the legs of a session.
func (t *legTable) session(session uint32) (legs [2]Leg) {
	for leg := range legs {
		l := t.at(session, uint8(leg))
		s := l.load()
		if local := t.locals.address(s.via()); s.complete() && local.IsValid() {
			to := readAddr(&l.To, familyOf(local.Addr()))
			legs[leg] = Leg{Remote: netip.AddrPortFrom(to, swapped(l.ToPort)), Local: local}
		}
	}
	return legs
}

// begin begins to change both legs of a session: packets to them are passed until the end. A process
// may have ended during a change.
func (t *legTable) begin(session uint32) {
	for leg := range uint8(2) {
		l := t.at(session, leg)
		s := l.load()
		atomic.StoreUint64(&l.State, uint64(s.version()|1))
		if s.complete() {
			t.locals.release(s.at())
			t.locals.release(s.via())
		}
	}
}

// end ends a change of a leg, with the numbers of two addresses of the relay: the one that the other
// leg sends to, and the one that this leg sees. The leg has no next hop.
func (l *datapathLeg) end(at, via uint8) {
	version := l.load().version() + 1
	atomic.StoreUint64(&l.State, uint64(version)|uint64(at)<<legAtShift|uint64(via)<<legViaShift)
}

// store stores the addresses of the other leg, and of this one.
func (l *datapathLeg) store(from, to netip.AddrPort) {
	storeAddr(&l.From, from.Addr())
	storeAddr(&l.To, to.Addr())
	storePair(&l.FromPort, swapped(from.Port()), swapped(to.Port()))
}

// legState is the state of a leg: bpf/legs.h.
type legState uint64

const (
	legAtShift  = 16 // LEG_AT_SHIFT
	legViaShift = 24 // LEG_VIA_SHIFT
)

func (l *datapathLeg) load() legState { return legState(atomic.LoadUint64(&l.State)) }

func (s legState) version() uint16 { return uint16(s) }
func (s legState) at() uint8       { return uint8(s >> legAtShift) }
func (s legState) via() uint8      { return uint8(s >> legViaShift) }

// complete says whether no change of the leg goes on, or was cut off.
func (s legState) complete() bool { return s.version()%2 == 0 }
