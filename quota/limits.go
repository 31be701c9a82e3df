package quota

import (
	"fmt"
	"math"
)

// Limits are the limits of a source, of a site, or of all sources together. A field
// that is 0 has the default that [Config] names, and a negative field means no
// limit. A burst of 0 is the number of tokens that the rate gives in one second, and
// at least 1. The slowest rate is one a day.
type Limits struct {
	// Connections is the maximum number of connections at the same time, of
	// clients whose address is validated.
	Connections int
	// HalfOpen is the maximum number of attempts under way at the same time, of
	// clients whose address is not validated. Attempts that carry a Retry token
	// have a second pool of the same size. Neither count as Connections yet.
	HalfOpen int
	// ConnectionRate is the number of new connections per second. It holds
	// separately for connections whose handshake is complete, for attempts that
	// carry a Retry token, and for attempts from addresses that are not validated.
	ConnectionRate  float64
	ConnectionBurst int
	// AttemptRate is the number of attempts per second that reach QUIC, each of
	// which costs at least a Retry. Only the packet filter counts them. Attempts
	// with forged source addresses count as well: at this rate, an off-path
	// attacker that forges an address blocks new connections from it, but never
	// existing ones. Set it far above ConnectionRate.
	AttemptRate  float64
	AttemptBurst int
	// PacketRate is the number of packets of any kind per second. Only the packet
	// filter counts them. It cannot tell packets of existing connections from
	// packets with a forged source address: at this rate, an off-path attacker
	// that forges an address breaks the existing connections of that address. Use
	// it only in networks that filter forged addresses (BCP 38).
	PacketRate  float64
	PacketBurst int
	// RequestRate is the number of requests per second ([Controller.Handler],
	// [Controller.Request]).
	RequestRate  float64
	RequestBurst int
}

var (
	sourceDefaults = Limits{
		Connections: 1024, HalfOpen: 128,
		ConnectionRate: 100, ConnectionBurst: 256,
		AttemptRate: 1000, PacketRate: -1, RequestRate: -1,
	}
	totalDefaults = Limits{
		Connections: 65536, HalfOpen: 4096,
		ConnectionRate: -1, AttemptRate: -1, PacketRate: -1, RequestRate: -1,
	}
)

// noLimits limits nothing.
var noLimits = Limits{Connections: -1, HalfOpen: -1, ConnectionRate: -1, AttemptRate: -1, PacketRate: -1, RequestRate: -1}

// siteFactor is the ratio of a site's default limits to those of a source.
const siteFactor = 8

// or fills in defaults. The default of a burst is used only with the default of its
// rate.
func (l Limits) or(defaults Limits) Limits {
	setDefault(&l.Connections, defaults.Connections)
	setDefault(&l.HalfOpen, defaults.HalfOpen)
	orRate(&l.ConnectionRate, &l.ConnectionBurst, defaults.ConnectionRate, defaults.ConnectionBurst)
	orRate(&l.AttemptRate, &l.AttemptBurst, defaults.AttemptRate, defaults.AttemptBurst)
	orRate(&l.PacketRate, &l.PacketBurst, defaults.PacketRate, defaults.PacketBurst)
	orRate(&l.RequestRate, &l.RequestBurst, defaults.RequestRate, defaults.RequestBurst)
	return l
}

func orRate(rate *float64, burst *int, defaultRate float64, defaultBurst int) {
	if *rate == 0 {
		*rate = defaultRate
		setDefault(burst, defaultBurst)
	}
}

// times multiplies all limits. A burst of 0 is first that of its rate: eight times one token in
// ten seconds is a burst of eight, not of one.
func (l Limits) times(n int) Limits {
	for _, f := range []struct {
		rate  float64
		burst *int
	}{
		{l.ConnectionRate, &l.ConnectionBurst},
		{l.AttemptRate, &l.AttemptBurst},
		{l.PacketRate, &l.PacketBurst},
		{l.RequestRate, &l.RequestBurst},
	} {
		if f.rate > 0 {
			setDefault(f.burst, defaultBurst(f.rate))
		}
	}
	for _, field := range []*int{&l.Connections, &l.HalfOpen, &l.ConnectionBurst, &l.AttemptBurst, &l.PacketBurst, &l.RequestBurst} {
		*field = min(*field, math.MaxInt32/n) * n
	}
	for _, field := range []*float64{&l.ConnectionRate, &l.AttemptRate, &l.PacketRate, &l.RequestRate} {
		*field *= float64(n)
	}
	return l
}

// namedRate is one of the rates of Limits.
type namedRate struct {
	name  string
	rate  float64
	burst int
}

func (l *Limits) rates() [4]namedRate {
	return [...]namedRate{
		{"Connection", l.ConnectionRate, l.ConnectionBurst},
		{"Attempt", l.AttemptRate, l.AttemptBurst},
		{"Packet", l.PacketRate, l.PacketBurst},
		{"Request", l.RequestRate, l.RequestBurst},
	}
}

// validate returns an error that begins with the name of the invalid field.
func (l *Limits) validate() error {
	for _, r := range l.rates() {
		switch {
		case math.IsNaN(r.rate):
			return fmt.Errorf("%sRate is not a number", r.name)
		case r.burst < 0:
			return fmt.Errorf("%sBurst is %d, want 0 or more", r.name, r.burst)
		}
	}
	return nil
}

// validateBursts returns an error about a burst that has no effect because its rate, with
// defaults filled in, is no limit.
func (l *Limits) validateBursts() error {
	for _, r := range l.rates() {
		if r.burst > 0 && r.rate <= 0 {
			return fmt.Errorf("%sBurst is %d, but its rate is no limit: set the rate, or remove the burst", r.name, r.burst)
		}
	}
	return nil
}

// limits are Limits in the form that decisions use.
type limits struct {
	connections, halfOpen                int32
	retryFrom                            int32 // connections, half-open ones included
	connection, attempt, packet, request rate
	exempt                               bool
	shared                               bool // of an Override that is shared: there is no site
}

// answers is the rate of refusals that are sent to one source.
var answers = newRate(10, 10)

func compile(l Limits, retryFrom int) *limits {
	out := &limits{
		connections: count(l.Connections),
		halfOpen:    count(l.HalfOpen),
		connection:  newRate(l.ConnectionRate, l.ConnectionBurst),
		attempt:     newRate(l.AttemptRate, l.AttemptBurst),
		packet:      newRate(l.PacketRate, l.PacketBurst),
		request:     newRate(l.RequestRate, l.RequestBurst),
	}
	out.retryFrom = count(retryFrom)
	if retryFrom == 0 {
		out.retryFrom = max(out.connections/2, 1)
	}
	return out
}

// count returns n, or if n is no limit, a number that is never reached.
func count(n int) int32 {
	if n < 0 || n > math.MaxInt32 {
		return math.MaxInt32
	}
	return int32(n)
}
