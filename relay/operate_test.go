package relay

import (
	"context"
	"net/http"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/control"
)

// TestSessionsAreListed checks the descriptions of sessions and legs for the operator.
func TestSessionsAreListed(t *testing.T) {
	runLab(t, nil, func(l *lab) {
		alice, bob := l.pair()
		carol := l.peer()
		carol.mustRegister(control.NewSessionID(), control.Register{Key: carol.key}, l.server.Token())
		start := time.Now()
		time.Sleep(time.Second)
		alice.send(bob.packet(0, "x"))
		bob.arrived()
		carol.quic.CloseWithError(0, "")
		time.Sleep(time.Second)
		n := 0
		for s := range l.server.Sessions() {
			n++
			if s.Account != l.server.AccountTag("") {
				l.Errorf("account %q, want %q", s.Account, l.server.AccountTag(""))
			}
			d, a := s.Legs[control.Dialer], s.Legs[control.Accepter]
			switch s.ID {
			case alice.session.String():
				if d.Remote != alice.conn.Public() || a.Remote != bob.conn.Public() || !d.Connected || !a.Connected {
					l.Errorf("got %+v", s)
				}
				if !d.Heard.After(start) || !a.Heard.IsZero() || !d.Expires.Equal(d.Heard.Add(defaultTTL)) {
					l.Errorf("got %+v", s)
				}
			case carol.session.String():
				if d.Remote != carol.conn.Public() || d.Connected || a != (Leg{}) {
					l.Errorf("got %+v", s)
				}
			default:
				l.Errorf("got %+v", s)
			}
		}
		if n != 2 {
			l.Errorf("%d sessions, want 2", n)
		}
		for range l.server.Sessions() { // stops when the loop does
			break
		}
	})
}

// TestEndSession checks that an ended session is removed at once and completely, that
// nothing of it is forwarded, and that nobody can open or resume it as long as there are
// valid tokens for it.
func TestEndSession(t *testing.T) {
	runLab(t, nil, func(l *lab) {
		alice, bob := l.pair()
		carol, dave := l.pair()
		for _, id := range []string{"", "x", control.NewSessionID().String()} {
			if l.server.EndSession(id) {
				l.Errorf("ended %q", id)
			}
		}
		store := l.server.conf.Store.(*cid.MemoryStore)
		ended, known := l.server.sessions.find(alice.session), store.Len()
		if !l.server.EndSession(alice.session.String()) || l.server.EndSession(alice.session.String()) {
			l.Error("a session was not ended exactly once")
		}
		if s := l.server.Stats(); s.Sessions != 1 || s.Legs != 2 {
			l.Errorf("%d sessions and %d legs are left, want 1 and 2", s.Sessions, s.Legs)
		}
		if n := store.Len(); n != known/2 {
			l.Errorf("%d IDs are known, want %d", n, known/2)
		}
		ended.mu.Lock()
		for r := range ended.legs {
			if leg := &ended.legs[r]; leg.present || leg.client != nil || leg.addr.Load() != nil || leg.inStore.counters.Len() > 0 {
				l.Errorf("leg %d is kept: present %v, address %v, %d IDs", r, leg.present, leg.remote(), leg.inStore.counters.Len())
			}
		}
		ended.mu.Unlock()
		alice.send(bob.packet(0, "x"))
		bob.want()
		l.dropped(DropUnknownID, 1)
		for range 3 {
			wantStatus(l, "refresh", alice.refresh(), http.StatusForbidden)
			wantStatus(l, "refresh", bob.refresh(), http.StatusForbidden)
			status, _ := alice.register(alice.session, control.Register{Key: cid.NewKey()}, l.server.Token())
			wantStatus(l, "open it again", status, http.StatusForbidden)
			time.Sleep(resumeTTLs * defaultTTL / 4)
			carol.refresh()
			dave.refresh()
		}
		if s := l.server.Stats(); s.Sessions != 1 {
			l.Errorf("%d sessions, want 1", s.Sessions)
		}
		if n := store.Len(); n > idsPerSession {
			l.Errorf("%d IDs are known, want those of one session", n)
		}
		time.Sleep(resumeTTLs * defaultTTL / 2)
		synctest.Wait()
		if n := len(l.server.registrar.ended.sessions); n != 0 {
			l.Errorf("%d endings are remembered", n)
		}
		wantStatus(l, "resume late", alice.refresh(), http.StatusUnauthorized)
	})
}

// TestEndAccount checks that ending an account ends its sessions, voids the resume tokens
// of those that the relay has forgotten, and does not affect other accounts, or sessions
// that are authorized later.
func TestEndAccount(t *testing.T) {
	byToken := func(_ context.Context, req AuthRequest) (string, error) {
		if !slices.Contains([]string{"tenant A", "tenant B"}, req.Token) {
			return "", ErrUnauthorized
		}
		return req.Token, nil
	}
	runLab(t, &Config{Authorize: byToken}, func(l *lab) {
		open := func(token string) *peer {
			p := l.peer()
			p.mustRegister(control.NewSessionID(), control.Register{Key: p.key}, token)
			return p
		}
		forgotten := open("tenant A")
		time.Sleep(defaultTTL + 2*sweepPeriod)
		a1, a2, b := open("tenant A"), open("tenant A"), open("tenant B")
		if n := l.server.EndAccount("tenant A"); n != 2 {
			l.Errorf("ended %d sessions, want 2", n)
		}
		if n := l.server.EndAccount("tenant C"); n != 0 {
			l.Errorf("ended %d sessions, want none", n)
		}
		wantStatus(l, "refresh", a1.refresh(), http.StatusUnauthorized)
		wantStatus(l, "refresh", a2.refresh(), http.StatusUnauthorized)
		wantStatus(l, "resume", forgotten.refresh(), http.StatusUnauthorized)
		wantStatus(l, "refresh of another account", b.refresh(), http.StatusOK)
		time.Sleep(time.Second)
		again := open("tenant A")
		time.Sleep(defaultTTL + 2*sweepPeriod)
		wantStatus(l, "resume what was opened afterwards", again.refresh(), http.StatusOK)
		time.Sleep(resumeTTLs*defaultTTL + 2*sweepPeriod)
		synctest.Wait()
		if n := len(l.server.registrar.ended.accounts); n != 0 {
			l.Errorf("%d endings are remembered", n)
		}
	})
}

// TestEndSessionNotifiesPeers checks that both peers get an event.
func TestEndSessionNotifiesPeers(t *testing.T) {
	runLab(t, nil, func(l *lab) {
		alice, bob := l.pair()
		ses := l.server.sessions.find(alice.session)
		clients := []*client{ses.legs[0].client, ses.legs[1].client}
		l.server.EndSession(bob.session.String())
		synctest.Wait()
		for i, c := range clients {
			gone := false
			for _, e := range c.events.queue {
				gone = gone || e.Type == control.EventGone
			}
			if !gone {
				l.Errorf("the client of leg %d got no event", i)
			}
		}
	})
}
