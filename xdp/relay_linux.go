package xdp

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"

	"github.com/quicway/quicway/cid"
)

// Sessions returns how many sessions there is room for: indices below it are
// good.
func (p *Program) Sessions() uint32 { return p.sessions }

// OpenPort makes UDP packets to a port the relay's.
func (p *Program) OpenPort(port uint16) error { return p.setPort(port, true) }

// ClosePort ends it.
func (p *Program) ClosePort(port uint16) error { return p.setPort(port, false) }

func (p *Program) setPort(port uint16, open bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return ErrClosed
	}
	word := &p.ports[port/64]
	if open {
		*word |= 1 << (port % 64)
	} else {
		*word &^= 1 << (port % 64)
	}
	if err := p.objects.Ports.Put(uint32(port/64), *word); err != nil {
		return fmt.Errorf("xdp: set port %d: %w", port, err)
	}
	return nil
}

// routeLeg is where a route has its leg.
const routeLeg = 31

// kernelRoute is struct route.
type kernelRoute struct{ Session, Counter uint32 }

// PutRoute says who is behind an ID, of [cid.Len] bytes. It returns ErrFull if
// there is no room, and ErrConfig for a leg that no session has.
func (p *Program) PutRoute(id cid.ID, r Route) error {
	if r.Leg > 1 || r.Session >= 1<<routeLeg {
		return fmt.Errorf("xdp: put route: %w: session %d, leg %d, want leg 0 or 1", ErrConfig, r.Session, r.Leg)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return ErrClosed
	}
	value := kernelRoute{r.Session | uint32(r.Leg)<<routeLeg, uint32(r.Counter)}
	err := p.objects.Routes.Put(idKey(id), &value)
	switch {
	case errors.Is(err, unix.E2BIG):
		return fmt.Errorf("xdp: put route: %w", ErrFull)
	case err != nil:
		return fmt.Errorf("xdp: put route: %w", err)
	}
	return nil
}

// DeleteRoute says that nobody is behind an ID. It is no error if nobody was.
func (p *Program) DeleteRoute(id cid.ID) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return ErrClosed
	}
	if err := p.objects.Routes.Delete(idKey(id)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("xdp: delete route: %w", err)
	}
	return nil
}

func idKey(id cid.ID) [cid.Len]byte {
	return [cid.Len]byte(append(id.Bytes(), make([]byte, cid.Len)...))
}

// Where the fields of a way to a leg are in the map of sessions.
const (
	sessionSize = int64(unsafe.Sizeof(datapathSession{}))
	waySize     = int64(unsafe.Sizeof(datapathSession{}.To[0]))
	atFrom      = int64(unsafe.Offsetof(datapathSession{}.To[0].From))
	atAt        = int64(unsafe.Offsetof(datapathSession{}.To[0].At))
	atVia       = int64(unsafe.Offsetof(datapathSession{}.To[0].Via))
	atTo        = int64(unsafe.Offsetof(datapathSession{}.To[0].To))
	atDue       = int64(unsafe.Offsetof(datapathSession{}.To[0].Due))
	atVersion   = int64(unsafe.Offsetof(datapathSession{}.To[0].Version))
	atPackets   = int64(unsafe.Offsetof(datapathSession{}.To[0].Packets))
)

// endpointSize is that of struct endpoint, whose family is at its end.
const (
	endpointSize = 20
	atFamily     = 18
)

func wayAt(session uint32, leg uint8) int64 {
	return int64(session)*sessionSize + int64(leg)*waySize
}

// PutSession says where the two legs of a session are. While one of them is
// nowhere, packets of the session are passed. Its counters go on.
func (p *Program) PutSession(session uint32, legs [2]Leg) error {
	if session >= p.sessions {
		return fmt.Errorf("xdp: put session %d: %w", session, ErrFull)
	}
	ok := legs[0].Valid() && legs[1].Valid()
	p.changing.Lock()
	defer p.changing.Unlock()
	var errs []error
	for leg := range uint8(2) {
		errs = append(errs, p.change(session, leg, func(w int64) error {
			if !ok {
				return p.write(w+atFrom+atFamily, make([]byte, 2))
			}
			to, from := legs[leg], legs[leg^1]
			return errors.Join(
				p.write(w+atTo, endpoint(to.Remote)),
				p.write(w+atVia, endpoint(to.Local)),
				p.write(w+atAt, endpoint(from.Local)),
				p.write(w+atFrom, endpoint(from.Remote)),
			)
		}))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("xdp: put session %d: %w", session, err)
	}
	return nil
}

// DeleteSession forgets a session, with its counters and its note.
func (p *Program) DeleteSession(session uint32) error {
	if session >= p.sessions {
		return nil
	}
	p.changing.Lock()
	defer p.changing.Unlock()
	for leg := range uint8(2) {
		err := p.change(session, leg, func(w int64) error {
			return errors.Join(
				p.write(w, make([]byte, atVersion)),
				p.write(w+atPackets, make([]byte, waySize-atPackets)),
			)
		})
		if err != nil {
			return fmt.Errorf("xdp: delete session %d: %w", session, err)
		}
	}
	return p.PutNote(session, nil)
}

// change changes the way to a leg. Packets that go it meanwhile are passed: its
// version is odd until then, and another one afterwards, also if a process before
// this one has not come to an end.
func (p *Program) change(session uint32, leg uint8, do func(way int64) error) error {
	w := wayAt(session, leg)
	version, err := p.version(w)
	if err != nil {
		return err
	}
	version |= 1
	return errors.Join(
		p.write(w+atVersion, binary.NativeEndian.AppendUint16(nil, version)),
		do(w),
		p.write(w+atVersion, binary.NativeEndian.AppendUint16(nil, version+1)),
	)
}

func (p *Program) version(way int64) (uint16, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return 0, ErrClosed
	}
	var b [2]byte
	_, err := p.memory.ReadAt(b[:], way+atVersion)
	return binary.NativeEndian.Uint16(b[:]), err
}

// endpoint is struct endpoint.
func endpoint(a netip.AddrPort) []byte {
	b := make([]byte, 0, endpointSize)
	family := uint16(unix.AF_INET6)
	if a.Addr().Is4() {
		family = unix.AF_INET
		b = append(append(b, make([]byte, 12)...), a.Addr().AsSlice()...)
	} else {
		b = append(b, a.Addr().AsSlice()...)
	}
	b = binary.BigEndian.AppendUint16(b, a.Port())
	return binary.NativeEndian.AppendUint16(b, family)
}

// SetDue makes the program tell when packets to a leg carry an ID with this
// counter or one of the 2^31 after it: once in a tick of the kernel, of 1 to 10
// milliseconds, until it is set anew. It returns ErrConfig for a leg that no
// session has.
func (p *Program) SetDue(session uint32, leg uint8, counter uint64) error {
	if leg > 1 {
		return fmt.Errorf("xdp: set due: %w: leg %d, want 0 or 1", ErrConfig, leg)
	}
	if session >= p.sessions {
		return nil
	}
	return p.write(wayAt(session, leg)+atDue, binary.NativeEndian.AppendUint32(nil, uint32(counter)))
}

// Traffic returns what the kernel has forwarded to the legs of a session.
func (p *Program) Traffic(session uint32) ([2]Traffic, error) {
	var out [2]Traffic
	if session >= p.sessions {
		return out, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return out, ErrClosed
	}
	var b [16]byte
	for leg := range uint8(2) {
		if _, err := p.memory.ReadAt(b[:], wayAt(session, leg)+atPackets); err != nil {
			return out, fmt.Errorf("xdp: read session %d: %w", session, err)
		}
		out[leg] = Traffic{binary.NativeEndian.Uint64(b[:]), binary.NativeEndian.Uint64(b[8:])}
	}
	return out, nil
}

// write changes the map of sessions in place.
func (p *Program) write(at int64, b []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return ErrClosed
	}
	_, err := p.memory.WriteAt(b, at)
	return err
}

// Events yields events until ctx is done or the program is closed. One caller at
// a time gets them.
func (p *Program) Events(ctx context.Context) iter.Seq[Event] {
	return func(yield func(Event) bool) {
		defer context.AfterFunc(ctx, func() { p.events.Flush() })()
		var record ringbuf.Record
		for ctx.Err() == nil {
			err := p.events.ReadInto(&record)
			if errors.Is(err, ringbuf.ErrFlushed) {
				continue
			}
			if err != nil || len(record.RawSample) < 12 {
				return
			}
			b := record.RawSample
			e := Event{
				Session: binary.NativeEndian.Uint32(b),
				Leg:     uint8(binary.NativeEndian.Uint32(b[4:])),
				Counter: binary.NativeEndian.Uint32(b[8:]),
			}
			if !yield(e) {
				return
			}
		}
	}
}

// Session returns where the two legs of a session are: the zero Leg is nowhere.
func (p *Program) Session(session uint32) (legs [2]Leg, err error) {
	if session >= p.sessions {
		return legs, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return legs, ErrClosed
	}
	for leg := range legs {
		var way [atVersion + 2]byte
		if _, err := p.memory.ReadAt(way[:], wayAt(session, uint8(leg))); err != nil {
			return legs, fmt.Errorf("xdp: read session %d: %w", session, err)
		}
		changed := binary.NativeEndian.Uint16(way[atVersion:])%2 == 0 // and not left half done
		if changed && at(way[atFrom:]).IsValid() {
			legs[leg] = Leg{Remote: at(way[atTo:]), Local: at(way[atVia:])}
		}
	}
	return legs, nil
}

// at reads what endpoint has made.
func at(b []byte) netip.AddrPort {
	port := binary.BigEndian.Uint16(b[16:])
	switch binary.NativeEndian.Uint16(b[atFamily:]) {
	case unix.AF_INET:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[12:16])), port)
	case unix.AF_INET6:
		return netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[:16])), port)
	}
	return netip.AddrPort{}
}

// Route returns who is behind an ID, and whether anybody is. Of the counter it
// knows the low 32 bits.
func (p *Program) Route(id cid.ID) (Route, bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return Route{}, false, ErrClosed
	}
	var r kernelRoute
	err := p.objects.Routes.Lookup(idKey(id), &r)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return Route{}, false, nil
	}
	if err != nil {
		return Route{}, false, fmt.Errorf("xdp: get route: %w", err)
	}
	return r.route(), true, nil
}

func (r kernelRoute) route() Route {
	return Route{Session: r.Session &^ (1 << routeLeg), Leg: uint8(r.Session >> routeLeg), Counter: uint64(r.Counter)}
}

// Routes yields the IDs that lead to a session, as [Program.Route] returns them,
// until the program is closed. Those that come and go meanwhile may be left out,
// or come twice.
func (p *Program) Routes() iter.Seq2[cid.ID, Route] {
	const batch = 1024
	return func(yield func(cid.ID, Route) bool) {
		var cursor ebpf.MapBatchCursor
		keys, routes := make([][cid.Len]byte, batch), make([]kernelRoute, batch)
		for err := error(nil); err == nil; {
			var n int
			n, err = p.someRoutes(&cursor, keys, routes)
			for i := range n {
				id, _ := cid.IDFrom(keys[i][:])
				if !yield(id, routes[i].route()) {
					return
				}
			}
		}
	}
}

// someRoutes gets a few at a time, so that nobody waits for all.
func (p *Program) someRoutes(cursor *ebpf.MapBatchCursor, keys [][cid.Len]byte, routes []kernelRoute) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return 0, ErrClosed
	}
	return p.objects.Routes.BatchLookup(cursor, keys, routes, nil)
}
