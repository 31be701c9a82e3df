//go:build !linux

package splice

import (
	"context"
	"iter"
	"net"
	"net/netip"
)

// Program is not supported on this system: [Load] returns ErrUnsupported.
type Program struct{}

// Load returns ErrUnsupported.
func Load(*Config) (*Program, error) { return nil, ErrUnsupported }

// Attach returns ErrUnsupported.
func (p *Program) Attach(string) error { return ErrUnsupported }

// Detach does nothing.
func (p *Program) Detach(context.Context, string) error { return nil }

// Close does nothing.
func (p *Program) Close(context.Context) error { return nil }

// Stats returns ErrUnsupported.
func (p *Program) Stats() (map[Reason]uint64, error) { return nil, ErrUnsupported }

// Take returns ErrUnsupported.
func (p *Program) Take(context.Context, *net.TCPConn, *net.TCPConn, uint64) (*Pair, error) {
	return nil, ErrUnsupported
}

// Pairs yields nothing.
func (p *Program) Pairs() iter.Seq[*Pair] { return func(func(*Pair) bool) {} }

// Pinned returns false.
func (p *Program) Pinned() bool { return false }

// Unpin returns ErrUnsupported.
func Unpin(string) error { return ErrUnsupported }

// Pair is not supported on this system.
type Pair struct{}

// Client returns zero addresses.
func (p *Pair) Client() (remote, local netip.AddrPort) { return remote, local }

// Upstream returns zero addresses.
func (p *Pair) Upstream() (remote, local netip.AddrPort) { return remote, local }

// Done returns nil.
func (p *Pair) Done() <-chan struct{} { return nil }

// End returns Lost.
func (p *Pair) End() End { return Lost }

// Traffic returns zeros.
func (p *Pair) Traffic() (client, upstream Half) { return client, upstream }

// Wants returns nil.
func (p *Pair) Wants() <-chan Reason { return nil }

// Return returns ErrUnsupported.
func (p *Pair) Return(context.Context) (client, upstream *net.TCPConn, err error) {
	return nil, nil, ErrUnsupported
}

// Abort returns ErrUnsupported.
func (p *Pair) Abort() error { return ErrUnsupported }
