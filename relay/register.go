package relay

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/control"
	"github.com/quicway/quicway/quota"
)

// resumeTTLs is for how many TTLs a relay may have forgotten a leg that comes
// back without asking for authorization.
const resumeTTLs = 10

// register gives a leg to whoever may have it, or refreshes it for whoever
// has it, at the address of the client's connection.
func (s *Server) register(ctx context.Context, c *client, id control.SessionID, req *control.Register, token string) (*control.Registered, error) {
	addr, err := s.locate(c)
	if err != nil {
		return nil, err
	}
	ses, err := s.admit(ctx, c, id, req, token)
	if err != nil {
		return nil, err
	}
	ses.mu.Lock()
	defer ses.mu.Unlock()
	l := &ses.legs[req.Role]
	s.displaceLocked(ses, req, token)
	fresh, joined := !l.present, ses.joined
	if err := s.claimLocked(ses, req, token); err != nil {
		return nil, err
	}
	now := time.Now()
	if err := s.learnInitialLocked(ses, req.InitialID, now); err != nil {
		if fresh { // the claim has led to nothing
			l.present, ses.joined = false, joined
		}
		return nil, errInitial
	}
	l.client, l.refreshed, l.ttl = c, now, s.grant(req.TTL)
	s.moveLocked(ses, req.Role, addr)
	if fresh {
		s.arrivedLocked(ses, req.Role, req.Next, now)
		if s.same.note(addr.remote) {
			s.log.Warn("all clients come from one private address: something before the relay hides theirs (SNAT), and peers will find no direct paths", "addr", addr.remote.Addr())
		}
	}
	if req.Role == control.Accepter {
		s.mailbox.settle(ses.account, ses.id)
	}
	s.noteLocked(ses)
	s.show(c)
	return s.registeredLocked(ses, req.Role, now), nil
}

// admit finds the session that a request is about, or opens it for whoever
// may do that: the holder of the access token as the dialer, and either leg
// with its resume token after a restart.
func (s *Server) admit(ctx context.Context, c *client, id control.SessionID, req *control.Register, token string) (*session, error) {
	ses := s.sessions.find(id)
	if ses != nil && ses.holds(req.Role, req.Key) {
		return ses, nil // a refresh: the key is proof enough
	}
	resumed, ok := s.secrets.tokens.openResume(token, id, req.Role, req.Key, time.Now())
	ok = ok && !s.ended.voids(resumed)
	account := resumed.account
	if !ok && req.Role == control.Accepter {
		if account, ok = s.secrets.tokens.openJoin(token, id, time.Now()); ok && ses == nil {
			return nil, errNoSession
		}
	}
	if !ok && req.Role == control.Dialer {
		name, err := s.authorize(ctx, c, token, OpenSession, "")
		if err != nil {
			return nil, errToken
		}
		account, ok = s.secrets.tokens.account(name), true
	}
	switch {
	case !ok:
		return nil, errToken
	case ses != nil && ses.account != account:
		return nil, errLegTaken
	case s.ended.has(id):
		return nil, errEnded
	case ses == nil && s.draining.Load():
		return nil, errDraining
	}
	ses, err := s.sessions.open(id, account, func() (*quota.Slot, error) { return s.countSession(remoteAddr(c.conn)) })
	if err != nil {
		return nil, err
	}
	if s.ended.has(id) || s.ended.voids(resumed) { // since it was asked above
		s.endSession(ses)
		return nil, errEnded
	}
	return ses, nil
}

// countSession asks the quota, if any, whether a source may have another session.
func (s *Server) countSession(remote netip.AddrPort) (*quota.Slot, error) {
	if s.conf.SessionQuota == nil {
		return uncounted()
	}
	return s.conf.SessionQuota.Admit(remote, true)
}

// holds says whether the leg is there and key is its key.
func (ses *session) holds(role control.Role, key cid.Key) bool {
	ses.mu.Lock()
	defer ses.mu.Unlock()
	l := &ses.legs[role]
	return l.present && l.key.Equal(key)
}

// claimLocked gives the leg to the request's key if it is nobody's, and
// checks that it is that key's if not.
func (s *Server) claimLocked(ses *session, req *control.Register, token string) error {
	l := &ses.legs[req.Role]
	switch {
	case ses.over:
		return errNoSession
	case l.present && !l.key.Equal(req.Key):
		return errLegTaken
	case l.present && !l.ended.IsZero():
		return errLegEnded
	case l.present:
		drop, add := l.window.Extend(req.Next)
		s.forgetLocked(l, drop)
		s.learnLocked(ses, req.Role, add)
		s.expectLocked(ses, req.Role, req.Next)
		return nil
	}
	resumed, ok := s.secrets.tokens.openResume(token, ses.id, req.Role, req.Key, time.Now())
	if req.Role == control.Accepter && !ok && ses.joined {
		return errJoinUsed
	}
	l.present, l.key, l.ended = true, req.Key, time.Time{}
	l.byJoin = req.Role == control.Accepter && !ok
	l.owner = ownerOf(ses.id, req.Role, req.Key)
	l.ids = req.Key.Deriver(cid.Peer)
	l.window = cid.NewWindow(req.Next)
	ses.joined = ses.joined || resumed.joined || req.Role == control.Accepter
	return nil
}

// displaceLocked ends a leg that was had by a mere join token for the sake of
// whoever had it before the relay has restarted: its resume token says so. The join
// token may have been used by both, as the restarted relay did not know.
func (s *Server) displaceLocked(ses *session, req *control.Register, token string) {
	l := &ses.legs[req.Role]
	if !l.present || !l.byJoin || l.key.Equal(req.Key) {
		return
	}
	if _, ok := s.secrets.tokens.openResume(token, ses.id, req.Role, req.Key, time.Now()); ok {
		s.log.Warn("leg displaced by its earlier owner", "session", ses.id, "role", req.Role)
		s.dropLegLocked(ses, req.Role)
	}
}

// arrivedLocked routes the IDs of a leg that is new, and tells the other.
func (s *Server) arrivedLocked(ses *session, role control.Role, next uint64, now time.Time) {
	l := &ses.legs[role]
	l.heard.Store(0)
	s.renewLocked(ses, role, now)
	s.expectLocked(ses, role, next)
	s.counters.registered.Add(1)
	s.log.Info("leg registered", "session", ses.id, "role", role, "addr", l.remote())
	for r := range ses.legs {
		if ses.legs[r].present && ses.legs[control.Role(r).Peer()].present {
			ses.legs[r].client.notify(control.Event{Type: control.EventJoined, Session: ses.id})
		}
	}
}

// registeredLocked is the answer to the owner of a leg.
func (s *Server) registeredLocked(ses *session, role control.Role, now time.Time) *control.Registered {
	l := &ses.legs[role]
	lo, hi := l.window.Bounds()
	observed, sight := l.client.observe()
	reply := &control.Registered{
		Observed: observed,
		Sight:    sight,
		TTL:      uint32(l.ttl / time.Second),
		Low:      lo,
		High:     hi,
		Resume:   s.secrets.tokens.resume(ses.id, role, l.key, content{now.Add(resumeTTLs * s.conf.TTL), ses.joined, ses.account}),
	}
	if role == control.Dialer {
		reply.Join = s.secrets.tokens.join(ses.id, ses.account, now.Add(s.conf.OfferTTL))
	}
	return reply
}

// grant is how long a leg lives that asked for some seconds.
func (s *Server) grant(seconds uint32) time.Duration {
	asked := time.Duration(seconds) * time.Second
	if asked == 0 || asked > s.conf.TTL {
		return s.conf.TTL
	}
	return max(asked, minTTL)
}

// end ends a leg for whoever knows its key. It lingers for the last packets.
func (s *Server) end(id control.SessionID, role control.Role, key cid.Key) error {
	ses := s.sessions.find(id)
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
		l.ended = time.Now()
		s.log.Info("leg ended", "session", ses.id, "role", role)
		s.noteLocked(ses)
		s.goneLocked(ses, role)
		if role == control.Dialer {
			s.mailbox.settle(ses.account, ses.id)
		}
	}
	return nil
}

// goneLocked tells the other leg that this one is over.
func (s *Server) goneLocked(ses *session, role control.Role) {
	if other := &ses.legs[role.Peer()]; other.present {
		other.client.notify(control.Event{Type: control.EventGone, Session: ses.id})
	}
}

// refused counts a request that was denied and logs who made it.
func (s *Server) refused(c *client, what string, err error) {
	s.counters.refused.Add(1)
	s.log.Warn("request refused", "what", what, "addr", c.conn.RemoteAddr(), "err", err)
}

// authorize judges an access token, shown for some purpose about an offer's name.
func (s *Server) authorize(ctx context.Context, c *client, token string, what Purpose, name string) (account string, err error) {
	account, err = s.conf.Authorize(ctx, AuthRequest{Token: token, Purpose: what, Name: name, Remote: remoteAddr(c.conn)})
	if err != nil {
		return "", fmt.Errorf("authorize: %w", err)
	}
	s.show(c)
	return account, nil
}
