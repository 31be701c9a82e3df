package relay

import (
	"net/netip"
	"sync"
)

// Bounds of handshakes that are not complete. An address belongs to the sender only
// when the handshake is complete: a Retry token that the owner of an address has got
// can be shown by somebody else.
const (
	// retryFrom is how many handshakes without a Retry token make the server send
	// a Retry to all further clients (RFC 9000 §8.1.2), and retryFromSource how
	// many of one source make it send one to that source.
	retryFrom       = 256
	retryFromSource = 32
	// maxAnswered is how many handshakes with a Retry token may be open at once,
	// and maxAnsweredEach how many of one source. They are counted apart from the
	// other handshakes, so that an attacker who forges an address does not lock
	// out its owner.
	maxAnswered     = 8192
	maxAnsweredEach = 128
)

// siteFactor is how many times the limit of one source a site may have.
const siteFactor = 8

// stage is how far a connection is.
type stage uint8

const (
	fresh       stage = iota // its address may be forged
	answered                 // it has answered a Retry
	established              // its handshake is complete
	over                     // it has ended
)

// stageCounts counts connections by stage.
type stageCounts [over]int

// gate bounds the control connections, and separately their handshakes: in all, for
// each source, and for each site. If there are too many handshakes, it asks for a Retry.
type gate struct {
	max, maxEach int

	mu        sync.Mutex // guards the following
	all       stageCounts
	each      map[netip.Prefix]*stageCounts // by source, and by site
	total     int                           // connections in all stages
	handshake int                           // those whose handshake is not complete
}

// admission is the place of one connection at the gate.
type admission struct {
	gate         *gate
	source, site netip.Prefix
	stage        stage // guarded by the gate's mu
}

// enter admits a connection whose handshake begins. verified says that it has answered
// a Retry. enter returns nil if there is no room for the handshake, or the connection.
func (g *gate) enter(addr netip.Addr, verified bool) *admission {
	a := &admission{gate: g, source: sourceOf(addr), site: siteOf(addr), stage: fresh}
	if verified {
		a.stage = answered
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.total >= g.max || !g.mayEstablishLocked(a) || !g.mayBeginLocked(a) {
		return nil
	}
	g.countLocked(a, 1)
	return a
}

// mayBeginLocked says whether there is room for another handshake.
func (g *gate) mayBeginLocked(a *admission) bool {
	source, site := g.countsLocked(a.source)[a.stage], g.countsLocked(a.site)[a.stage]
	if a.stage == fresh {
		return !g.needsRetryLocked(a.source, a.site)
	}
	return g.all[answered] < maxAnswered && source < maxAnsweredEach && (a.sole() || site < siteFactor*maxAnsweredEach)
}

// mayEstablishLocked says whether there is room for another connection.
func (g *gate) mayEstablishLocked(a *admission) bool {
	return g.countsLocked(a.source)[established] < g.maxEach &&
		(a.sole() || g.countsLocked(a.site)[established] < siteFactor*g.maxEach)
}

// sole says whether the source is the whole site, as with IPv4.
func (a *admission) sole() bool { return a.source == a.site }

func (g *gate) countsLocked(of netip.Prefix) stageCounts {
	if c := g.each[of]; c != nil {
		return *c
	}
	return stageCounts{}
}

// countLocked adds n to the counts of a connection's stage.
func (g *gate) countLocked(a *admission, n int) {
	g.all[a.stage] += n
	g.total += n
	if a.stage != established {
		g.handshake += n
	}
	g.countOfLocked(a.source, a.stage, n)
	if !a.sole() {
		g.countOfLocked(a.site, a.stage, n)
	}
}

func (g *gate) countOfLocked(of netip.Prefix, at stage, n int) {
	if g.each == nil {
		g.each = make(map[netip.Prefix]*stageCounts)
	}
	c := g.each[of]
	if c == nil {
		c = new(stageCounts)
		g.each[of] = c
	}
	if c[at] += n; *c == (stageCounts{}) {
		delete(g.each, of)
	}
}

// establish notes that the handshake is complete. It returns false if there is no room
// for the connection any more.
func (a *admission) establish() bool {
	g := a.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	if a.stage == over || a.stage == established {
		return a.stage == established
	}
	if !g.mayEstablishLocked(a) {
		return false
	}
	g.countLocked(a, -1)
	a.stage = established
	g.countLocked(a, 1)
	return true
}

// leave notes that the connection has ended. It may be called more than once.
func (a *admission) leave() {
	a.gate.mu.Lock()
	defer a.gate.mu.Unlock()
	if a.stage != over {
		a.gate.countLocked(a, -1)
		a.stage = over
	}
}

// needsRetry says whether a client at an address should get a Retry (RFC 9000 §8.1.2).
func (g *gate) needsRetry(addr netip.Addr) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.needsRetryLocked(sourceOf(addr), siteOf(addr))
}

func (g *gate) needsRetryLocked(source, site netip.Prefix) bool {
	return g.all[fresh] >= retryFrom || g.countsLocked(source)[fresh] >= retryFromSource ||
		site != source && g.countsLocked(site)[fresh] >= siteFactor*retryFromSource
}
