package p2p

import (
	"context"
	"fmt"
	"iter"
	"log/slog"
	"net/netip"
	"sync"
	"time"
)

// PathKind is the way that packets of a connection take.
type PathKind uint8

// The kinds of path.
const (
	// Relayed: over the relay.
	Relayed PathKind = iota
	// Direct: from one side to the other, through their NATs if there are
	// any.
	Direct
	// LAN: the same, to a private address of the same site.
	LAN
)

var kindNames = [...]string{Relayed: "relay", Direct: "direct", LAN: "lan"}

// String returns the kind in one word.
func (k PathKind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// PathReason says why a path is as it is.
type PathReason uint8

// The reasons.
const (
	// WhyEstablished: the connection began on this path.
	WhyEstablished PathReason = iota
	// WhyAddressChanged: this side has another address now, as the relay
	// sees it: its NAT has forgotten the old one, or the network changed.
	WhyAddressChanged
	// WhyRelayLost: the relay does not answer; packets may get lost until
	// it does.
	WhyRelayLost
	// WhyRelayBack: the relay answers again.
	WhyRelayBack
	// WhyPunched: probes have found a direct path.
	WhyPunched
	// WhyBetter: probes have found a better one than that in use.
	WhyBetter
	// WhyNoAnswer: no address of the peer answers probes: see Path.Tried.
	// The connection stays on the relay, and tries again later.
	WhyNoAnswer
	// WhySilent: the peer has named no addresses. It is of an older version,
	// or wants the relay.
	WhySilent
	// WhyPathDied: packets on the direct path got no answer any more.
	WhyPathDied
	// WhyPeerMoved: the peer has another address, or has left the path.
	WhyPeerMoved
	// WhyNotUsable: addresses of the peer have answered probes, but QUIC could not
	// use them: see Path.Tried. The connection stays on the relay, and tries again
	// later.
	WhyNotUsable
	// WhyPolicy: [Config.Policy] or the peer's wants it so.
	WhyPolicy
)

var reasonNames = map[PathReason]string{
	WhyEstablished:    "established",
	WhyAddressChanged: "address changed",
	WhyRelayLost:      "relay lost",
	WhyRelayBack:      "relay back",
	WhyPunched:        "punched",
	WhyBetter:         "better path",
	WhyNoAnswer:       "no answer to probes",
	WhySilent:         "peer names no addresses",
	WhyPathDied:       "path died",
	WhyPeerMoved:      "peer moved",
	WhyNotUsable:      "QUIC failed where probes were answered",
	WhyPolicy:         "policy",
}

// String returns the reason in a few words.
func (r PathReason) String() string {
	if name, ok := reasonNames[r]; ok {
		return name
	}
	return fmt.Sprintf("reason %d", uint8(r))
}

// Path is how the packets of a connection travel.
type Path struct {
	Kind PathKind
	// Local is this side's address as the far end of the path sees it: the
	// relay, or the peer.
	Local netip.AddrPort
	// Remote is where packets are sent to: the relay, or the peer.
	Remote netip.AddrPort
	// RTT is the smoothed round-trip time between the peers (RFC 9002
	// §5.3). It is zero in events.
	RTT time.Duration
	// Since is when the path became like this, and Why the reason.
	Since time.Time
	Why   PathReason
	// Tried is what probing has told, if Why is WhyNoAnswer, WhyNotUsable or WhyPunched.
	Tried []PairResult
}

// PairResult is how an address of the peer has answered probes.
type PairResult struct {
	Remote netip.AddrPort
	Kind   CandidateKind
	// Probes is how many were sent in the last round.
	Probes int
	// RTT is the shortest round-trip time, or 0: there was no answer.
	RTT time.Duration
	// Size is the largest probe that was answered, in bytes of UDP payload, or 0:
	// only small ones were. A path that does not carry 1200 is not taken.
	Size int
	// Err is why the system did not send the probes (EPERM: a firewall of this host;
	// ENETUNREACH: no route), or why QUIC could not use an address that has
	// answered. nil otherwise.
	Err error
}

// String returns the result in a few words.
func (r PairResult) String() string {
	answer := "no answer"
	switch {
	case r.Err != nil:
		answer = r.Err.Error()
	case r.RTT > 0 && r.Size < baseSize:
		answer = "only small packets"
	case r.RTT > 0:
		answer = r.RTT.String()
	}
	return fmt.Sprintf("%v (%v): %s", r.Remote, r.Kind, answer)
}

// LogValue implements [slog.LogValuer].
func (p Path) LogValue() slog.Value {
	return slog.GroupValue(
		slog.String("kind", p.Kind.String()),
		slog.Any("local", p.Local),
		slog.Any("remote", p.Remote),
		slog.String("why", p.Why.String()),
		slog.Any("tried", p.Tried),
	)
}

// Path returns the path that the connection takes now.
func (c *Conn) Path() Path {
	p, _ := c.paths.latest()
	p.RTT = c.ConnectionStats().SmoothedRTT
	return p
}

// PathEvents yields the present path, and then every change, until the
// connection ends or ctx is done. Whoever reads slowly misses the oldest of
// more than 64 changes.
func (c *Conn) PathEvents(ctx context.Context) iter.Seq[Path] {
	return func(yield func(Path) bool) {
		p, n := c.paths.latest()
		for yield(p) {
			var ok bool
			if p, n, ok = c.paths.wait(ctx, n); !ok {
				return
			}
		}
	}
}

// keptPaths is how many changes are kept for those who read slowly.
const keptPaths = 64

// pathLog holds the latest paths of a connection. They are numbered from 0.
type pathLog struct {
	mu      sync.Mutex    // guards the following
	paths   []Path        // at most keptPaths; the last one is the present
	number  int           // of the last one
	over    bool          // there will be no more
	changed chan struct{} // closed and replaced when any of these change
}

func (l *pathLog) init(first Path) {
	l.paths = []Path{first}
	l.changed = make(chan struct{})
}

// latest returns the present path and its number.
func (l *pathLog) latest() (Path, int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.paths[len(l.paths)-1], l.number
}

// kind returns that of the present path.
func (l *pathLog) kind() PathKind {
	p, _ := l.latest()
	return p.Kind
}

// wait returns the path after the one numbered n, or the oldest kept one after
// it. It returns false when there is none and will be none, or ctx is done.
func (l *pathLog) wait(ctx context.Context, n int) (Path, int, bool) {
	for {
		l.mu.Lock()
		newer, over, changed := l.number-n, l.over, l.changed
		if newer > 0 {
			newer = min(newer, len(l.paths))
			p, number := l.paths[len(l.paths)-newer], l.number-newer+1
			l.mu.Unlock()
			return p, number, true
		}
		l.mu.Unlock()
		if over {
			return Path{}, n, false
		}
		select {
		case <-ctx.Done():
			return Path{}, n, false
		case <-changed:
		}
	}
}

// change makes another path of the present one.
func (l *pathLog) change(f func(*Path)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.paths[len(l.paths)-1]
	p.Tried = nil
	f(&p)
	p.Since = time.Now()
	l.paths = append(l.paths, p)
	l.number++
	if len(l.paths) > keptPaths {
		l.paths = l.paths[1:]
	}
	l.wakeLocked()
}

// close says that there will be no more.
func (l *pathLog) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over = true
	l.wakeLocked()
}

func (l *pathLog) wakeLocked() {
	close(l.changed)
	l.changed = make(chan struct{})
}
