package datapath

import (
	"net/netip"
	"time"
)

// List is one of the two lists of the quota stage.
type List uint8

// The lists. What is on both is allowed.
const (
	// DenyList is whose packets are dropped.
	DenyList List = iota
	// AllowList is whose packets pass without another question.
	AllowList
)

// RateLimit is a token bucket.
type RateLimit struct {
	// Interval is what one token takes to come: 0 means no limit.
	Interval time.Duration
	// Depth is what a whole bucket takes.
	Depth time.Duration
}

// QuotaLimits are the rates that the quota stage holds a source to.
type QuotaLimits struct {
	// Attempts are first Initials of new connections, Packets those of
	// whatever kind.
	Attempts, Packets RateLimit
}

// QuotaPolicy is what holds for all that the quota stage judges.
type QuotaPolicy struct {
	// Limits are those of each source.
	Limits QuotaLimits
	// Exceptions are those of the sources in some prefixes. The longest
	// that matches counts.
	Exceptions map[netip.Prefix]QuotaLimits
	// IPv4Bits and IPv6Bits are how much of an address is a source.
	IPv4Bits, IPv6Bits int
	// Patience is for how long an attempt is remembered.
	Patience time.Duration
}

// SourceDrops tells how many packets of a source were dropped since the last time,
// because they were beyond its rates.
type SourceDrops struct {
	Source  netip.Addr // the first address of the source
	Reason  Reason     // of the last of them: QuotaPacketRate or QuotaAttemptRate
	Packets uint32
}
