package quota

import (
	"fmt"
	"math"
)

// Limits are what a source, a site, or all together may do. A field that is 0
// has a default, one that is negative is no limit. A burst that is 0 is as much
// as in one second, and at least 1.
type Limits struct {
	// Connections is how many may exist at once whose addresses have been
	// shown to be their peers'.
	Connections int
	// HalfOpen is how many attempts may be under way at once whose addresses
	// have not, and as many again that have answered a Retry. They are not
	// Connections yet.
	HalfOpen int
	// ConnectionRate is how many new connections a second, by addresses that
	// have been shown; and so many attempts again by those that have not, and by
	// those that have answered a Retry.
	ConnectionRate  float64
	ConnectionBurst int
	// AttemptRate is how many attempts a second may reach QUIC at all, where
	// they cost a Retry at least. Only the packet filter counts them. Since
	// an attempt of a forged address counts as well, it should be far above
	// ConnectionRate: at this rate whoever forges an address is in the way of
	// its owner's new connections, though never of those that exist.
	AttemptRate  float64
	AttemptBurst int
	// PacketRate is how many packets a second, of whatever kind. Packets of
	// forged addresses count as well, and those of connections that exist are
	// not told from them: whoever forges an address at this rate takes its
	// owner's connections down. It is for networks that keep forged addresses
	// out (BCP 38). Only the packet filter counts them.
	PacketRate  float64
	PacketBurst int
	// RequestRate is how many requests a second ([Controller.Handler]).
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

// siteFactor is how many times the limits of a source those of a site are.
const siteFactor = 8

// or fills in defaults. A burst belongs to its rate.
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

// times multiplies what is limited.
func (l Limits) times(n int) Limits {
	for _, field := range []*int{&l.Connections, &l.HalfOpen, &l.ConnectionBurst, &l.AttemptBurst, &l.PacketBurst, &l.RequestBurst} {
		*field = min(*field, math.MaxInt32/n) * n
	}
	for _, field := range []*float64{&l.ConnectionRate, &l.AttemptRate, &l.PacketRate, &l.RequestRate} {
		*field *= float64(n)
	}
	return l
}

// validate says which field cannot work, after the name of what has the limits.
func (l *Limits) validate() error {
	for _, r := range []struct {
		name  string
		rate  float64
		burst int
	}{
		{"Connection", l.ConnectionRate, l.ConnectionBurst},
		{"Attempt", l.AttemptRate, l.AttemptBurst},
		{"Packet", l.PacketRate, l.PacketBurst},
		{"Request", l.RequestRate, l.RequestBurst},
	} {
		switch {
		case math.IsNaN(r.rate):
			return fmt.Errorf("%sRate is not a number", r.name)
		case r.burst < 0:
			return fmt.Errorf("%sBurst is %d, want 0 or more", r.name, r.burst)
		}
	}
	return nil
}

// limits are Limits as decisions want them.
type limits struct {
	connections, halfOpen                int32
	retryFrom                            int32 // connections, half-open ones included
	connection, attempt, packet, request rate
	exempt                               bool
}

// answers is how often a source is told that it is refused.
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

// count makes a number of it that is never reached if it is no limit.
func count(n int) int32 {
	if n < 0 || n > math.MaxInt32 {
		return math.MaxInt32
	}
	return int32(n)
}

// level is what a source, a site, or all together have of their limits.
type level struct {
	limits *limits
	live   int32 // connections of addresses that have been shown
	proven int32 // attempts that have answered a Retry
	half   int32 // attempts of others
	// What has been used of the rates. fresh is that of attempts whose addresses
	// have not been shown, and retried that of those that have answered a Retry.
	connection, fresh, retried, attempt, packet, request bucket
}

// stage is how far a connection is.
type stage uint8

const (
	// stageFresh: its address may be anybody's.
	stageFresh stage = iota
	// stageProven: it has answered a Retry. It has room of its own, so that nobody
	// is kept out by those who write its address on packets. It is no connection
	// yet, since a token may be shown again by somebody else.
	stageProven
	// stageLive: its handshake is complete, or its owner vouches for the address.
	stageLive
)

// taken is how many connections exist, or will if nothing goes wrong.
func (l *level) taken() int32 { return l.live + l.proven }

// full says why there is no room for another connection, if there is none.
func (l *level) full(now instant) (Reason, bool) {
	switch {
	case l.live >= l.limits.connections:
		return Connections, true
	case !l.limits.connection.ok(l.connection, now):
		return ConnectionRate, true
	}
	return PassNew, false
}

// freshFull says whether there is no room for another attempt of an address
// that has not been shown, though there would be if it had.
func (l *level) freshFull(now instant) bool {
	return l.half >= l.limits.halfOpen ||
		l.taken()+l.half >= l.limits.connections ||
		!l.limits.connection.ok(l.fresh, now)
}

// provenFull says whether there is no room for another attempt that has answered a
// Retry.
func (l *level) provenFull(now instant) bool {
	return l.proven >= l.limits.halfOpen ||
		l.taken() >= l.limits.connections ||
		!l.limits.connection.ok(l.retried, now)
}

// at is where those of a stage are counted, and what they use of the rate.
func (l *level) at(st stage) (*int32, *bucket) {
	switch st {
	case stageFresh:
		return &l.half, &l.fresh
	case stageProven:
		return &l.proven, &l.retried
	}
	return &l.live, &l.connection
}

// enter takes a slot.
func (l *level) enter(st stage, now instant) {
	n, used := l.at(st)
	*n++
	l.limits.connection.take(used, now)
}

// leave gives a slot back.
func (l *level) leave(st stage) {
	n, _ := l.at(st)
	*n--
}

// promote makes an attempt a connection.
func (l *level) promote(st stage, now instant) {
	l.leave(st)
	l.enter(stageLive, now)
}

// mayPromote says whether there is room for an attempt among the connections. That of
// a proven one has been kept for it.
func (l *level) mayPromote(st stage) bool {
	if st == stageProven {
		return l.live < l.limits.connections
	}
	return l.taken() < l.limits.connections
}

// attempts are those that are half open.
func (l *level) attempts() int { return int(l.half) + int(l.proven) }

// empty says whether it has neither connections nor attempts.
func (l *level) empty() bool { return l.live == 0 && l.attempts() == 0 }

// idle says whether nothing is held against it.
func (l *level) idle(now instant) bool {
	return l.empty() &&
		max(l.connection, l.fresh, l.retried, l.attempt, l.packet, l.request) <= bucket(now)
}
