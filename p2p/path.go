package p2p

import (
	"context"
	"fmt"
	"iter"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// PathKind is the kind of path that a connection uses.
type PathKind uint8

// The kinds of path.
const (
	// Relayed: through the relay.
	Relayed PathKind = iota
	// Direct: from one peer to the other, through NATs if there are any.
	Direct
	// LAN: like Direct, to a private address.
	LAN
	// Tunneled: like Relayed, but UDP does not reach the relay, and a TCP connection
	// carries the packets (RFC 9298).
	Tunneled
)

var kindNames = [...]string{Relayed: "relay", Direct: "direct", LAN: "lan", Tunneled: "tunnel"}

// isDirect says whether the relay does not carry the packets.
func (k PathKind) isDirect() bool { return k == Direct || k == LAN }

// String returns the kind in one word.
func (k PathKind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// PathReason says why a [Path] has changed.
type PathReason uint8

// The reasons.
const (
	// WhyEstablished: the connection began on this path.
	WhyEstablished PathReason = iota
	// WhyAddressChanged: the relay sees another address of this side. The NAT's mapping
	// or the network has changed.
	WhyAddressChanged
	// WhyRelayLost: the relay does not answer or forward. Packets may be lost until it
	// does.
	WhyRelayLost
	// WhyRelayBack: the relay works again.
	WhyRelayBack
	// WhyPunched: probes have found a direct path.
	WhyPunched
	// WhyBetter: probes have found a better direct path than the one in use.
	WhyBetter
	// WhyNoAnswer: no address of the peer answers probes (see Path.Tried). The
	// connection stays on the relay, and tries again later.
	WhyNoAnswer
	// WhySilent: the peer has named no addresses. It runs an older version, or its
	// policy is RelayOnly.
	WhySilent
	// WhyPathDied: packets on the direct path are not answered any more.
	WhyPathDied
	// WhyPeerMoved: the peer's address has changed, or the peer has left the path.
	WhyPeerMoved
	// WhyNotUsable: addresses of the peer have answered probes, but QUIC could not use
	// them (see Path.Tried). The connection stays on the relay, and tries again later.
	WhyNotUsable
	// WhyPolicy: the policy of this side or the peer's requires it.
	WhyPolicy
	// WhyRelayDied: the relay does not answer or forward any more, and packets go
	// through the standby relay.
	WhyRelayDied
	// WhyRelayDrains: the relay is about to stop, and packets go through the standby
	// relay.
	WhyRelayDrains
	// WhyRelayNearer: packets go through a relay that is nearer.
	WhyRelayNearer
	// WhyPeerTurned: packets go through another relay because the peer's do.
	WhyPeerTurned
	// WhyUDPBlocked: UDP does not reach the relay, but TCP does.
	WhyUDPBlocked
	// WhyUDPBack: UDP reaches the relay again.
	WhyUDPBack

	numPathReasons
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
	WhyRelayDied:      "relay died",
	WhyRelayDrains:    "relay is about to stop",
	WhyRelayNearer:    "nearer relay",
	WhyPeerTurned:     "peer uses another relay",
	WhyUDPBlocked:     "UDP blocked",
	WhyUDPBack:        "UDP works again",
}

// String returns the reason in a few words.
func (r PathReason) String() string {
	if name, ok := reasonNames[r]; ok {
		return name
	}
	return fmt.Sprintf("reason %d", uint8(r))
}

// Path is the path that a connection uses.
type Path struct {
	Kind PathKind
	// Local is this side's address as the other end of the path sees it: the relay, or
	// the peer. If Kind is Tunneled it is the address of the TCP connection.
	Local netip.AddrPort
	// Remote is the address that packets are sent to: the relay's, or the peer's. If Kind
	// is Tunneled it is that of the TCP connection, which may be a proxy's.
	Remote netip.AddrPort
	// Relay is the address of the relay, as configured or as the peer names it, through
	// which packets go, or would go without the direct path.
	Relay string
	// RTT is the smoothed round-trip time between the peers (RFC 9002 §5.3). It is 0 in
	// events.
	RTT time.Duration
	// Since is when the path last changed, and Why the reason.
	Since time.Time
	Why   PathReason
	// Tried are the results of the probes if Why is WhyNoAnswer, WhyNotUsable or
	// WhyPunched, and nil otherwise.
	Tried []PairResult
}

// PairResult is the result of the probes to one address of the peer.
type PairResult struct {
	Remote netip.AddrPort
	Kind   CandidateKind
	// Probes is the number of probes in the last round.
	Probes int
	// RTT is the shortest round-trip time, or 0 if there was no answer.
	RTT time.Duration
	// Size is the size of the largest probe that was answered, in bytes of UDP payload,
	// or 0 if only small ones were. A path must carry 1200.
	Size int
	// Err says why the system did not send the probes (EPERM: a firewall of this host;
	// ENETUNREACH: no route), or why QUIC could not use an address that has answered.
	// nil otherwise.
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
		slog.String("relay", p.Relay),
		slog.String("why", p.Why.String()),
		slog.Any("tried", p.Tried),
	)
}

// Path returns the path that the connection uses now.
func (c *Conn) Path() Path {
	p, _ := c.paths.latest()
	p.RTT = c.ConnectionStats().SmoothedRTT
	return p
}

// PathEvents yields the present path, and then every change, until the connection ends or
// ctx is done. A slow reader misses the oldest changes if there are more than 64.
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

// keptPaths is the number of changes that are kept for slow readers.
const keptPaths = 64

// pathLog holds the latest changes of a connection's path. They are numbered from 0.
type pathLog struct {
	counted *[numPathReasons]atomic.Uint64 // the endpoint's counters of changes

	mu      sync.Mutex    // guards the following
	paths   []Path        // at most keptPaths; the last one is the present one
	number  int           // of the last one
	over    bool          // no more changes will come
	changed chan struct{} // closed and replaced when any of these changes
}

func (l *pathLog) init(first Path, counted *[numPathReasons]atomic.Uint64) {
	l.counted = counted
	counted[first.Why].Add(1)
	l.paths = []Path{first}
	l.changed = make(chan struct{})
}

// latest returns the present path and its number.
func (l *pathLog) latest() (Path, int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.paths[len(l.paths)-1], l.number
}

// kind returns the kind of the present path.
func (l *pathLog) kind() PathKind {
	p, _ := l.latest()
	return p.Kind
}

// wait waits for a path after number n, and returns the oldest one that is kept. It
// returns false when no more will come, or ctx is done.
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

// change appends a path that f makes of the present one.
func (l *pathLog) change(f func(*Path)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.paths[len(l.paths)-1]
	p.Tried = nil
	f(&p)
	p.Since = time.Now()
	l.counted[p.Why].Add(1)
	l.paths = append(l.paths, p)
	l.number++
	if len(l.paths) > keptPaths {
		l.paths = l.paths[1:]
	}
	l.wakeLocked()
}

// close says that no more changes will come.
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
