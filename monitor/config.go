package monitor

import (
	"fmt"
	"time"
)

// Defaults of [Config].
const (
	DefaultMaxConnections = 65536
	DefaultIdle           = 5 * time.Minute
	DefaultEventQueue     = 1024
)

// Limits of what tables and queues may grow to.
const (
	maxConnectionsLimit = 1 << 26
	maxEventQueue       = 1 << 20
)

// Config bounds what a [Tracker] keeps. The zero value, and nil, have the
// defaults.
type Config struct {
	// MaxConnections bounds the connections that are kept, 0 is
	// DefaultMaxConnections. The one that has been silent for longest makes
	// room. The other tables follow from it: twice as many flows and
	// destinations, eight times as many IDs, four times as many sources, and
	// half as many flows that may be QUIC.
	MaxConnections int
	// MaxHandshakes bounds the handshakes whose messages are being put
	// together, with up to 32 KiB each. 0 is an eighth of MaxConnections, and
	// no more than 4096.
	MaxHandshakes int
	// Idle ends what has not been seen for so long, by the packets' clock. 0 is
	// DefaultIdle.
	Idle time.Duration
	// EventQueue bounds the events that wait for one reader of
	// [Monitor.Events]. 0 is DefaultEventQueue.
	EventQueue int
}

func (c *Config) withDefaults() Config {
	var out Config
	if c != nil {
		out = *c
	}
	if out.MaxConnections == 0 {
		out.MaxConnections = DefaultMaxConnections
	}
	if out.MaxHandshakes == 0 {
		out.MaxHandshakes = min(max(out.MaxConnections/8, 1), 4096)
	}
	if out.Idle == 0 {
		out.Idle = DefaultIdle
	}
	if out.EventQueue == 0 {
		out.EventQueue = DefaultEventQueue
	}
	return out
}

func (c *Config) validate() error {
	switch {
	case c.MaxConnections < 0 || c.MaxConnections > maxConnectionsLimit:
		return fmt.Errorf("monitor: %w: MaxConnections is %d, want 1 to %d", ErrConfig, c.MaxConnections, maxConnectionsLimit)
	case c.MaxHandshakes < 0:
		return fmt.Errorf("monitor: %w: MaxHandshakes is negative", ErrConfig)
	case c.Idle < 0:
		return fmt.Errorf("monitor: %w: Idle is negative", ErrConfig)
	case c.EventQueue < 0 || c.EventQueue > maxEventQueue:
		return fmt.Errorf("monitor: %w: EventQueue is %d, want 1 to %d", ErrConfig, c.EventQueue, maxEventQueue)
	}
	return nil
}
