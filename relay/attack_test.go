package relay

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/control"
	"github.com/quicway/quicway/internal/netmon"
	"github.com/quicway/quicway/internal/test/nettest"
	"github.com/quicway/quicway/internal/test/wiretest"
	"github.com/quicway/quicway/internal/wire"
)

// Tests of what clients without the right to do something may try.

func wantStatus(t *lab, what string, got, want int) {
	t.Helper()
	if got != want {
		t.Errorf("%s: status %d, want %d", what, got, want)
	}
}

func TestSessionNeedsToken(t *testing.T) {
	runLab(t, nil, func(l *lab) {
		p := l.peer()
		for _, token := range []string{"", "x", l.server.Token() + "x", l.server.Token()[1:]} {
			status, _ := p.register(control.NewSessionID(), control.Register{Key: p.key}, token)
			wantStatus(l, "token "+token, status, http.StatusUnauthorized)
		}
		if s := l.server.Stats(); s.Sessions != 0 || s.Refused != 4 {
			l.Errorf("%d sessions, %d refused, want 0 and 4", s.Sessions, s.Refused)
		}
	})
}

func TestJoinTokenWorksOnce(t *testing.T) {
	runLab(t, nil, func(l *lab) {
		alice, bob, eve := l.peer(), l.peer(), l.peer()
		session := control.NewSessionID()
		join := alice.mustRegister(session, control.Register{Key: alice.key}, l.server.Token()).Join
		req := control.Register{Role: control.Accepter, Key: bob.key}

		status, _ := bob.register(session, req, l.server.Token())
		wantStatus(l, "join with the access token", status, http.StatusUnauthorized)
		status, _ = bob.register(control.NewSessionID(), req, join)
		wantStatus(l, "join another session", status, http.StatusUnauthorized)
		status, _ = eve.register(session, control.Register{Role: control.Dialer, Key: eve.key}, join)
		wantStatus(l, "join as the dialer", status, http.StatusUnauthorized)

		bob.mustRegister(session, req, join)
		status, _ = eve.register(session, control.Register{Role: control.Accepter, Key: eve.key}, join)
		wantStatus(l, "join a leg that is taken", status, http.StatusForbidden)

		wantStatus(l, "end", bob.end(bob.key), http.StatusNoContent)
		time.Sleep(linger + 2*sweepPeriod)
		status, _ = eve.register(session, control.Register{Role: control.Accepter, Key: eve.key}, join)
		wantStatus(l, "join after the accepter has left", status, http.StatusConflict)
	})
}

func TestJoinTokenExpires(t *testing.T) {
	runLab(t, &Config{OfferTTL: time.Minute}, func(l *lab) {
		alice, bob := l.peer(), l.peer()
		session := control.NewSessionID()
		join := alice.mustRegister(session, control.Register{Key: alice.key}, l.server.Token()).Join
		time.Sleep(time.Minute + time.Second)
		bob.transport.Close()
		bob.reconnect() // its connection was not authenticated
		status, _ := bob.register(session, control.Register{Role: control.Accepter, Key: bob.key}, join)
		wantStatus(l, "join too late", status, http.StatusUnauthorized)
	})
}

func TestLegBelongsToItsKey(t *testing.T) {
	runLab(t, nil, func(l *lab) {
		alice, bob := l.pair()
		eve := l.peer()
		eve.session, eve.role = alice.session, alice.role

		status, _ := eve.register(alice.session, control.Register{Role: control.Dialer, Key: eve.key}, l.server.Token())
		wantStatus(l, "take over", status, http.StatusForbidden)
		status, _ = eve.register(alice.session, control.Register{Role: control.Dialer, Key: eve.key}, alice.resume)
		wantStatus(l, "take over with a stolen resume token", status, http.StatusUnauthorized)
		wantStatus(l, "end another's leg", eve.end(eve.key), http.StatusForbidden)

		packet := alice.packet(0, "for alice")
		bob.send(packet)
		alice.want(packet)
		eve.want()
	})
}

// TestAddressIsTheValidatedOne checks that a leg's address is the validated address of its
// control connection, and that a client cannot name another one.
func TestAddressIsTheValidatedOne(t *testing.T) {
	runLab(t, nil, func(l *lab) {
		p := l.peer()
		key, _ := p.key.MarshalText()
		body := fmt.Appendf(nil, `{"role":"dialer","key":%q,"addr":"203.0.113.9:9","observed":"203.0.113.9:9"}`, key)
		status, reply := p.do("POST", fmt.Sprintf(control.LegsPath, control.NewSessionID()), control.Bearer+l.server.Token(), body)
		wantStatus(l, "register", status, http.StatusOK)
		if !bytes.Contains(reply, []byte(p.conn.Public().String())) || bytes.Contains(reply, []byte("203.0.113.9")) {
			l.Errorf("observed address in %s is not %v", reply, p.conn.Public())
		}
	})
}

// TestRelayIsNoOpenReflector checks that only a few packets from an address that is not the
// leg's are forwarded. They might come from a leg whose NAT has rebound it.
func TestRelayIsNoOpenReflector(t *testing.T) {
	runLab(t, nil, func(l *lab) {
		alice, _ := l.pair()
		const attempts = 10 * rebindBudget
		for range attempts {
			l.net.Inject(nettest.Packet{
				From: netip.MustParseAddrPort("203.0.113.66:666"),
				To:   netip.MustParseAddrPort(relayAddr),
				Data: alice.packet(0, "spoofed"),
			})
		}
		if got := len(alice.arrived()); got > rebindBudget {
			l.Errorf("%d spoofed packets arrived, want %d at most", got, rebindBudget)
		}
		l.dropped(DropWrongSource, attempts-rebindBudget)
	})
}

// TestUnknownPacketsAreNotAnswered checks that packets that are neither a leg's nor for the
// relay's own QUIC are dropped and counted, and that nothing is sent back.
func TestUnknownPacketsAreNotAnswered(t *testing.T) {
	long := func(dst, src []byte) []byte {
		b, err := wiretest.AppendLong(nil, &wire.Header{Type: wire.Handshake, First: 0xe0, Version: wire.Version1, DstID: dst, SrcID: src}, make([]byte, 100))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for name, tc := range map[string]struct {
		packet func(alice, bob *peer) []byte
		want   Reason
	}{
		"empty ID":            {func(a, b *peer) []byte { return []byte{0x40} }, DropShort},
		"half an ID":          {func(a, b *peer) []byte { return a.packet(0, "")[:7] }, DropShort},
		"half a long header":  {func(a, b *peer) []byte { return []byte{0xc0, 0, 0, 0, 1, 8, 1} }, DropShort},
		"unknown ID":          {func(a, b *peer) []byte { return append([]byte{0x40}, make([]byte, 40)...) }, DropUnknownID},
		"below the window":    {func(a, b *peer) []byte { return a.packet(1<<40, "far ahead") }, DropUnknownID},
		"not QUIC at all":     {func(a, b *peer) []byte { return []byte("\x00\x01 hello, is there a STUN server?") }, DropUnknownID},
		"for a leg not there": {func(a, b *peer) []byte { return long([]byte("12345678"), a.key.ID(cid.Peer, 0).Bytes()) }, DropNoPeer},
	} {
		t.Run(name, func(t *testing.T) {
			runLab(t, nil, func(l *lab) {
				alice, bob := l.pair()
				outsider := netip.MustParseAddrPort("203.0.113.66:666")
				answered := false
				l.net.Filter(func(p nettest.Packet) bool {
					answered = answered || p.To == outsider
					return true
				})
				l.net.Inject(nettest.Packet{From: outsider, To: netip.MustParseAddrPort(relayAddr), Data: tc.packet(alice, bob)})
				alice.want()
				bob.want()
				l.dropped(tc.want, 1)
				if answered {
					l.Error("the sender of an unknown packet got an answer")
				}
			})
		})
	}
}

func TestSessionsAreBounded(t *testing.T) {
	account := func(_ context.Context, req AuthRequest) (string, error) { return req.Token, nil }
	runLab(t, &Config{MaxSessions: 5, MaxSessionsPerAccount: 3, Authorize: account}, func(l *lab) {
		p := l.peer()
		open := func(account string) int {
			status, _ := p.register(control.NewSessionID(), control.Register{Key: cid.NewKey()}, account)
			return status
		}
		for range 3 {
			wantStatus(l, "within the account's bound", open("a"), http.StatusOK)
		}
		wantStatus(l, "beyond it", open("a"), http.StatusTooManyRequests)
		wantStatus(l, "another account", open("b"), http.StatusOK)
		wantStatus(l, "another account", open("b"), http.StatusOK)
		wantStatus(l, "beyond the relay's bound", open("b"), http.StatusTooManyRequests)
		time.Sleep(defaultTTL + 2*sweepPeriod)
		wantStatus(l, "when the others have expired", open("a"), http.StatusOK)
		if s := l.server.Stats(); s.Sessions != 1 || s.Expired != 5 {
			l.Errorf("%d sessions, %d legs expired, want 1 and 5", s.Sessions, s.Expired)
		}
	})
}

// TestRelayRefusesItsOwnAddress checks that a leg cannot have an address of the relay
// itself. Its packets would circulate for ever.
func TestRelayRefusesItsOwnAddress(t *testing.T) {
	runLab(t, nil, func(l *lab) {
		p := l.peer()
		// Pretend that the address of the client is one of the relay's.
		l.server.sockets.groups = append(l.server.sockets.groups, socketGroup{addr: p.conn.Public()})
		status, _ := p.register(control.NewSessionID(), control.Register{Key: p.key}, l.server.Token())
		wantStatus(l, "register the relay's own address", status, http.StatusForbidden)
	})
}

func TestOwnAddresses(t *testing.T) {
	s := &sockets{groups: []socketGroup{
		{addr: netip.MustParseAddrPort("192.0.2.1:4433")},
		{addr: netip.MustParseAddrPort("[::]:4434")},
	}}
	s.local.list = func() ([]netmon.Address, error) {
		return []netmon.Address{{Interface: "eth0", Addr: netip.MustParseAddr("198.51.100.1")}, {Interface: "eth0", Addr: netip.MustParseAddr("fe80::1%eth0")}}, nil
	}
	if err := s.local.open(); err != nil {
		t.Fatal(err)
	}
	defer s.local.close()
	for addr, want := range map[string]bool{
		"192.0.2.1:4433":   true,
		"192.0.2.1:4435":   false,
		"192.0.2.2:4433":   false,
		"127.0.0.1:4434":   true,
		"[::1]:4434":       true,
		"127.0.0.1:4433":   false,
		"203.0.113.7:4434": false,

		"198.51.100.1:4434": true,
		"198.51.100.1:4433": false,
		"[fe80::1%2]:4434":  true,
	} {
		if got := s.own(netip.MustParseAddrPort(addr)); got != want {
			t.Errorf("own(%s) = %v, want %v", addr, got, want)
		}
	}
}

// TestInitialIDIsNotTakenOver checks that an accepter cannot register an Initial's ID that
// belongs to another leg.
func TestInitialIDIsNotTakenOver(t *testing.T) {
	runLab(t, nil, func(l *lab) {
		alice, bob := l.pair()
		mallory, eve := l.peer(), l.peer()
		session := control.NewSessionID()
		join := mallory.mustRegister(session, control.Register{Key: mallory.key}, l.server.Token()).Join
		stolen := alice.key.ID(cid.Peer, 1)
		status, _ := eve.register(session, control.Register{Role: control.Accepter, Key: eve.key, InitialID: stolen}, join)
		wantStatus(l, "register another's ID", status, http.StatusConflict)
		status, _ = mallory.register(session, control.Register{Role: control.Dialer, Key: mallory.key, InitialID: stolen}, "")
		wantStatus(l, "as a dialer", status, http.StatusBadRequest)

		packet := alice.packet(1, "still for alice")
		bob.send(packet)
		alice.want(packet)
		// The refused join has not used the token up.
		eve.mustRegister(session, control.Register{Role: control.Accepter, Key: eve.key}, join)
	})
}

func TestMalformedRequests(t *testing.T) {
	runLab(t, nil, func(l *lab) {
		p := l.peer()
		token := control.Bearer + l.server.Token()
		key, _ := p.key.MarshalText()
		legs := fmt.Sprintf(control.LegsPath, control.NewSessionID())
		for _, tc := range []struct {
			method, path, auth, body string
			want                     int
		}{
			{"POST", legs, token, ``, 400},
			{"POST", legs, token, `{}`, 400},
			{"POST", legs, token, `[]`, 400},
			{"POST", legs, token, `{"role":"king","key":"` + string(key) + `"}`, 400},
			{"POST", legs, token, `{"role":"dialer","key":"short"}`, 400},
			{"POST", legs, token, `{"role":"dialer","key":"` + string(key) + `"} trailing`, 400},
			{"POST", legs, token, `{"role":"dialer","key":"` + string(key) + `","next":-1}`, 400},
			{"POST", legs, token, `{"role":"accepter","key":"` + string(key) + `","initial_dcid":"0102"}`, 400},
			{"POST", legs, token, `{"role":"accepter","key":"` + string(key) + `","initial_dcid":"` + string(bytes.Repeat([]byte("00"), 21)) + `"}`, 400},
			{"POST", legs, token, string(make([]byte, 2*control.MaxBody)), 400},
			{"POST", "/v1/sessions/x/legs", token, `{}`, 400},
			{"DELETE", "/v1/sessions/x/legs/dialer", token, ``, 400},
			{"DELETE", legs + "/king", token, ``, 400},
			{"DELETE", legs + "/dialer", token, ``, 401},
			{"DELETE", legs + "/dialer", control.Leg + "x", ``, 401},
			{"DELETE", legs + "/dialer", control.Leg + string(key), ``, 404},
			{"PUT", "/v1/offers/" + string(bytes.Repeat([]byte("a"), control.MaxName+1)), token, `x`, 400},
			{"PUT", "/v1/offers/a%20b", token, `x`, 400},
			{"PUT", "/v1/offers/a", token, ``, 400},
			{"GET", "/v1/offers/a?wait=soon", token, ``, 400},
			{"GET", "/v2/anything", token, ``, 404},
			{"PATCH", "/v1/events", token, ``, 405},
		} {
			status, _ := p.do(tc.method, tc.path, tc.auth, []byte(tc.body))
			wantStatus(l, tc.method+" "+tc.path+" "+tc.body[:min(len(tc.body), 60)], status, tc.want)
		}
		if s := l.server.Stats(); s.Sessions != 0 {
			l.Errorf("%d sessions were opened", s.Sessions)
		}
	})
}

// TestJoinTokenAfterFailedResume checks that a registration that fails does not make a used
// join token valid again.
func TestJoinTokenAfterFailedResume(t *testing.T) {
	runLab(t, nil, func(l *lab) {
		other, _ := l.pair()
		alice, bob, eve := l.peer(), l.peer(), l.peer()
		session := control.NewSessionID()
		join := alice.mustRegister(session, control.Register{Key: alice.key}, l.server.Token()).Join
		bob.mustRegister(session, control.Register{Role: control.Accepter, Key: bob.key}, join)
		wantStatus(l, "end", bob.end(bob.key), http.StatusNoContent)
		time.Sleep(linger + 2*sweepPeriod)
		status, _ := bob.register(session, control.Register{Role: control.Accepter, Key: bob.key, InitialID: other.key.ID(cid.Peer, 1)}, bob.resume)
		wantStatus(l, "resume with another's ID", status, http.StatusConflict)
		status, _ = eve.register(session, control.Register{Role: control.Accepter, Key: eve.key}, join)
		wantStatus(l, "join again", status, http.StatusConflict)
	})
}

// TestLegComesBackToItsOwner checks that after a restart the owner of a leg gets it back
// from a client that has registered it with the join token meanwhile.
func TestLegComesBackToItsOwner(t *testing.T) {
	runLab(t, nil, func(l *lab) {
		alice, bob, eve := l.peer(), l.peer(), l.peer()
		session := control.NewSessionID()
		join := alice.mustRegister(session, control.Register{Key: alice.key}, l.server.Token()).Join
		bob.mustRegister(session, control.Register{Role: control.Accepter, Key: bob.key}, join)
		l.stop()
		l.start(nil)
		for _, p := range []*peer{alice, bob, eve} {
			p.transport.Close()
			p.reconnect()
		}
		alice.refresh() // with a token from before bob has joined
		status, late := eve.register(session, control.Register{Role: control.Accepter, Key: eve.key}, join)
		wantStatus(l, "eve, who has the offer", status, http.StatusOK)
		wantStatus(l, "bob", bob.refresh(), http.StatusOK)
		status, _ = eve.register(session, control.Register{Role: control.Accepter, Key: eve.key}, late.Resume)
		wantStatus(l, "eve again", status, http.StatusForbidden)
		packet := bob.packet(0, "for bob")
		alice.send(packet)
		bob.want(packet)
		packet = eve.packet(0, "for eve")
		alice.send(packet)
		eve.want()
	})
}

// TestResetKeysDiffer checks that relays with the same secret cannot reset the connections
// of each other, and that a restarted relay can reset its own (RFC 9000 §21.11).
func TestResetKeysDiffer(t *testing.T) {
	keys := make(map[quic.StatelessResetKey]string)
	for range 2 {
		for _, addr := range []string{"192.0.2.1:4433", "192.0.2.1:4434", "[2001:db8::1]:4433", "0.0.0.0:4433"} {
			s, err := deriveSecrets(testSecret)
			if err != nil {
				t.Fatal(err)
			}
			sockets := &sockets{groups: []socketGroup{{addr: netip.MustParseAddrPort(addr)}}}
			key, err := s.resetKey(sockets.instance())
			if err != nil {
				t.Fatal(err)
			}
			if before, ok := keys[*key]; ok && before != addr {
				t.Errorf("%s and %s have the same key", before, addr)
			}
			keys[*key] = addr
		}
	}
	if len(keys) != 4 {
		t.Errorf("%d keys of 4 relays, each restarted", len(keys))
	}
}
