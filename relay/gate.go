package relay

import (
	"context"
	"net/netip"
	"sync"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/quicway/quicway/internal/control"
)

// Bounds of handshakes that are not complete. Only when one is has its address been
// shown to be the sender's: what a Retry has shown may be shown again by others.
const (
	// retryFrom is how many handshakes without a token make the relay ask
	// strangers to prove their addresses first (RFC 9000 §8.1.2), and
	// retryFromSource how many of one source make it ask that.
	retryFrom       = 256
	retryFromSource = 32
	// maxAnswered is how many may go on at once that have answered a Retry, and
	// maxAnsweredEach how many of one source. They have room of their own, so that
	// nobody is kept out by those who write its address on packets.
	maxAnswered     = 8192
	maxAnsweredEach = 128
)

// siteFactor is how many times what one source may have its site may have.
const siteFactor = 8

// stage is how far a connection is.
type stage uint8

const (
	fresh       stage = iota // its address may be anybody's
	answered                 // it has answered a Retry
	established              // its handshake is complete
	over
)

// crowd counts connections by stage.
type crowd [over]int

// gate bounds the control connections, and apart from them the handshakes: of all,
// of one source, and of its site. It says when there are so many handshakes that
// strangers should prove their addresses first.
type gate struct {
	max, maxEach int

	mu        sync.Mutex // guards the following
	all       crowd
	each      map[netip.Prefix]*crowd // by source, and by site
	total     int                     // of all
	handshake int                     // of those that are not complete
}

// pass is a connection's at the gate.
type pass struct {
	gate         *gate
	source, site netip.Prefix
	stage        stage // guarded by the gate's mu
}

// enterQUIC is a quic.Transport's ConnContext.
func (s *Server) enterQUIC(ctx context.Context, info *quic.ClientInfo) (context.Context, error) {
	remote := addrPort(info.RemoteAddr)
	p := s.gate.enter(remote.Addr(), info.AddrVerified)
	if p == nil {
		return nil, errTooManyConnections
	}
	c := &client{events: make(chan control.Event, eventQueue), requests: newRequests(), pass: p, peer: s.amplify.Enter(remote)}
	context.AfterFunc(ctx, func() {
		p.leave()
		c.peer.Leave()
	})
	return context.WithValue(ctx, clientKey{}, c), nil
}

// enterHTTP completes the client of a connection whose handshake is done, or ends the
// connection if there is no room for it.
func (s *Server) enterHTTP(ctx context.Context, conn *quic.Conn) context.Context {
	c := conn.Context().Value(clientKey{}).(*client)
	c.conn = conn
	c.peer.Follow(conn)
	s.proven.add(conn.Context(), remoteAddr(conn))
	if !c.pass.establish() {
		_ = conn.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeExcessiveLoad), errTooManyConnections.Error())
	}
	return ctx
}

// enter returns nil if there is no room for another handshake, or connection.
func (g *gate) enter(addr netip.Addr, verified bool) *pass {
	p := &pass{gate: g, source: sourceOf(addr), site: siteOf(addr), stage: fresh}
	if verified {
		p.stage = answered
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.total >= g.max || !g.mayEstablishLocked(p) || !g.mayBeginLocked(p) {
		return nil
	}
	g.countLocked(p, 1)
	return p
}

// mayBeginLocked says whether there is room for another handshake.
func (g *gate) mayBeginLocked(p *pass) bool {
	source, site := g.crowdLocked(p.source)[p.stage], g.crowdLocked(p.site)[p.stage]
	if p.stage == fresh {
		return !g.crowdedLocked(p.source, p.site)
	}
	return g.all[answered] < maxAnswered && source < maxAnsweredEach && (p.sole() || site < siteFactor*maxAnsweredEach)
}

// mayEstablishLocked says whether there is room for another connection.
func (g *gate) mayEstablishLocked(p *pass) bool {
	return g.crowdLocked(p.source)[established] < g.maxEach &&
		(p.sole() || g.crowdLocked(p.site)[established] < siteFactor*g.maxEach)
}

// sole says whether the source is all of its site.
func (p *pass) sole() bool { return p.source == p.site }

func (g *gate) crowdLocked(of netip.Prefix) crowd {
	if c := g.each[of]; c != nil {
		return *c
	}
	return crowd{}
}

// countLocked counts a connection in, or out, at its stage.
func (g *gate) countLocked(p *pass, n int) {
	g.all[p.stage] += n
	g.total += n
	if p.stage != established {
		g.handshake += n
	}
	g.countOfLocked(p.source, p.stage, n)
	if !p.sole() {
		g.countOfLocked(p.site, p.stage, n)
	}
}

func (g *gate) countOfLocked(of netip.Prefix, at stage, n int) {
	if g.each == nil {
		g.each = make(map[netip.Prefix]*crowd)
	}
	c := g.each[of]
	if c == nil {
		c = new(crowd)
		g.each[of] = c
	}
	if c[at] += n; *c == (crowd{}) {
		delete(g.each, of)
	}
}

// establish makes a handshake that is complete a connection. It returns false if there
// is no room for it any more.
func (p *pass) establish() bool {
	g := p.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	if p.stage == over || p.stage == established {
		return p.stage == established
	}
	if !g.mayEstablishLocked(p) {
		return false
	}
	g.countLocked(p, -1)
	p.stage = established
	g.countLocked(p, 1)
	return true
}

// leave gives the room back.
func (p *pass) leave() {
	p.gate.mu.Lock()
	defer p.gate.mu.Unlock()
	if p.stage != over {
		p.gate.countLocked(p, -1)
		p.stage = over
	}
}

// crowded asks for a Retry (RFC 9000 §8.1.2).
func (g *gate) crowded(addr netip.Addr) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.crowdedLocked(sourceOf(addr), siteOf(addr))
}

func (g *gate) crowdedLocked(source, site netip.Prefix) bool {
	return g.all[fresh] >= retryFrom || g.crowdLocked(source)[fresh] >= retryFromSource ||
		site != source && g.crowdLocked(site)[fresh] >= siteFactor*retryFromSource
}
