package quota

import (
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/quicway/quicway/internal/ratelog"
	"github.com/quicway/quicway/xdp"
)

// Defaults and bounds of [Config].
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

// Config configures a [Controller]. The zero value is valid.
type Config struct {
	// Source holds the limits of each source: an IPv4 address or an IPv6 /64,
	// unless IPv4Bits and IPv6Bits say otherwise. The defaults leave room for many
	// users behind one NAT: 1024 connections, 128 half-open attempts, 100 new
	// connections per second (burst 256), 1000 attempts per second; no limit of
	// packets and requests.
	Source Limits

	// Site holds the limits of all sources of one site together: an IPv6 /48,
	// unless IPv4SiteBits and IPv6SiteBits say otherwise. The default is eight
	// times the limits of a source.
	Site Limits

	// Total holds the limits of all sources together. The default is 65 536
	// connections, 4096 half-open attempts, and no limit of rates.
	Total Limits

	// ConnectionRequestRate is the number of requests per second on one connection
	// ([Controller.Handler]). 0 or less means no limit.
	ConnectionRequestRate float64
	// ConnectionRequestBurst is the burst of ConnectionRequestRate. 0 means the
	// number of requests of one second, and at least 1.
	ConnectionRequestBurst int

	// Overrides are limits for the sources in some prefixes. The longest matching
	// prefix is used.
	Overrides []Override

	// SourceOf returns the address of the client behind the address and port that a
	// packet, a connection or a request comes from, where these differ: a translator
	// (NAT64) whose addresses contain those of its clients, or a load balancer that
	// can be asked. Limits and lists then hold for that address. An address that is
	// not valid means that of the argument. SourceOf must always return the same for a
	// connection. It is called for each packet, concurrently, and must not block. It
	// cannot be used together with XDP, since the kernel cannot call it. nil means that
	// clients have the addresses that the server sees.
	SourceOf func(netip.AddrPort) netip.Addr

	// IPv4Bits and IPv6Bits are the prefix lengths of a source. 0 means 32 and 64.
	IPv4Bits, IPv6Bits int

	// IPv4SiteBits and IPv6SiteBits are the prefix lengths of a site. 0 means no
	// sites for IPv4, and 48 for IPv6. A negative length means no sites.
	IPv4SiteBits, IPv6SiteBits int

	// Excess is the answer to attempts beyond a quota: Refuse or Drop. 0 means
	// Refuse. At most ten attempts per second of one source are answered; the rest
	// is dropped. An attempt that was let in while there was room, and finds none
	// when QUIC begins its handshake, is refused in either case.
	Excess Action

	// AlwaysRetry answers every attempt with a Retry. This costs each new connection
	// a round trip.
	AlwaysRetry bool

	// RetryHalfOpen is the number of half-open attempts of all sources together, not
	// counting those that carry a Retry token, at which further attempts get a Retry
	// (RFC 9000 §8.1.2). 0 means half of Total.HalfOpen. Negative means that attempts
	// get a Retry only when there is no room for them without one.
	RetryHalfOpen int

	// RetrySource is the number of connections from one source, half-open attempts
	// included, at which further attempts from it get a Retry. 0 means half of its
	// Connections. Negative means that attempts get a Retry only when there is no
	// room for them without one.
	RetrySource int

	// HandshakeTimeout is how long packets belong to an attempt that was let in. It is
	// also the time after which a half-open slot of [Controller.Admit] counts as a
	// connection. 0 means 10 seconds, which is twice the HandshakeIdleTimeout of a
	// [quic.Config]. quic-go gives a handshake up after that time, so HandshakeTimeout
	// must not be shorter. The maximum is one hour.
	HandshakeTimeout time.Duration

	// MaxSources is the maximum number of sources and sites that are remembered, in
	// sum. Each takes about 240 bytes. 0 means 1 048 576. When there is no room, new
	// ones replace those without connections, first those whose rates are unused. A
	// source that there is no room for is held to the limits of Total only.
	MaxSources int

	// MaxEntries is the maximum number of entries on each list. 0 means 262 144. With
	// XDP, xdp.Config.Prefixes limits how many of them the kernel knows. While it has no
	// room for an entry of the allow list, it drops nothing.
	MaxEntries int

	// DryRun lets everything in, and counts and reports what would have been kept
	// out.
	DryRun bool

	// ErrorCode is the error code with which connections are closed, because of the
	// deny list or because there is no room for them when their handshake is
	// complete. 0 means 0x107, H3_EXCESSIVE_LOAD (RFC 9114 §8.1).
	ErrorCode quic.ApplicationErrorCode

	// XDP makes the kernel drop what the packet filter would drop, on the interfaces
	// that the program is attached to. The program needs the stage
	// xdp.QuotaStage, which one controller can use at a time. The kernel knows the
	// lists, the rates of attempts and packets of each source and, if Excess is Drop,
	// the sources that have used up their connections. Go alone knows the limits of
	// sites and of Total. The caller closes first the controller and then the
	// program. If the process dies, the kernel stops dropping after ten seconds at
	// most. In a dry run XDP is not used. nil means no XDP.
	XDP *xdp.Program

	// Logger gets a line for each of [Controller.Events] and for each change of the
	// lists, but none for single packets. Lines with the same message are limited to
	// one a second, with a burst of 20. nil discards.
	Logger *slog.Logger

	// Now returns the current time, which must not go back. nil means time.Now.
	Now func() time.Time
}

// Override is an exception for the sources in a prefix.
type Override struct {
	// Prefix must not be longer than that of a source, since a part of a source has
	// no limits of its own. It must differ from those of other overrides.
	Prefix netip.Prefix
	// Limits are the limits of each source in Prefix. Fields that are 0 are those of
	// [Config].Source, or no limit if Shared is set.
	Limits Limits
	// Shared says that any number of clients have these addresses, which are those of
	// a load balancer. A source in Prefix has no limits but those in Limits, and
	// belongs to no site. The limits of each connection and of all sources together
	// hold, and so does the deny list.
	Shared bool
	// Exempt lifts all limits for these sources. Their connections still count in
	// the total and among MaxSources, and the deny list still holds for them.
	Exempt bool
}

// compile returns the limits of the override's sources.
func (o *Override) compile(conf *Config) *limits {
	switch {
	case o.Exempt:
		return &limits{exempt: true}
	case o.Shared:
		l := compile(o.limits(conf), -1)
		l.shared = true
		return l
	}
	return compile(o.limits(conf), conf.RetrySource)
}

// limits returns the limits of the sources of an override that is not Exempt, with defaults
// filled in.
func (o *Override) limits(conf *Config) Limits {
	if o.Shared {
		return o.Limits.or(noLimits)
	}
	return o.Limits.or(conf.Source)
}

// validateLimits returns an error that begins with the name of the invalid field.
func (o *Override) validateLimits(conf *Config) error {
	if err := o.Limits.validate(); err != nil || o.Exempt {
		return err
	}
	l := o.limits(conf)
	return l.validateBursts()
}

// client returns the address of the client behind an address and port, which is plain.
func (c *Config) client(from netip.AddrPort) netip.Addr {
	if c.SourceOf == nil {
		return from.Addr()
	}
	return c.sourceOf(from)
}

func (c *Config) sourceOf(from netip.AddrPort) netip.Addr {
	if addr := c.SourceOf(from); addr.IsValid() {
		return plain(addr)
	}
	return from.Addr()
}

// withDefaults returns a copy of c, which may be nil, with defaults filled in.
func (c *Config) withDefaults() *Config {
	var out Config
	if c != nil {
		out = *c
	}
	out.Overrides = slices.Clone(out.Overrides) // routes made later read them again
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

// validate returns an error about a field that is invalid.
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
		return fmt.Errorf("%w: MaxEntries is %d, want 0 or more", ErrConfig, c.MaxEntries)
	case c.SourceOf != nil && c.XDP != nil:
		return fmt.Errorf("%w: SourceOf and XDP are both set, but the kernel cannot call SourceOf", ErrConfig)
	}
	connection := Limits{RequestRate: c.ConnectionRequestRate, RequestBurst: c.ConnectionRequestBurst}
	for _, l := range []struct {
		name string
		Limits
	}{{"Source.", c.Source}, {"Site.", c.Site}, {"Total.", c.Total}, {"Connection", connection}} {
		err := l.validate()
		if err == nil {
			err = l.validateBursts()
		}
		if err != nil {
			return fmt.Errorf("%w: %s%w", ErrConfig, l.name, err)
		}
	}
	return c.validateOverrides()
}

// validateOverrides returns an error about an override that is invalid.
func (c *Config) validateOverrides() error {
	seen := make(map[netip.Prefix]int)
	for i, o := range c.Overrides {
		prefix, err := plainPrefix(o.Prefix)
		if err != nil {
			return fmt.Errorf("%w: Overrides[%d]: %w", ErrConfig, i, err)
		}
		bits := c.IPv6Bits
		if prefix.Addr().Is4() {
			bits = c.IPv4Bits
		}
		if prefix.Bits() > bits {
			return fmt.Errorf("%w: Overrides[%d]: %v is longer than a source, which is a /%d; Controller.Allow takes any prefix", ErrConfig, i, prefix, bits)
		}
		if first, exists := seen[prefix]; exists {
			return fmt.Errorf("%w: Overrides[%d]: %v is the prefix of Overrides[%d] already", ErrConfig, i, prefix, first)
		}
		if o.Shared && o.Exempt {
			return fmt.Errorf("%w: Overrides[%d]: Shared and Exempt are both set: Exempt lifts all limits", ErrConfig, i)
		}
		seen[prefix] = i
		if err := o.validateLimits(c); err != nil {
			return fmt.Errorf("%w: Overrides[%d].Limits.%w", ErrConfig, i, err)
		}
	}
	return nil
}
