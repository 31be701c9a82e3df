package quota

import (
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/quicway/quicway/internal/ratelog"
	"github.com/quicway/quicway/xdp"
)

// Defaults of [Config], and bounds.
const (
	defaultIPv4Bits     = 32
	defaultIPv6Bits     = 64
	defaultIPv6SiteBits = 48
	defaultSources      = 1 << 20
	defaultEntries      = 1 << 18
	defaultHandshake    = 10 * time.Second
	maxHandshake        = time.Hour
	// excessiveLoad is H3_EXCESSIVE_LOAD (RFC 9114 §8.1).
	excessiveLoad = 0x107
)

// Config configures a [Controller]. The zero value works.
type Config struct {
	// Source is what each source may do: an address of IPv4, or 64 bits of
	// IPv6, unless IPv4Bits and IPv6Bits say otherwise. The default of
	// each field is wide enough for many users behind one NAT:
	// 1024 connections of which 128 half open, 100 new ones a second
	// (burst 256), 1000 attempts a second; packets and requests without limit.
	Source Limits

	// Site is what all sources of one site may do together: 48 bits of
	// IPv6, unless IPv4SiteBits and IPv6SiteBits say otherwise. The default
	// is eight times that of a source.
	Site Limits

	// Total is what all may do together. The default is 65 536 connections
	// of which 4096 half open; rates without limit.
	Total Limits

	// ConnectionRequestRate is how many requests a second one connection may
	// make ([Controller.Handler]), with bursts of ConnectionRequestBurst. 0
	// means no limit, and a burst of 0 as many as in a second.
	ConnectionRequestRate  float64
	ConnectionRequestBurst int

	// Overrides are exceptions for sources in some prefixes. The longest
	// that matches counts.
	Overrides []Override

	// IPv4Bits and IPv6Bits are how much of an address is a source. 0 means
	// 32 and 64.
	IPv4Bits, IPv6Bits int

	// IPv4SiteBits and IPv6SiteBits are how much of it is a site. 0 means
	// no sites for IPv4, and 48 for IPv6; negative means no sites.
	IPv4SiteBits, IPv6SiteBits int

	// Excess is what happens to attempts beyond a quota: Refuse or Drop. The
	// zero value means Refuse, with at most ten answers a second to a source;
	// what more it sends is dropped.
	Excess Action

	// AlwaysRetry has everybody show its address first. It costs each new
	// connection a round trip.
	AlwaysRetry bool

	// RetryHalfOpen is from how many half-open handshakes of all on every
	// newcomer has to show its address first (RFC 9000 §8.1.2). 0 means half
	// of Total.HalfOpen, negative only when there is no room for it else.
	RetryHalfOpen int

	// RetrySource is from how many connections of a source on, half-open ones
	// included, it has to. 0 means half of its Connections; negative only
	// when there is no room for it else.
	RetrySource int

	// HandshakeTimeout is how long packets are taken for those of an attempt
	// that was let in, and, without a [Controller.Listener], how long after
	// that it counts as a connection. 0 means 10 seconds, which is twice the
	// HandshakeIdleTimeout of a [quic.Config], and when quic-go gives up: it
	// must not be shorter than that, and not longer than an hour.
	HandshakeTimeout time.Duration

	// MaxSources bounds the sources and sites that are remembered, together:
	// about 240 bytes each. 0 means 1 048 576. Those without connections make
	// room for others, first those against which nothing is held any more. A
	// source for which there is no room is held to the limits of Total only.
	MaxSources int

	// MaxEntries bounds the prefixes on the allow list, and those on the
	// deny list. 0 means 262 144. With XDP, xdp.Config.Prefixes bounds what
	// the kernel knows of them.
	MaxEntries int

	// DryRun lets everybody in, and counts and reports what it would have
	// done.
	DryRun bool

	// ErrorCode closes connections that are ended because of a list, or
	// because the source has too many when it turns out to be theirs. 0
	// means 0x107, H3_EXCESSIVE_LOAD (RFC 9114 §8.1).
	ErrorCode quic.ApplicationErrorCode

	// XDP, if set, has the kernel drop what the packet filter would drop, of
	// what comes by the interfaces that the program is attached to: a program
	// that was loaded with xdp.Config.Quota, and that no other controller has.
	// It knows the lists, the rates of attempts and packets of a source, and,
	// if Excess is Drop, which sources have all that they may have; the limits
	// of sites and of all together are Go's. The caller closes the controller,
	// and then the program. If the process dies the kernel lets everything in
	// after ten seconds at most. In a dry run it is left alone. nil means that
	// Go does it all.
	XDP *xdp.Program

	// Logger gets what [Controller.Events] yields, and changes of the lists;
	// never a line per packet. Of lines of one kind 20 are logged at once, and then one
	// a second. nil discards.
	Logger *slog.Logger

	// Now is the clock. nil means time.Now. It must not go back.
	Now func() time.Time
}

// Override is an exception for the sources in a prefix.
type Override struct {
	// Prefix is not longer than a source: what is only a part of one has no
	// limits of its own. No two overrides have the same.
	Prefix netip.Prefix
	// Limits of each source in it. Fields that are 0 are those of
	// [Config.Source].
	Limits Limits
	// Exempt has no limits at all for these sources, but that of
	// MaxSources. They count in Total, and are not held to it. The deny list
	// is for them too.
	Exempt bool
}

// withDefaults returns a copy of c, which may be nil, with defaults filled in.
func (c *Config) withDefaults() *Config {
	var out Config
	if c != nil {
		out = *c
	}
	setDefault(&out.IPv4Bits, defaultIPv4Bits)
	setDefault(&out.IPv6Bits, defaultIPv6Bits)
	setDefault(&out.IPv4SiteBits, -1)
	setDefault(&out.IPv6SiteBits, min(defaultIPv6SiteBits, out.IPv6Bits))
	setDefault(&out.Excess, Refuse)
	setDefault(&out.HandshakeTimeout, defaultHandshake)
	setDefault(&out.MaxSources, defaultSources)
	setDefault(&out.MaxEntries, defaultEntries)
	setDefault(&out.ErrorCode, excessiveLoad)
	out.Source = out.Source.or(sourceDefaults)
	out.Site = out.Site.or(out.Source.times(siteFactor))
	out.Total = out.Total.or(totalDefaults)
	if out.RetryHalfOpen == 0 {
		out.RetryHalfOpen = -1
		if out.Total.HalfOpen > 0 {
			out.RetryHalfOpen = max(out.Total.HalfOpen/2, 1)
		}
	}
	out.Logger = ratelog.New(out.Logger)
	if out.Now == nil {
		out.Now = time.Now
	}
	return &out
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// validate says which field cannot work.
func (c *Config) validate() error {
	switch {
	case c.IPv4Bits < 1 || c.IPv4Bits > 32:
		return fmt.Errorf("%w: IPv4Bits is %d, want 1 to 32", ErrConfig, c.IPv4Bits)
	case c.IPv6Bits < 1 || c.IPv6Bits > 128:
		return fmt.Errorf("%w: IPv6Bits is %d, want 1 to 128", ErrConfig, c.IPv6Bits)
	case c.IPv4SiteBits > c.IPv4Bits:
		return fmt.Errorf("%w: IPv4SiteBits is %d, want at most IPv4Bits, %d", ErrConfig, c.IPv4SiteBits, c.IPv4Bits)
	case c.IPv6SiteBits > c.IPv6Bits:
		return fmt.Errorf("%w: IPv6SiteBits is %d, want at most IPv6Bits, %d", ErrConfig, c.IPv6SiteBits, c.IPv6Bits)
	case c.Excess != Refuse && c.Excess != Drop:
		return fmt.Errorf("%w: Excess is %v, want refuse or drop", ErrConfig, c.Excess)
	case c.HandshakeTimeout < 0 || c.HandshakeTimeout > maxHandshake:
		return fmt.Errorf("%w: HandshakeTimeout is %v, want at most %v", ErrConfig, c.HandshakeTimeout, maxHandshake)
	case c.MaxSources < 1:
		return fmt.Errorf("%w: MaxSources is %d, want more than 0", ErrConfig, c.MaxSources)
	case c.MaxEntries < 0:
		return fmt.Errorf("%w: MaxEntries is %d, want more than 0", ErrConfig, c.MaxEntries)
	}
	connection := Limits{RequestRate: c.ConnectionRequestRate, RequestBurst: c.ConnectionRequestBurst}
	for _, l := range []struct {
		name string
		Limits
	}{{"Source.", c.Source}, {"Site.", c.Site}, {"Total.", c.Total}, {"Connection", connection}} {
		if err := l.validate(); err != nil {
			return fmt.Errorf("%w: %s%w", ErrConfig, l.name, err)
		}
	}
	return c.validateOverrides()
}

// validateOverrides says which override cannot be that of sources.
func (c *Config) validateOverrides() error {
	seen := make(map[netip.Prefix]int)
	for i, o := range c.Overrides {
		prefix, err := listPrefix(o.Prefix)
		if err != nil {
			return fmt.Errorf("%w: Overrides[%d]: %w", ErrConfig, i, err)
		}
		bits := c.IPv6Bits
		if prefix.Addr().Is4() {
			bits = c.IPv4Bits
		}
		if prefix.Bits() > bits {
			return fmt.Errorf("%w: Overrides[%d]: %v is only a part of a source, which is a /%d; Controller.Allow takes any prefix", ErrConfig, i, prefix, bits)
		}
		if first, there := seen[prefix]; there {
			return fmt.Errorf("%w: Overrides[%d]: %v is that of Overrides[%d], too", ErrConfig, i, prefix, first)
		}
		seen[prefix] = i
		if err := o.Limits.validate(); err != nil {
			return fmt.Errorf("%w: Overrides[%d].Limits.%w", ErrConfig, i, err)
		}
	}
	return nil
}
