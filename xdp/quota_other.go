//go:build !linux

package xdp

import (
	"context"
	"iter"
	"net/netip"
	"time"
)

// Quota does not exist on this system: [Program.Quota] says so.
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

// TurnAway returns ErrUnsupported.
func (q *Quota) TurnAway(netip.Prefix, time.Duration) (uint64, error) { return 0, ErrUnsupported }

// Expect returns ErrUnsupported.
func (q *Quota) Expect(netip.AddrPort, time.Duration) error { return ErrUnsupported }

// Drops yields nothing.
func (q *Quota) Drops(context.Context) iter.Seq[SourceDrops] {
	return func(func(SourceDrops) bool) {}
}
