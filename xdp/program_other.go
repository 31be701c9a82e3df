//go:build !linux

package xdp

import (
	"context"
	"iter"

	"github.com/quicway/quicway/cid"
)

// Program does not exist on this system: [Load] says so.
type Program struct{}

// Load returns ErrUnsupported.
func Load(*Config) (*Program, error) { return nil, ErrUnsupported }

// Close does nothing.
func (p *Program) Close() error { return nil }

// FD returns -1.
func (p *Program) FD() int { return -1 }

// SetNext returns ErrUnsupported.
func (p *Program) SetNext(int) error { return ErrUnsupported }

// Stats returns ErrUnsupported.
func (p *Program) Stats() (map[Reason]uint64, error) { return nil, ErrUnsupported }

// StageErr returns ErrUnsupported.
func (p *Program) StageErr(Stage) error { return ErrUnsupported }

// Test returns ErrUnsupported.
func (p *Program) Test(int, []byte) (Verdict, []byte, error) { return Aborted, nil, ErrUnsupported }

// Attach returns ErrUnsupported.
func (p *Program) Attach(string, Mode) (Mode, error) { return Auto, ErrUnsupported }

// Detach does nothing.
func (p *Program) Detach(string) error { return nil }

// Sessions returns 0.
func (p *Program) Sessions() uint32 { return 0 }

// OpenPort returns ErrUnsupported.
func (p *Program) OpenPort(uint16) error { return ErrUnsupported }

// ClosePort returns ErrUnsupported.
func (p *Program) ClosePort(uint16) error { return ErrUnsupported }

// PutRoute returns ErrUnsupported.
func (p *Program) PutRoute(cid.ID, Route) error { return ErrUnsupported }

// DeleteRoute returns ErrUnsupported.
func (p *Program) DeleteRoute(cid.ID) error { return ErrUnsupported }

// PutSession returns ErrUnsupported.
func (p *Program) PutSession(uint32, [2]Leg) error { return ErrUnsupported }

// DeleteSession returns ErrUnsupported.
func (p *Program) DeleteSession(uint32) error { return ErrUnsupported }

// SetDue returns ErrUnsupported.
func (p *Program) SetDue(uint32, uint8, uint64) error { return ErrUnsupported }

// Traffic returns ErrUnsupported.
func (p *Program) Traffic(uint32) ([2]Traffic, error) { return [2]Traffic{}, ErrUnsupported }

// Events yields nothing.
func (p *Program) Events(context.Context) iter.Seq[Event] { return func(func(Event) bool) {} }

// Session returns ErrUnsupported.
func (p *Program) Session(uint32) ([2]Leg, error) { return [2]Leg{}, ErrUnsupported }

// Route returns ErrUnsupported.
func (p *Program) Route(cid.ID) (Route, bool, error) { return Route{}, false, ErrUnsupported }

// Routes yields nothing.
func (p *Program) Routes() iter.Seq2[cid.ID, Route] { return func(func(cid.ID, Route) bool) {} }

// PutNote returns ErrUnsupported.
func (p *Program) PutNote(uint32, []byte) error { return ErrUnsupported }

// Note returns ErrUnsupported.
func (p *Program) Note(uint32) ([]byte, error) { return nil, ErrUnsupported }

// Pinned returns false.
func (p *Program) Pinned() bool { return false }

// Unpin returns ErrUnsupported.
func Unpin(string) error { return ErrUnsupported }

// SeesEgress returns false.
func (p *Program) SeesEgress(string) bool { return false }

// TestEgress returns ErrUnsupported.
func (p *Program) TestEgress(int, []byte, int) (Verdict, []byte, error) {
	return Aborted, nil, ErrUnsupported
}

// Sights returns ErrUnsupported.
func (p *Program) Sights() (map[Sight]uint64, error) { return nil, ErrUnsupported }

// Flows returns ErrUnsupported.
func (p *Program) Flows() (*Flows, error) { return nil, ErrUnsupported }

// Flows does not exist on this system.
type Flows struct{}

// Close does nothing.
func (f *Flows) Close() error { return nil }

// Read returns ErrUnsupported.
func (f *Flows) Read(*Sample) error { return ErrUnsupported }

// Pending returns false.
func (f *Flows) Pending() bool { return false }

// Lookup returns ErrUnsupported.
func (f *Flows) Lookup(FlowKey) (Flow, bool, error) { return Flow{}, false, ErrUnsupported }

// Take returns ErrUnsupported.
func (f *Flows) Take(FlowKey) (Flow, bool, error) { return Flow{}, false, ErrUnsupported }

// Teach returns ErrUnsupported.
func (f *Flows) Teach(FlowKey, *Lesson) (bool, error) { return false, ErrUnsupported }

// All yields nothing.
func (f *Flows) All() iter.Seq2[FlowKey, Flow] { return func(func(FlowKey, Flow) bool) {} }

// Reconsider returns ErrUnsupported.
func (f *Flows) Reconsider() error { return ErrUnsupported }
