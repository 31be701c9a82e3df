package relay

import (
	"context"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/control"
	"github.com/quicway/quicway/quota"
)

// resumeTTLs is for how many TTLs a leg can be resumed that the relay does not know any
// more, without another authorization.
const resumeTTLs = 10

// registrar opens sessions, gives their legs to clients, and ends both.
type registrar struct {
	env      *env
	auth     *authority
	tokens   *tokenKey
	sessions *table
	mailbox  *mailbox
	ended    endings
	draining atomic.Bool // no session is opened any more
	same     sameSource
}

// register gives a leg to a client, or refreshes it, at the address of the client's
// connection.
func (g *registrar) register(ctx context.Context, c *client, id control.SessionID, req *control.Register, token string) (*control.Registered, error) {
	addr, err := g.env.sockets.locate(c)
	if err != nil {
		return nil, err
	}
	ses, err := g.admit(ctx, c, id, req, token)
	if err != nil {
		return nil, err
	}
	ses.mu.Lock()
	defer ses.mu.Unlock()
	l, now := &ses.legs[req.Role], time.Now()
	resumed, ok := g.tokens.openResume(token, id, req.Role, req.Key, now)
	if ok {
		g.displaceLocked(l, req.Key)
	}
	fresh, joined := !l.present, ses.joined
	if err := l.claimLocked(req, resumed, ok); err != nil {
		return nil, err
	}
	if err := l.learnInitialLocked(req.InitialID, now); err != nil {
		if fresh { // undo the claim
			l.present, ses.joined = false, joined
		}
		return nil, errInitial
	}
	l.client, l.lastRefreshed, l.ttl = c, now, g.grant(req.TTL)
	l.moveLocked(addr)
	if fresh {
		l.arrivedLocked(req.Next, now)
		g.noteSource(addr.remote)
	}
	if req.Role == control.Accepter {
		g.mailbox.removeSession(ses.account, ses.id)
	}
	ses.noteLocked()
	c.authenticate()
	return g.registeredLocked(l, now), nil
}

// admit returns the session of a request. It opens the session if there is none, for
// the dialer with an access token, and for either leg with a resume token.
func (g *registrar) admit(ctx context.Context, c *client, id control.SessionID, req *control.Register, token string) (*session, error) {
	ses := g.sessions.find(id)
	if ses != nil && ses.holds(req.Role, req.Key) {
		return ses, nil // a refresh, for which the key is enough
	}
	resumed, ok := g.tokens.openResume(token, id, req.Role, req.Key, time.Now())
	ok = ok && !g.ended.voids(resumed)
	account := resumed.account
	if !ok && req.Role == control.Accepter {
		if account, ok = g.tokens.openJoin(token, id, time.Now()); ok && ses == nil {
			return nil, errNoSession
		}
	}
	if !ok && req.Role == control.Dialer {
		var err error
		if account, err = g.auth.authorize(ctx, c, token, OpenSession, ""); err != nil {
			return nil, errToken
		}
		ok = true
	}
	switch {
	case !ok:
		return nil, errToken
	case ses != nil && ses.account != account:
		return nil, errLegTaken
	case g.ended.has(id):
		return nil, errEnded
	case ses == nil && g.draining.Load():
		return nil, errDraining
	}
	ses, err := g.sessions.open(id, account, func() (*quota.Slot, error) { return g.countSession(remoteAddr(c.conn)) })
	if err != nil {
		return nil, err
	}
	if g.ended.has(id) || g.ended.voids(resumed) { // since the check above
		g.end(ses)
		return nil, errEnded
	}
	return ses, nil
}

// countSession takes a slot from Config.SessionQuota, if there is one, for a session
// that is opened from an address.
func (g *registrar) countSession(remote netip.AddrPort) (*quota.Slot, error) {
	if g.env.conf.SessionQuota == nil {
		return uncounted()
	}
	return g.env.conf.SessionQuota.Admit(remote, true)
}

// displaceLocked drops a leg that was registered with the join token, in favour of the
// holder of a resume token for another key, who had the leg before the relay was
// restarted. Both may have used the join token, because the restarted relay does not
// know that it was used before.
func (g *registrar) displaceLocked(l *leg, key cid.Key) {
	if !l.present || !l.byJoin || l.key.Equal(key) {
		return
	}
	g.env.log.Warn("leg given back to the client that had it before the restart", "session", l.session.id, "role", l.role)
	l.dropLocked()
}

// noteSource warns if all clients seem to have the same private address.
func (g *registrar) noteSource(remote netip.AddrPort) {
	if g.same.note(remote) {
		g.env.log.Warn("all clients come from one private address: a NAT or proxy in front of the relay hides their addresses (SNAT), so peers will not find direct paths", "addr", remote.Addr())
	}
}

// registeredLocked makes the answer to the owner of a leg.
func (g *registrar) registeredLocked(l *leg, now time.Time) *control.Registered {
	ses := l.session
	lo, hi := l.window.Bounds()
	observed, seq := l.client.observe()
	reply := &control.Registered{
		Observed:    observed,
		ObservedSeq: seq,
		TTL:         uint32(l.ttl / time.Second),
		Low:         lo,
		High:        hi,
		Resume:      g.tokens.resume(ses.id, l.role, l.key, content{now.Add(g.resumeTTL()), ses.joined, ses.account}),
	}
	if l.role == control.Dialer {
		reply.Join = g.tokens.join(ses.id, ses.account, now.Add(g.env.conf.OfferTTL))
	}
	return reply
}

// grant returns the TTL of a leg whose client has asked for a number of seconds.
func (g *registrar) grant(seconds uint32) time.Duration {
	asked := time.Duration(seconds) * time.Second
	if asked == 0 || asked > g.env.conf.TTL {
		return g.env.conf.TTL
	}
	return max(asked, minTTL)
}

// resumeTTL is how long a resume token is valid.
func (g *registrar) resumeTTL() time.Duration { return resumeTTLs * g.env.conf.TTL }

// endLeg ends a leg for a client that knows its key.
func (g *registrar) endLeg(id control.SessionID, role control.Role, key cid.Key) error {
	ses := g.sessions.find(id)
	if ses == nil {
		return errNoSession
	}
	ses.mu.Lock()
	defer ses.mu.Unlock()
	l := &ses.legs[role]
	switch {
	case !l.present:
		return errNoSession
	case !l.key.Equal(key):
		return errLegTaken
	case l.ended.IsZero():
		l.endLocked(time.Now())
		if role == control.Dialer {
			g.mailbox.removeSession(ses.account, ses.id)
		}
	}
	return nil
}

// end ends a session for the operator, so that it cannot be opened again. It returns
// false if the session is over already.
func (g *registrar) end(ses *session) bool {
	g.ended.session(ses.id, time.Now().Add(g.resumeTTL()))
	return ses.end()
}

// endAccount ends the sessions of an account, and voids its resume tokens. It returns
// the number of sessions.
func (g *registrar) endAccount(account accountTag) (n int) {
	g.ended.account(account, time.Now().Add(g.resumeTTL()))
	for _, ses := range g.sessions.snapshot() {
		if ses.account == account && g.end(ses) {
			n++
		}
	}
	return n
}
