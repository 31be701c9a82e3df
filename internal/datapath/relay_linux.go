package datapath

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
)

// Relay gives access to the relay stage of a program: the sessions and connection IDs that the
// kernel forwards packets of. All methods may be called concurrently. After Close of the program
// they return ErrClosed.
type Relay struct {
	program  *Program
	sessions uint32
	legs     legTable
	routes   routeTable
	notes    *ebpf.Map // nil: not pinned
	events   *ringbuf.Reader

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

// PutSession sets the addresses of the two legs of a session, and keeps its counters. While one
// of the legs is not valid, packets of the session are passed. They are passed as well, and PutSession
// returns ErrFull, if the session is not among the first [Relay.Sessions], or uses one more local
// address than the kernel has room for, 255 of all sessions.
func (v *Relay) PutSession(session uint32, legs [2]Leg) error {
	err := ErrFull
	if session < v.sessions {
		err = v.withLegs(func(t *legTable) error { return t.put(session, legs) })
	}
	if err != nil {
		return fmt.Errorf("xdp: put session %d: %w", session, err)
	}
	return nil
}

// DeleteSession deletes a session, with its counters and its note.
func (v *Relay) DeleteSession(session uint32) error {
	if session >= v.sessions {
		return nil
	}
	err := v.withLegs(func(t *legTable) error {
		t.delete(session)
		return nil
	})
	if err != nil {
		return fmt.Errorf("xdp: delete session %d: %w", session, err)
	}
	return v.PutNote(session, nil)
}

// withLegs calls do with the table of legs, unless the program is closed.
func (v *Relay) withLegs(do func(*legTable) error) error {
	v.program.mu.Lock()
	defer v.program.mu.Unlock()
	if v.program.closed {
		return ErrClosed
	}
	return do(&v.legs)
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
	return v.withLegs(func(t *legTable) error {
		t.at(session, leg).Due = uint16(counter)
		return nil
	})
}

// Traffic returns what the kernel has forwarded to each leg of a session.
func (v *Relay) Traffic(session uint32) (out [2]Traffic, err error) {
	if session >= v.sessions {
		return out, nil
	}
	err = v.withLegs(func(t *legTable) error {
		out = t.traffic(session)
		return nil
	})
	return out, err
}

// Events yields events until ctx is done or the program is closed. Only one goroutine at a time
// may use it. An event may be about an earlier session with the same index: see [Relay.Current].
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
				Counter: binary.NativeEndian.Uint16(b[8:]),
				version: binary.NativeEndian.Uint16(b[10:]),
			}
			if !yield(e) {
				return
			}
		}
	}
}

// Current says whether a session has had the same legs since an event of it. If not, the event is void, and the
// kernel reports the ID again with another packet.
func (v *Relay) Current(e Event) bool {
	if e.Session >= v.sessions || e.Leg > 1 {
		return false
	}
	same := false
	err := v.withLegs(func(t *legTable) error {
		same = t.at(e.Session, e.Leg).load().version() == e.version
		return nil
	})
	return err == nil && same
}

// Session returns the two legs of a session, as PutSession has set them. They are the zero Leg if
// there is no session, or if a process ended while it changed them.
func (v *Relay) Session(session uint32) (legs [2]Leg, err error) {
	if session >= v.sessions {
		return legs, nil
	}
	err = v.withLegs(func(t *legTable) error {
		legs = t.session(session)
		return nil
	})
	return legs, err
}
