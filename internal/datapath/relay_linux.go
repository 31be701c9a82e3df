package datapath

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"sync"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"
)

// Relay gives access to the relay stage of a program: the sessions and connection IDs that the
// kernel forwards packets of. All methods may be called concurrently. After Close of the program
// they return ErrClosed.
type Relay struct {
	program  *Program
	sessions uint32
	memory   *ebpf.Memory // of the map of sessions
	routes   routeTable
	notes    *ebpf.Map // nil: not pinned
	events   *ringbuf.Reader
	changing sync.Mutex // held while the addresses of a leg change

	ports [65536 / 64]uint64 // guarded by the program's mu
}

// Relay returns the relay stage, which the caller does not close. Relay returns the error of
// [Program.StageErr] if the program lacks the stage.
func (p *Program) Relay() (*Relay, error) {
	if err := p.StageErr(RelayStage); err != nil {
		return nil, err
	}
	return &p.relay, nil
}

// readPorts reads which ports an earlier process has opened.
func (v *Relay) readPorts() error {
	for i := range v.ports {
		if err := v.program.objects.Ports.Lookup(uint32(i), &v.ports[i]); err != nil {
			return err
		}
	}
	return nil
}

// Sessions returns the number of sessions that there is room for. Indices of sessions are less
// than that.
func (v *Relay) Sessions() uint32 { return v.sessions }

// Pinned says whether sessions and connection IDs outlive the process.
func (v *Relay) Pinned() bool { return v.program.Pinned() }

// OpenPort makes the stage handle UDP packets to a port.
func (v *Relay) OpenPort(port uint16) error { return v.setPort(port, true) }

// ClosePort makes the stage pass UDP packets to a port.
func (v *Relay) ClosePort(port uint16) error { return v.setPort(port, false) }

func (v *Relay) setPort(port uint16, open bool) error {
	v.program.mu.Lock()
	defer v.program.mu.Unlock()
	if v.program.closed {
		return ErrClosed
	}
	word := &v.ports[port/64]
	if open {
		*word |= 1 << (port % 64)
	} else {
		*word &^= 1 << (port % 64)
	}
	if err := v.program.objects.Ports.Put(uint32(port/64), *word); err != nil {
		return fmt.Errorf("xdp: set port %d: %w", port, err)
	}
	return nil
}

// Sizes of struct session and struct leg, and the offsets of the fields of struct leg, in
// bpf/maps.h.
const (
	sessionSize       = int64(unsafe.Sizeof(datapathSession{}))
	legSize           = int64(unsafe.Sizeof(datapathSession{}.Legs[0]))
	offsetSender      = int64(unsafe.Offsetof(datapathSession{}.Legs[0].Sender))
	offsetSenderLocal = int64(unsafe.Offsetof(datapathSession{}.Legs[0].SenderLocal))
	offsetLocal       = int64(unsafe.Offsetof(datapathSession{}.Legs[0].Local))
	offsetRemote      = int64(unsafe.Offsetof(datapathSession{}.Legs[0].Remote))
	offsetDue         = int64(unsafe.Offsetof(datapathSession{}.Legs[0].Due))
	offsetVersion     = int64(unsafe.Offsetof(datapathSession{}.Legs[0].Version))
	offsetPackets     = int64(unsafe.Offsetof(datapathSession{}.Legs[0].Packets))
)

// The size of struct endpoint in bpf/maps.h, and the offset of its family.
const (
	endpointSize = 20
	offsetFamily = 18
)

// legOffset returns the offset of a leg in the map of sessions.
func legOffset(session uint32, leg uint8) int64 {
	return int64(session)*sessionSize + int64(leg)*legSize
}

// PutSession sets the addresses of the two legs of a session, and keeps its counters. While one
// of the legs is not valid, packets of the session are passed.
func (v *Relay) PutSession(session uint32, legs [2]Leg) error {
	if session >= v.sessions {
		return fmt.Errorf("xdp: put session %d: %w", session, ErrFull)
	}
	ok := legs[0].Valid() && legs[1].Valid()
	v.changing.Lock()
	defer v.changing.Unlock()
	var errs []error
	for leg := range uint8(2) {
		errs = append(errs, v.changeLeg(session, leg, func(at int64) error {
			if !ok {
				return v.write(at+offsetSender+offsetFamily, make([]byte, 2))
			}
			to, from := legs[leg], legs[leg^1]
			return errors.Join(
				v.write(at+offsetRemote, endpoint(to.Remote)),
				v.write(at+offsetLocal, endpoint(to.Local)),
				v.write(at+offsetSenderLocal, endpoint(from.Local)),
				v.write(at+offsetSender, endpoint(from.Remote)),
			)
		}))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("xdp: put session %d: %w", session, err)
	}
	return nil
}

// DeleteSession deletes a session, with its counters and its note.
func (v *Relay) DeleteSession(session uint32) error {
	if session >= v.sessions {
		return nil
	}
	v.changing.Lock()
	defer v.changing.Unlock()
	for leg := range uint8(2) {
		err := v.changeLeg(session, leg, func(at int64) error {
			return errors.Join(
				v.write(at, make([]byte, offsetVersion)),
				v.write(at+offsetPackets, make([]byte, legSize-offsetPackets)),
			)
		})
		if err != nil {
			return fmt.Errorf("xdp: delete session %d: %w", session, err)
		}
	}
	return v.PutNote(session, nil)
}

// changeLeg changes the fields of a leg, by do, which gets the offset of the leg. Packets to the
// leg are passed meanwhile: its version is odd during the change, and a new even number
// afterwards. The version may be odd before, if an earlier process ended during a change.
func (v *Relay) changeLeg(session uint32, leg uint8, do func(at int64) error) error {
	at := legOffset(session, leg)
	version, err := v.version(at)
	if err != nil {
		return err
	}
	version |= 1
	return errors.Join(
		v.write(at+offsetVersion, binary.NativeEndian.AppendUint16(nil, version)),
		do(at),
		v.write(at+offsetVersion, binary.NativeEndian.AppendUint16(nil, version+1)),
	)
}

// version returns the version of the leg at an offset.
func (v *Relay) version(at int64) (uint16, error) {
	v.program.mu.Lock()
	defer v.program.mu.Unlock()
	if v.program.closed {
		return 0, ErrClosed
	}
	var b [2]byte
	_, err := v.memory.ReadAt(b[:], at+offsetVersion)
	return binary.NativeEndian.Uint16(b[:]), err
}

// endpoint encodes an address as struct endpoint.
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

// SetDue makes the program report when packets to a leg carry an ID with this counter, or one of
// the 63 counters after it: at most once per tick of the kernel (1 to 10 ms), until SetDue is
// called with another counter. IDs of the leg with counters further away than 64 may be taken for
// others. SetDue returns ErrConfig if the leg is not 0 or 1.
func (v *Relay) SetDue(session uint32, leg uint8, counter uint64) error {
	if leg > 1 {
		return fmt.Errorf("xdp: set due: %w: leg %d, want 0 or 1", ErrConfig, leg)
	}
	if session >= v.sessions {
		return nil
	}
	return v.write(legOffset(session, leg)+offsetDue, binary.NativeEndian.AppendUint32(nil, uint32(counter)))
}

// Traffic returns what the kernel has forwarded to each leg of a session.
func (v *Relay) Traffic(session uint32) ([2]Traffic, error) {
	var out [2]Traffic
	if session >= v.sessions {
		return out, nil
	}
	v.program.mu.Lock()
	defer v.program.mu.Unlock()
	if v.program.closed {
		return out, ErrClosed
	}
	var b [16]byte
	for leg := range uint8(2) {
		if _, err := v.memory.ReadAt(b[:], legOffset(session, leg)+offsetPackets); err != nil {
			return out, fmt.Errorf("xdp: read session %d: %w", session, err)
		}
		out[leg] = Traffic{binary.NativeEndian.Uint64(b[:]), binary.NativeEndian.Uint64(b[8:])}
	}
	return out, nil
}

// write writes to the map of sessions in place.
func (v *Relay) write(at int64, b []byte) error {
	v.program.mu.Lock()
	defer v.program.mu.Unlock()
	if v.program.closed {
		return ErrClosed
	}
	_, err := v.memory.WriteAt(b, at)
	return err
}

// Events yields events until ctx is done or the program is closed. Only one goroutine at a time
// may use it.
func (v *Relay) Events(ctx context.Context) iter.Seq[Event] {
	return func(yield func(Event) bool) {
		defer context.AfterFunc(ctx, func() { v.events.Flush() })()
		var record ringbuf.Record
		for ctx.Err() == nil {
			err := v.events.ReadInto(&record)
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

// Session returns the two legs of a session, as PutSession has set them. They are the zero Leg if
// there is no session, or if a process ended while it changed them.
func (v *Relay) Session(session uint32) (legs [2]Leg, err error) {
	if session >= v.sessions {
		return legs, nil
	}
	v.program.mu.Lock()
	defer v.program.mu.Unlock()
	if v.program.closed {
		return legs, ErrClosed
	}
	for leg := range legs {
		var b [offsetVersion + 2]byte
		if _, err := v.memory.ReadAt(b[:], legOffset(session, uint8(leg))); err != nil {
			return legs, fmt.Errorf("xdp: read session %d: %w", session, err)
		}
		complete := binary.NativeEndian.Uint16(b[offsetVersion:])%2 == 0
		if complete && parseEndpoint(b[offsetSender:]).IsValid() {
			legs[leg] = Leg{Remote: parseEndpoint(b[offsetRemote:]), Local: parseEndpoint(b[offsetLocal:])}
		}
	}
	return legs, nil
}

// parseEndpoint decodes struct endpoint.
func parseEndpoint(b []byte) netip.AddrPort {
	port := binary.BigEndian.Uint16(b[16:])
	switch binary.NativeEndian.Uint16(b[offsetFamily:]) {
	case unix.AF_INET:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[12:16])), port)
	case unix.AF_INET6:
		return netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[:16])), port)
	}
	return netip.AddrPort{}
}
