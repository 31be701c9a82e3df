package datapath

import (
	"net/netip"
	"time"
)

// List is one of the two lists of the quota stage.
type List uint8

// The lists. An address on both lists is allowed.
const (
	// DenyList is the list of prefixes whose packets are dropped.
	DenyList List = iota
	// AllowList is the list of prefixes whose packets pass without further checks.
	AllowList
)

// RateLimit is a token bucket.
type RateLimit struct {
	// Interval is the time in which one token is added. 0 means no limit.
	Interval time.Duration
	// Depth is the time in which an empty bucket becomes full.
	Depth time.Duration
}

// QuotaLimits are the limits of a source.
type QuotaLimits struct {
	// Attempts limits the first Initials of new connections, and Packets all packets.
	Attempts, Packets RateLimit
}

// QuotaPolicy is the policy for all sources.
type QuotaPolicy struct {
	// Limits are the limits of each source.
	Limits QuotaLimits
	// Exceptions are other limits for the sources in some prefixes. If several prefixes
	// contain an address, the longest one counts.
	Exceptions map[netip.Prefix]QuotaLimits
	// IPv4Bits and IPv6Bits are the length of the prefix that is one source.
	IPv4Bits, IPv6Bits int
	// Patience is how long an attempt is remembered.
	Patience time.Duration
}

// SourceDrops reports packets of a source that were dropped because it exceeds its rates.
type SourceDrops struct {
	Source  netip.Addr // the first address of the source
	Reason  Reason     // of the last packet: QuotaPacketRate or QuotaAttemptRate
	Packets uint32     // since the last report
}
