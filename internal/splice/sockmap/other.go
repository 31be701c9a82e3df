//go:build !linux

package sockmap

import "net"

// Program is not supported on this system: [Load] returns ErrUnsupported.
type Program struct{}

// Load returns ErrUnsupported.
func Load(int) (*Program, error) { return nil, ErrUnsupported }

// LoadUntested returns ErrUnsupported.
func LoadUntested(int) (*Program, error) { return nil, ErrUnsupported }

// Take returns ErrUnsupported.
func (p *Program) Take(_, _ *net.TCPConn) (*Pair, error) { return nil, ErrUnsupported }

// Close does nothing.
func (p *Program) Close() error { return nil }

// Pair is not supported on this system.
type Pair struct{}

// Done returns nil.
func (p *Pair) Done() <-chan struct{} { return nil }

// End returns Running.
func (p *Pair) End() End { return Running }

// Traffic returns nothing.
func (p *Pair) Traffic() (client, upstream Half) { return Half{}, Half{} }

// Abort does nothing.
func (p *Pair) Abort() {}
