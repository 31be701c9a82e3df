package p2p

import (
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
)

// Stats are counters of a [Conn].
type Stats struct {
	quic.ConnectionStats
	// IDs is the number of connection IDs that this side has issued. quic-go changes
	// the ID every few thousand packets, so that observers cannot link packets by it.
	IDs uint64

	// Attempts is the number of rounds of probes.
	Attempts uint64
	// Fallbacks is the number of direct paths that have died in use.
	Fallbacks uint64
	// RelayChanges is the number of times that packets have begun to go through another
	// relay.
	RelayChanges uint64
	// Direct and LAN are the numbers of migrations to a path of that kind.
	Direct, LAN uint64
	// TimeToDirect is the time from the end of the handshake to the first direct path,
	// or 0 if there was none.
	TimeToDirect time.Duration
}

// pathCounters are the counters of one connection, which are part of those of its endpoint.
type pathCounters struct {
	endpoint                                *endpointCounters
	attempts, fallbacks, turns, direct, lan atomic.Uint64
	first                                   atomic.Int64 // nanoseconds
}

// attempt counts a round of probes.
func (c *pathCounters) attempt() {
	c.attempts.Add(1)
	c.endpoint.attempts.Add(1)
}

// fallback counts a direct path that has died in use.
func (c *pathCounters) fallback() {
	c.fallbacks.Add(1)
	c.endpoint.fallbacks.Add(1)
}

// turn counts a change to another relay.
func (c *pathCounters) turn() {
	c.turns.Add(1)
	c.endpoint.turns.Add(1)
}

// succeeded counts a migration to an address, after a time.
func (c *pathCounters) succeeded(addr netip.Addr, after time.Duration) {
	after = max(after, 1)
	if c.first.CompareAndSwap(0, int64(after)) {
		c.endpoint.timeToDirect.add(after)
	}
	kind := kindOf(addr)
	c.endpoint.migrations[kind].Add(1)
	if kind == LAN {
		c.lan.Add(1)
	} else {
		c.direct.Add(1)
	}
}

// Stats returns the counters of the connection.
func (c *Conn) Stats() Stats {
	n := &c.counters
	return Stats{
		ConnectionStats: c.ConnectionStats(),
		IDs:             c.link.ids.Next(),
		Attempts:        n.attempts.Load(),
		Fallbacks:       n.fallbacks.Load(),
		RelayChanges:    n.turns.Load(),
		Direct:          n.direct.Load(),
		LAN:             n.lan.Load(),
		TimeToDirect:    time.Duration(n.first.Load()),
	}
}
