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

// Upper limits of Config.
const (
	maxConnectionsLimit = 1 << 26
	maxEventQueue       = 1 << 20
)

// Config has the limits of a [Tracker] and a [Monitor]. The zero value has the
// defaults.
type Config struct {
	// MaxConnections is the limit of connections that are kept. If it is reached,
	// the connection that was seen longest ago is removed. The limits of the other
	// tables follow from it: twice as many flows and destinations, eight times as
	// many connection IDs, four times as many sources, and half as many flows that
	// may be QUIC. 0 is DefaultMaxConnections.
	MaxConnections int
	// MaxHandshakes is the limit of handshakes that are read at the same time. Each
	// takes up to 32 KiB. 0 is an eighth of MaxConnections, but at most 4096.
	MaxHandshakes int
	// Idle is the silence after which connections and the entries of other tables
	// are removed, by the packets' clock. 0 is DefaultIdle.
	Idle time.Duration
	// EventQueue is the number of events that wait for one reader of
	// [Monitor.Events]. 0 is DefaultEventQueue.
	EventQueue int
	// CommunityIDSeed is the seed of Community IDs, which has to be the same in all programs
	// whose output is compared.
	CommunityIDSeed uint16
	// Filter selects the connections that are reported. nil: all are.
	Filter *Filter
}

// withDefaults returns a copy with the defaults for zeros. c may be nil.
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

// validate returns an error if a value is out of range.
func (c *Config) validate() error {
	switch {
	case c.MaxConnections < 0 || c.MaxConnections > maxConnectionsLimit:
		return fmt.Errorf("monitor: %w: MaxConnections is %d, must be 0 to %d", ErrConfig, c.MaxConnections, maxConnectionsLimit)
	case c.MaxHandshakes < 0:
		return fmt.Errorf("monitor: %w: MaxHandshakes is negative", ErrConfig)
	case c.Idle < 0:
		return fmt.Errorf("monitor: %w: Idle is negative", ErrConfig)
	case c.EventQueue < 0 || c.EventQueue > maxEventQueue:
		return fmt.Errorf("monitor: %w: EventQueue is %d, must be 0 to %d", ErrConfig, c.EventQueue, maxEventQueue)
	}
	return nil
}
