package relay

import (
	"context"
	"encoding/binary"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/control"
	"github.com/quicway/quicway/internal/datapath"
	"github.com/quicway/quicway/internal/test/nettest"
)

// theft is a session at a relay, whose offer somebody has stolen, and another relay with the
// same secret.
type theft struct {
	*lab
	alice, bob, eve *peer
	session         control.SessionID
	join            string // from the offer
	other           *Server
}

// runTheft runs a test at which Alice has opened a session at the first relay a while ago,
// and Bob has joined it.
func runTheft(t *testing.T, conf *Config, test func(*theft)) {
	t.Helper()
	runLab(t, conf, func(l *lab) {
		other := l.another(otherAddr, conf)
		s := &theft{lab: l, other: other, alice: l.peer(), bob: l.peer(), eve: l.peer(), session: control.NewSessionID()}
		s.join = s.alice.mustRegister(s.session, control.Register{Key: s.alice.key}, l.server.Token()).Join
		time.Sleep(claimMargin + time.Second)
		s.bob.mustRegister(s.session, control.Register{Role: control.Accepter, Key: s.bob.key}, s.join)
		test(s)
	})
}

// joins lets Eve take the accepter's leg at the relay she is connected to.
func (s *theft) joins() {
	s.Helper()
	s.eve.mustRegister(s.session, control.Register{Role: control.Accepter, Key: s.eve.key}, s.join)
}

// forward fails unless a packet of Alice's arrives at Bob, and one of Bob's at Alice.
func (s *theft) forward() {
	s.Helper()
	packet := s.bob.packet(0, "for bob")
	s.alice.send(packet)
	s.bob.want(packet)
	packet = s.alice.packet(0, "for alice")
	s.bob.send(packet)
	s.alice.want(packet)
}

// TestThiefAtAnotherRelay checks that what somebody gets with a stolen offer at a relay that
// does not know yet that the offer was used, neither keeps the peers from that relay, nor
// entitles to anything where they are.
func TestThiefAtAnotherRelay(t *testing.T) {
	runTheft(t, nil, func(s *theft) {
		for _, p := range []*peer{s.alice, s.eve} {
			p.goTo(otherAddr)
		}
		wantStatus(s.lab, "alice", s.alice.refresh(), http.StatusOK) // her token is from before bob has joined
		s.joins()
		wantStatus(s.lab, "eve again", s.eve.refresh(), http.StatusOK)
		stolen := s.eve.resume

		s.eve.goTo(relayAddr)
		s.eve.resume = stolen
		wantStatus(s.lab, "eve, where bob is", s.eve.refresh(), http.StatusForbidden)

		s.bob.goTo(otherAddr)
		wantStatus(s.lab, "bob, where eve is", s.bob.refresh(), http.StatusOK)
		s.forward()
		s.eve.goTo(otherAddr)
		wantStatus(s.lab, "eve, where she was", s.eve.refresh(), http.StatusForbidden)
	})
}

// TestThiefComesFirst checks that a token that somebody has got with a stolen offer at one
// relay is no better elsewhere than the offer: at a relay that has forgotten the session, the
// peers get their legs back.
func TestThiefComesFirst(t *testing.T) {
	runTheft(t, nil, func(s *theft) {
		for _, p := range []*peer{s.alice, s.eve} {
			p.goTo(otherAddr)
		}
		wantStatus(s.lab, "alice", s.alice.refresh(), http.StatusOK)
		s.joins()
		s.stop()
		s.start(nil)
		s.eve.goTo(relayAddr)
		wantStatus(s.lab, "eve, before bob", s.eve.refresh(), http.StatusOK)
		for _, p := range []*peer{s.alice, s.bob} {
			p.goTo(relayAddr)
			wantStatus(s.lab, p.role.String(), p.refresh(), http.StatusOK)
		}
		s.forward()
	})
}

// TestThiefOfDialersLeg checks that somebody who may open sessions, and has a stolen offer,
// does not become the dialer of the offer's session: neither with that account nor with
// another one.
func TestThiefOfDialersLeg(t *testing.T) {
	accounts := &Config{Authorize: func(_ context.Context, r AuthRequest) (string, error) { return r.Token, nil }}
	for name, test := range map[string]struct {
		conf  *Config
		token func(*lab) string
	}{
		"with the same account":   {nil, func(l *lab) string { return l.server.Token() }},
		"with an account of hers": {accounts, func(l *lab) string { return "eve" }},
	} {
		t.Run(name, func(t *testing.T) {
			runTheft(t, test.conf, func(s *theft) {
				s.eve.goTo(otherAddr)
				s.eve.mustRegister(s.session, control.Register{Key: s.eve.key}, test.token(s.lab))
				stolen := s.eve.resume
				for _, p := range []*peer{s.alice, s.bob} {
					p.goTo(otherAddr)
				}
				wantStatus(s.lab, "alice, where eve is", s.alice.refresh(), http.StatusOK)
				wantStatus(s.lab, "bob, where eve is", s.bob.refresh(), http.StatusOK)
				s.forward()
				for _, at := range []string{relayAddr, otherAddr} {
					s.eve.goTo(at)
					s.eve.resume = stolen
					wantStatus(s.lab, "eve at "+at, s.eve.refresh(), http.StatusForbidden)
				}
			})
		})
	}
}

// TestClaimIsImproved checks that a peer who has come with the offer's join token to a relay
// that does not know the session, and comes again with a token of the relay that does, cannot
// be displaced there.
func TestClaimIsImproved(t *testing.T) {
	runTheft(t, nil, func(s *theft) {
		first := s.bob.resume
		s.alice.goTo(otherAddr)
		s.bob.goTo(otherAddr)
		wantStatus(s.lab, "alice", s.alice.refresh(), http.StatusOK)
		s.bob.mustRegister(s.session, control.Register{Role: control.Accepter, Key: s.bob.key}, s.join)
		s.bob.resume = first
		wantStatus(s.lab, "bob", s.bob.refresh(), http.StatusOK)
		ses := s.other.sessions.find(s.session)
		if got := ses.legs[control.Accepter].claim; got != claimFirst {
			s.Errorf("claim %d, want %d", got, claimFirst)
		}
	})
}

// noteOffload keeps the notes of sessions.
type noteOffload struct {
	noOffload
	last []byte
}

func (o *noteOffload) note(_ uint64, b []byte) { o.last = b }

// TestNoteKeepsClaims checks that the next server knows how the legs were claimed, and that the
// note of an earlier server, which does not say that, is understood.
func TestNoteKeepsClaims(t *testing.T) {
	notes := new(noteOffload)
	newSessions := func() *Server {
		s, err := New(&Config{Secret: testSecret}, nettest.New(1).Listen(relayAddr))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		s.offload = notes
		return s
	}
	before, after := newSessions(), newSessions()
	ses, err := before.sessions.open(control.SessionID{1}, accountTag{2}, uncounted)
	if err != nil {
		t.Fatal(err)
	}
	opened := time.Unix(1e9, 0)
	at := datapath.Leg{Remote: netip.MustParseAddrPort("192.0.2.1:1"), Local: netip.MustParseAddrPort("192.0.2.9:4433")}
	ses.mu.Lock()
	ses.joined, ses.here, ses.dialed, ses.opened = true, true, false, opened
	for r := range ses.legs {
		putLegLocked(&ses.legs[r], cid.NewKey(), legAddr{remote: at.Remote, local: at.Local.Addr()})
	}
	ses.legs[control.Dialer].claim, ses.legs[control.Accepter].claim = claimFirst, claimDoubtful
	ses.noteLocked()
	ses.mu.Unlock()
	if len(notes.last) > datapath.NoteSize {
		t.Fatalf("the note has %d bytes, want at most %d", len(notes.last), datapath.NoteSize)
	}
	var n note
	if _, err := binary.Decode(notes.last, binary.BigEndian, &n); err != nil {
		t.Fatal(err)
	}
	after.registrar.restore(0, &n, [2]datapath.Leg{at, at})
	now := after.sessions.find(control.SessionID{1})
	if !now.joined || !now.here || now.dialed || !now.opened.Equal(opened) {
		t.Errorf("joined %v, here %v, dialed %v, opened %v", now.joined, now.here, now.dialed, now.opened)
	}
	if d, a := now.legs[control.Dialer].claim, now.legs[control.Accepter].claim; d != claimFirst || a != claimDoubtful {
		t.Errorf("claims %d and %d, want %d and %d", d, a, claimFirst, claimDoubtful)
	}

	n.Flags, n.Opened, n.ID = 1, 0, control.SessionID{2}
	after.registrar.restore(1, &n, [2]datapath.Leg{at, at})
	if now := after.sessions.find(n.ID); !now.joined || now.here || !now.opened.IsZero() || now.legs[0].claim != claimResumed || now.legs[1].claim != claimResumed {
		t.Errorf("of an earlier server: joined %v, here %v, opened %v, claims %d and %d", now.joined, now.here, now.opened, now.legs[0].claim, now.legs[1].claim)
	}
}
