//go:build !linux

package datapath

import (
	"context"
	"iter"
	"net/netip"
	"time"

	"github.com/quicway/quicway/cid"
)

// Program is not supported on this system: [Load] returns ErrUnsupported.
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

// Relay returns ErrUnsupported.
func (p *Program) Relay() (*Relay, error) { return nil, ErrUnsupported }

// Relay is not supported on this system.
type Relay struct{}

// Pinned returns false.
func (v *Relay) Pinned() bool { return false }

// Sessions returns 0.
func (v *Relay) Sessions() uint32 { return 0 }

// OpenPort returns ErrUnsupported.
func (v *Relay) OpenPort(uint16) error { return ErrUnsupported }

// ClosePort returns ErrUnsupported.
func (v *Relay) ClosePort(uint16) error { return ErrUnsupported }

// PutRoute returns ErrUnsupported.
func (v *Relay) PutRoute(cid.ID, Route) error { return ErrUnsupported }

// DeleteRoute returns ErrUnsupported.
func (v *Relay) DeleteRoute(cid.ID, Route) error { return ErrUnsupported }

// PutSession returns ErrUnsupported.
func (v *Relay) PutSession(uint32, [2]Leg) error { return ErrUnsupported }

// DeleteSession returns ErrUnsupported.
func (v *Relay) DeleteSession(uint32) error { return ErrUnsupported }

// SetDue returns ErrUnsupported.
func (v *Relay) SetDue(uint32, uint8, uint64) error { return ErrUnsupported }

// Traffic returns ErrUnsupported.
func (v *Relay) Traffic(uint32) ([2]Traffic, error) { return [2]Traffic{}, ErrUnsupported }

// Events yields nothing.
func (v *Relay) Events(context.Context) iter.Seq[Event] { return func(func(Event) bool) {} }

// Current returns false.
func (v *Relay) Current(Event) bool { return false }

// Session returns ErrUnsupported.
func (v *Relay) Session(uint32) ([2]Leg, error) { return [2]Leg{}, ErrUnsupported }

// Route returns ErrUnsupported.
func (v *Relay) Route(cid.ID) (Route, bool, error) { return Route{}, false, ErrUnsupported }

// Routes yields nothing.
func (v *Relay) Routes() iter.Seq[Route] { return func(func(Route) bool) {} }

// KeepRoutes does nothing.
func (v *Relay) KeepRoutes(func(Route) (cid.ID, bool)) {}

// PutNote returns ErrUnsupported.
func (v *Relay) PutNote(uint32, []byte) error { return ErrUnsupported }

// Note returns ErrUnsupported.
func (v *Relay) Note(uint32) ([]byte, error) { return nil, ErrUnsupported }

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

// Monitor returns ErrUnsupported.
func (p *Program) Monitor() (*Monitor, error) { return nil, ErrUnsupported }

// Monitor is not supported on this system.
type Monitor struct{}

// Close does nothing.
func (v *Monitor) Close() error { return nil }

// Read returns ErrUnsupported.
func (v *Monitor) Read(*Sample) error { return ErrUnsupported }

// Now returns the zero time.
func (v *Monitor) Now() time.Time { return time.Time{} }

// Pending returns false.
func (v *Monitor) Pending() bool { return false }

// Lookup returns ErrUnsupported.
func (v *Monitor) Lookup(FlowKey) (Flow, bool, error) { return Flow{}, false, ErrUnsupported }

// Take returns ErrUnsupported.
func (v *Monitor) Take(FlowKey) (Flow, bool, error) { return Flow{}, false, ErrUnsupported }

// SetRules returns ErrUnsupported.
func (v *Monitor) SetRules(FlowKey, *FlowRules) (bool, error) { return false, ErrUnsupported }

// All yields nothing.
func (v *Monitor) All() iter.Seq2[FlowKey, Flow] { return func(func(FlowKey, Flow) bool) {} }

// ForgetIgnored returns ErrUnsupported.
func (v *Monitor) ForgetIgnored() error { return ErrUnsupported }

// Quota is not supported on this system.
type Quota struct{}

// Quota returns ErrUnsupported.
func (p *Program) Quota() (*Quota, error) { return nil, ErrUnsupported }

// Close does nothing.
func (q *Quota) Close() error { return nil }

// Renew returns ErrUnsupported.
func (q *Quota) Renew(time.Duration) error { return ErrUnsupported }

// SetPolicy returns ErrUnsupported.
func (q *Quota) SetPolicy(*QuotaPolicy) error { return ErrUnsupported }

// Guard returns ErrUnsupported.
func (q *Quota) Guard(uint16, int) error { return ErrUnsupported }

// Unguard returns ErrUnsupported.
func (q *Quota) Unguard(uint16) error { return ErrUnsupported }

// Put returns ErrUnsupported.
func (q *Quota) Put(List, netip.Prefix, time.Duration) error { return ErrUnsupported }

// Packets returns ErrUnsupported.
func (q *Quota) Packets(List, netip.Prefix) (uint64, error) { return 0, ErrUnsupported }

// Refuse returns ErrUnsupported.
func (q *Quota) Refuse(netip.Prefix, time.Duration) (uint64, error) { return 0, ErrUnsupported }

// Expect returns ErrUnsupported.
func (q *Quota) Expect(netip.AddrPort, time.Duration) error { return ErrUnsupported }

// Drops yields nothing.
func (q *Quota) Drops(context.Context) iter.Seq[SourceDrops] {
	return func(func(SourceDrops) bool) {}
}
