package relay

import (
	"context"
	"errors"
	"net/netip"
	"slices"
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
	tokens   *tokenRing
	sessions *table
	mailbox  *mailbox
	ended    endings
	same     sameSource
}

// register gives a leg to a client, or refreshes it, at the address of the client's
// connection.
func (g *registrar) register(ctx context.Context, c *client, id control.SessionID, req *control.Register, token string) (*control.Registered, error) {
	addr, err := g.env.locate(c)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	resumed, ok := g.tokens.openResume(token, id, req.Role, req.Key, now)
	ok = ok && !g.ended.voids(resumed)
	ses, err := g.admit(ctx, c, id, req, token, resumed, ok)
	if err != nil {
		return nil, err
	}
	ses.mu.Lock()
	defer ses.mu.Unlock()
	l := &ses.legs[req.Role]
	if l.loopsLocked(addr) {
		return nil, errMember
	}
	if ok && l.yieldsLocked(resumed, req.Key) {
		g.displaceLocked(l, resumed)
	}
	fresh, joined, held := !l.present, ses.joined, false
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
		held = g.env.held.release(l)
		g.noteSource(c.remote())
	}
	if req.Role == control.Accepter {
		g.mailbox.removeSession(ses.account, ses.id)
	}
	ses.noteLocked()
	c.authenticate()
	reply := g.registeredLocked(l, now)
	reply.Held = held
	return reply, nil
}

// admit returns the session of a request. It opens the session if there is none, for
// the dialer with an access token, and for either leg with a resume token. resumed is the
// content of the request's resume token; ok says whether it has one.
func (g *registrar) admit(ctx context.Context, c *client, id control.SessionID, req *control.Register, token string, resumed content, ok bool) (*session, error) {
	ses := g.sessions.find(id)
	if ses != nil && ses.holds(req.Role, req.Key) {
		return ses, nil // a refresh, for which the key is enough
	}
	accounts := []accountTag{resumed.account}
	if !ok {
		var err error
		if accounts, err = g.entitled(ctx, c, id, req.Role, token, ses); err != nil {
			return nil, err
		}
	}
	if ses != nil && !slices.Contains(accounts, ses.account) {
		if !ok || !resumed.precedes(ses.openedAt()) {
			return nil, errLegTaken
		}
		g.env.log.Warn("session given back to the account that had opened it before", "session", id)
		ses.end()
		ses = nil
	}
	switch {
	case ses == nil && req.Role == control.Accepter && !ok:
		return nil, errNoSession // a join token opens no session
	case g.ended.has(id):
		return nil, errEnded
	case ses != nil:
		return ses, nil
	case g.env.members.draining():
		return nil, g.elsewhere(id, errDraining)
	}
	return g.open(c, id, accounts[0], resumed, ok)
}

// entitled returns the tags of the account of a client that has no resume token, but may
// have a leg by a join token, as the accepter, or by an access token, as the dialer.
func (g *registrar) entitled(ctx context.Context, c *client, id control.SessionID, role control.Role, token string, ses *session) ([]accountTag, error) {
	if role == control.Accepter {
		account, ok := g.openJoin(token, id, ses)
		if !ok {
			return nil, errToken
		}
		return []accountTag{account}, nil
	}
	accounts, err := g.auth.authorize(ctx, c, token, OpenSession, "")
	if err != nil {
		return nil, errToken
	}
	return accounts, nil
}

// open opens a session for an account, with the resume token of a leg, or, if ok is false,
// with an access token.
func (g *registrar) open(c *client, id control.SessionID, account accountTag, resumed content, ok bool) (*session, error) {
	made := false
	ses, err := g.sessions.open(id, account, func() (*quota.Slot, error) {
		made = true
		return g.countSession(c.remote())
	})
	switch {
	case errors.Is(err, errTooManySessions):
		return nil, g.elsewhere(id, errTooManySessions)
	case err != nil:
		return nil, err
	case ses.account != account:
		return nil, errLegTaken // another client was faster
	case made:
		ses.begin(resumed, ok)
	}
	if g.ended.has(id) || g.ended.voids(resumed) { // since the check above
		g.end(ses)
		return nil, errEnded
	}
	return ses, nil
}

// elsewhere is the refusal of a session that another relay may take: by the name of that
// relay, or, if there is none, why.
func (g *registrar) elsewhere(id control.SessionID, why error) error {
	return g.env.members.elsewhere(id, why)
}

// openJoin checks a join token, which the relay or the dialer has made, and returns the
// account of its session. A dialer's own token cannot be checked without the session,
// which may come back.
func (g *registrar) openJoin(token string, id control.SessionID, ses *session) (accountTag, bool) {
	switch {
	case !control.IsJoinToken(token):
		return g.tokens.openJoin(token, id, time.Now())
	case ses == nil:
		return accountTag{}, true
	}
	return ses.account, ses.madeJoin(token, time.Now())
}

// countSession takes a slot from Config.SessionQuota, if there is one, for a session
// that is opened from an address.
func (g *registrar) countSession(remote netip.AddrPort) (*quota.Slot, error) {
	if g.env.conf.SessionQuota == nil {
		return uncounted()
	}
	return g.env.conf.SessionQuota.Admit(remote, true)
}

// displaceLocked drops a leg in favour of the holder of a resume token, who had the leg
// before this server got to know the session. Somebody who has the offer may have come
// first, because this server did not know that the tokens in it had been used.
func (g *registrar) displaceLocked(l *leg, resumed content) {
	g.env.log.Warn("leg given back to the client that had it before", "session", l.session.id, "role", l.role, "from", l.remote())
	l.dropLocked()
	if resumed.precedes(l.session.opened) {
		l.session.opened, l.session.here = resumed.opened, false
	}
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
		Resume: g.tokens.resume(ses.id, l.role, l.key, content{
			expiry: now.Add(g.resumeTTL()), joined: ses.joined, account: ses.account, claim: l.claim, opened: ses.opened,
		}),
		Relay:    g.env.members.advertised(),
		Instance: g.env.members.id,
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
func (g *registrar) endAccount(name string) (n int) {
	tags := g.tokens.accounts(name)
	for _, tag := range tags {
		g.ended.account(tag, time.Now().Add(g.resumeTTL()))
	}
	for _, ses := range g.sessions.snapshot() {
		if slices.Contains(tags, ses.account) && g.end(ses) {
			n++
		}
	}
	return n
}
