package relay

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/control"
)

// TestOfferWithRegistration checks that an offer that comes with the registration of its
// session is in the mailbox, and that its join token, which the dialer has made itself,
// admits one accepter.
func TestOfferWithRegistration(t *testing.T) {
	runLab(t, nil, func(l *lab) {
		alice, bob, eve := l.peer(), l.peer(), l.peer()
		session := control.NewSessionID()
		join := control.JoinToken(alice.key, session)
		register := control.Register{Key: alice.key, Offer: &control.LeftOffer{Name: strings.ToUpper(bob.name()), Text: "offer with " + join}}
		accept := control.Register{Role: control.Accepter, Key: bob.key}
		if status, _ := bob.register(session, accept, join); status != http.StatusNotFound {
			l.Errorf("before there is a session: status %d", status)
		}
		for range 2 { // as when the first answer is lost
			if reply := alice.mustRegister(session, register, l.server.Token()); !reply.Offered || reply.Problem != nil {
				l.Fatalf("not offered: %v", reply.Problem)
			}
		}
		if n := l.server.Stats().Offers; n != 1 {
			l.Errorf("%d offers, want 1", n)
		}
		if status, text := bob.take(bob.name(), "", 0); status != http.StatusOK || text != register.Offer.Text {
			l.Errorf("took %q, status %d", text, status)
		}
		for name, token := range map[string]string{
			"another key":     control.JoinToken(cid.NewKey(), session),
			"another session": control.JoinToken(alice.key, control.NewSessionID()),
			"half a token":    join[:10],
		} {
			status, _ := eve.register(session, control.Register{Role: control.Accepter, Key: eve.key}, token)
			wantStatus(l, name, status, http.StatusUnauthorized)
		}
		bob.mustRegister(session, accept, join)
		status, _ := eve.register(session, control.Register{Role: control.Accepter, Key: eve.key}, join)
		wantStatus(l, "a second accepter", status, http.StatusForbidden)
		if n := l.server.Stats().Offers; n != 0 {
			l.Errorf("%d offers after the session was joined", n)
		}
	})
}

// TestOwnJoinTokenExpires checks that a dialer's own join token is not valid for longer
// than the relay keeps offers, and not without the dialer's leg.
func TestOwnJoinTokenExpires(t *testing.T) {
	for name, ended := range map[string]bool{"expired": false, "dialer gone": true} {
		t.Run(name, func(t *testing.T) {
			runLab(t, &Config{OfferTTL: 30 * time.Second}, func(l *lab) {
				alice := l.peer()
				session := control.NewSessionID()
				alice.mustRegister(session, control.Register{Key: alice.key}, l.server.Token())
				want := http.StatusUnauthorized
				if ended {
					alice.end(alice.key)
					time.Sleep(linger + 2*sweepPeriod)
					want = http.StatusNotFound
				} else {
					time.Sleep(30 * time.Second)
				}
				bob := l.peer()
				status, _ := bob.register(session, control.Register{Role: control.Accepter, Key: bob.key}, control.JoinToken(alice.key, session))
				wantStatus(l, name, status, want)
			})
		})
	}
}

// TestOfferIsRefused checks that a registration whose offer is refused says why, and
// registers the leg all the same.
func TestOfferIsRefused(t *testing.T) {
	noOffers := func(_ context.Context, req AuthRequest) (string, error) {
		if req.Purpose == LeaveOffer {
			return "", ErrUnauthorized
		}
		return "", nil
	}
	for name, test := range map[string]struct {
		conf  Config
		offer control.LeftOffer
		want  control.Code
	}{
		"too large":      {Config{MaxOfferSize: 10}, control.LeftOffer{Name: "bob", Text: strings.Repeat("x", 11)}, control.CodeForbidden},
		"no mailbox":     {Config{MaxOffers: -1}, control.LeftOffer{Name: "bob", Text: "x"}, control.CodeForbidden},
		"bad name":       {Config{}, control.LeftOffer{Name: "b/b", Text: "x"}, control.CodeMalformed},
		"not authorized": {Config{Authorize: noOffers}, control.LeftOffer{Name: "bob", Text: "x"}, control.CodeUnauthorized},
	} {
		t.Run(name, func(t *testing.T) {
			runLab(t, &test.conf, func(l *lab) {
				alice := l.peer()
				reply := alice.mustRegister(control.NewSessionID(), control.Register{Key: alice.key, Offer: &test.offer}, l.server.Token())
				if reply.Offered || reply.Problem == nil || reply.Problem.Code != test.want {
					l.Errorf("offered %t, problem %v, want %v", reply.Offered, reply.Problem, test.want)
				}
				if s := l.server.Stats(); s.Legs != 1 || s.Offers != 0 || s.Refused != 1 {
					l.Errorf("%d legs, %d offers, %d refused", s.Legs, s.Offers, s.Refused)
				}
			})
		})
	}
}

// TestAdvertisedRelayLeavesNoOther checks that a relay that advertises an address leaves only
// offers that name it: another address may lead the peer to another relay.
func TestAdvertisedRelayLeavesNoOther(t *testing.T) {
	const advertised = "a.example:4433"
	runLab(t, &Config{Advertise: advertised}, func(l *lab) {
		for addr, want := range map[string]bool{advertised: true, "anycast.example:4433": false, "": false} {
			p := l.peer()
			offer := &control.LeftOffer{Name: l.peer().name(), Text: "offer", Relay: addr}
			reply := p.mustRegister(control.NewSessionID(), control.Register{Key: p.key, Offer: offer}, l.server.Token())
			if reply.Offered != want || reply.Relay.Addr != advertised {
				l.Errorf("an offer that names %q: %+v", addr, reply)
			}
		}
	})
}

// TestEvictedDialerIsTold checks that the dialer of an offer learns that the mailbox has needed its
// room for another sender's, and nobody else does.
func TestEvictedDialerIsTold(t *testing.T) {
	runLab(t, &Config{MaxOffersPerName: 2, Authorize: byToken}, func(l *lab) {
		alice, carol, bob := l.peer(), l.peer(), l.peer()
		told := map[*peer]<-chan control.Event{alice: alice.listen(), carol: carol.listen()}
		for _, events := range told {
			l.next(events, control.EventObserved)
		}
		leave := func(p *peer, account string) control.SessionID {
			session := control.NewSessionID()
			reply := p.mustRegister(session, control.Register{Key: p.key, Offer: &control.LeftOffer{Name: bob.name(), Text: "offer"}}, account)
			if !reply.Offered {
				l.Fatalf("%s: %v", account, reply.Problem)
			}
			return session
		}
		leave(alice, "alice")
		latest := leave(alice, "alice")
		leave(carol, "carol")
		if e := l.next(told[alice], control.EventEvicted); e.Session != latest {
			l.Errorf("evicted %v, want %v", e.Session, latest)
		}
		synctest.Wait()
		for p, events := range told {
			for len(events) > 0 {
				if e := <-events; e.Type == control.EventEvicted {
					l.Errorf("%s is told of %v", p.name(), e.Session)
				}
			}
		}
	})
}

// TestSameOfferKeepsPlace checks that an offer that is left again changes nothing, so that a client that
// has got it does not get it again.
func TestSameOfferKeepsPlace(t *testing.T) {
	runLab(t, nil, func(l *lab) {
		alice, bob := l.peer(), l.peer()
		session := control.NewSessionID()
		register := control.Register{Key: alice.key, Offer: &control.LeftOffer{Name: bob.name(), Text: "offer"}}
		alice.mustRegister(session, register, l.server.Token())
		if status, text := bob.take(bob.name(), "", 0); text != "offer" {
			l.Fatalf("status %d, %q", status, text)
		}
		alice.mustRegister(session, register, l.server.Token())
		if status, text := bob.take(bob.name(), "", time.Second); status != http.StatusNoContent {
			l.Errorf("the same offer again: status %d, %q", status, text)
		}
		register.Offer.Text = "another offer"
		alice.mustRegister(session, register, l.server.Token())
		if status, text := bob.take(bob.name(), "", time.Second); text != "another offer" {
			l.Errorf("another offer of the session: status %d, %q", status, text)
		}
	})
}
