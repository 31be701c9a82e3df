package relay

import (
	"bytes"
	"crypto/ed25519"
	"crypto/tls"
	"encoding/base64"
	"encoding/binary"
	"net/http"
	"testing"
	"time"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/control"
	"github.com/quicway/quicway/internal/pki"
)

// pinned says whether a client with the pin of a secret accepts the peer's relay.
func (p *peer) pinned(of *secrets) bool {
	return pki.Pinned(p.quic.ConnectionState().TLS, idOf(p.lab.T, of))
}

// idOf returns the pin of a relay with a secret.
func idOf(t *testing.T, s *secrets) pki.KeyID {
	t.Helper()
	cert, err := pki.SelfSigned(s.identity)
	if err != nil {
		t.Fatal(err)
	}
	return pki.CertificateKeyID(cert.Leaf)
}

// TestSecretIsChanged changes the secret of a relay in the three steps of Config.OldSecrets,
// while a session goes on, and while there are clients with the old and with the new token and
// pin.
func TestSecretIsChanged(t *testing.T) {
	next := bytes.Repeat([]byte{8}, minSecret)
	was, will := mustDerive(t, testSecret), mustDerive(t, next)
	runLab(t, &Config{Secret: testSecret}, func(l *lab) {
		alice, bob := l.pair()
		for step, test := range []struct {
			conf     Config
			old, new int // status of the access tokens
			pins     [2]bool
			uses     bool // of old secrets
		}{
			{Config{Secret: testSecret}, 200, 401, [2]bool{true, false}, false},
			{Config{Secret: testSecret, NextSecret: next}, 200, 200, [2]bool{true, false}, true},
			{Config{Secret: next, OldSecrets: [][]byte{testSecret}}, 200, 200, [2]bool{true, true}, true},
			{Config{Secret: next}, 401, 200, [2]bool{false, true}, false},
		} {
			before := l.server.Token()
			stranger := l.peer()
			session := control.NewSessionID()
			status, opened := stranger.register(session, control.Register{Key: stranger.key}, before)
			wantStatus(l, "before the restart", status, http.StatusOK)
			l.stop()
			l.start(&test.conf)
			for _, p := range []*peer{alice, bob} {
				p.goTo(relayAddr)
				status, reply := p.register(p.session, control.Register{Role: p.role, Key: p.key}, p.resume)
				wantStatus(l, p.role.String(), status, http.StatusOK)
				p.resume = reply.Resume
			}
			packet := bob.packet(uint64(step), "still there")
			alice.send(packet)
			bob.want(packet)

			stranger.goTo(relayAddr)
			status, _ = stranger.register(session, control.Register{Key: stranger.key}, opened.Resume)
			wantStatus(l, "a session that was opened before", status, http.StatusOK)
			bob := l.peer()
			status, _ = bob.register(session, control.Register{Role: control.Accepter, Key: bob.key}, opened.Join)
			wantStatus(l, "an offer from before", status, http.StatusOK)

			for _, p := range []struct {
				token string
				want  int
			}{{was.token, test.old}, {will.token, test.new}} {
				status, _ := alice.register(control.NewSessionID(), control.Register{Key: cid.NewKey()}, p.token)
				wantStatus(l, "access token", status, p.want)
			}
			if got := [2]bool{alice.pinned(was), alice.pinned(will)}; got != test.pins {
				l.Errorf("step %d: pins are accepted: %v, want %v", step, got, test.pins)
			}
			if n := l.server.Stats().OldSecretUses; (n > 0) != test.uses {
				l.Errorf("step %d: old secrets were used %d times", step, n)
			}
		}
	})
}

// TestOldSecretEnds checks that nothing that was made with a secret is accepted when that
// secret is no longer in the configuration, and that the operator ends an account's sessions
// whichever secret their tokens are from.
func TestOldSecretEnds(t *testing.T) {
	next := bytes.Repeat([]byte{8}, minSecret)
	runLab(t, nil, func(l *lab) {
		alice, bob := l.pair()
		l.stop()
		l.start(&Config{Secret: next, OldSecrets: [][]byte{testSecret}})
		alice.goTo(relayAddr)
		wantStatus(l, "with the old secret", alice.refresh(), http.StatusOK)
		if n := l.server.EndAccount(""); n != 1 {
			l.Errorf("%d sessions ended, want 1", n)
		}
		bob.goTo(relayAddr)
		wantStatus(l, "ended", bob.refresh(), http.StatusUnauthorized)
		l.stop()
		l.start(&Config{Secret: next})
		alice.goTo(relayAddr)
		wantStatus(l, "without the old secret", alice.refresh(), http.StatusUnauthorized)
	})
}

// TestStolenSecret checks that a thief of the old secret, who has seen the certificates of a
// relay in every step, cannot pass for a relay to clients with the new pin.
func TestStolenSecret(t *testing.T) {
	next := bytes.Repeat([]byte{8}, minSecret)
	stolen, will := mustDerive(t, testSecret), mustDerive(t, next)
	runLab(t, nil, func(l *lab) {
		for step, conf := range []Config{{Secret: testSecret, NextSecret: next}, {Secret: next, OldSecrets: [][]byte{testSecret}}} {
			l.stop()
			l.start(&conf)
			state := l.peer().quic.ConnectionState().TLS
			for i, cert := range state.PeerCertificates {
				rest := tls.ConnectionState{PeerCertificates: state.PeerCertificates[i:]}
				if stolen.identity.Public().(ed25519.PublicKey).Equal(cert.PublicKey) && pki.Pinned(rest, idOf(t, will)) {
					l.Errorf("step %d: a certificate of the old key is accepted with the new pin", step+1)
				}
			}
		}
	})
}

// TestExplicitTokenHasNoPredecessors checks that a Token that is set is the only one.
func TestExplicitTokenHasNoPredecessors(t *testing.T) {
	next := bytes.Repeat([]byte{8}, minSecret)
	runLab(t, &Config{Token: "the token", OldSecrets: [][]byte{next}}, func(l *lab) {
		p := l.peer()
		for token, want := range map[string]int{"the token": 200, mustDerive(t, next).token: 401, mustDerive(t, testSecret).token: 401} {
			status, _ := p.register(control.NewSessionID(), control.Register{Key: cid.NewKey()}, token)
			wantStatus(l, token, status, want)
		}
	})
}

func mustDerive(t *testing.T, secret []byte, old ...[]byte) *secrets {
	t.Helper()
	s, err := deriveSecrets(secret, old...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// sealVersion1 makes a token as earlier relays did.
func sealVersion1(k *tokenKey, g grant, c content) string {
	head := uint64(c.expiry.Unix()) << 8
	if c.joined {
		head |= 1
	}
	b := binary.BigEndian.AppendUint64(nil, head)
	b = append(b, c.account[:]...)
	return base64.RawURLEncoding.EncodeToString(append(b, k.mac(g, b)...))
}

// TestTokenVersions checks that tokens of both versions, of the secret and of old ones, are
// accepted for what they were made for, and for nothing else.
func TestTokenVersions(t *testing.T) {
	old := bytes.Repeat([]byte{8}, minSecret)
	ring, unknown := &mustDerive(t, testSecret, old).tokens, &mustDerive(t, bytes.Repeat([]byte{9}, minSecret)).tokens
	now := time.Now()
	id, key := control.NewSessionID(), cid.NewKey()
	g := resumeGrant(id, control.Dialer, key)
	c := content{expiry: time.Unix(now.Unix()+60, 0), joined: true, account: accountTag{1}, claim: claimFirst, opened: time.Unix(now.Unix()-60, 0)}
	first := c
	first.claim, first.opened = claimResumed, time.Time{}
	for name, test := range map[string]struct {
		token string
		want  content
		ok    bool
	}{
		"version 2":                   {ring.seal(g, c), c, true},
		"version 2 of an old secret":  {ring.old[0].seal(g, c), c, true},
		"version 1":                   {sealVersion1(&ring.tokenKey, g, c), first, true},
		"version 1 of an old secret":  {sealVersion1(&ring.old[0], g, c), first, true},
		"version 2 of an unknown one": {unknown.seal(g, c), content{}, false},
		"version 1 of an unknown one": {sealVersion1(&unknown.tokenKey, g, c), content{}, false},
		"for another key":             {ring.seal(resumeGrant(id, control.Dialer, cid.NewKey()), c), content{}, false},
		"for another session":         {ring.seal(resumeGrant(control.NewSessionID(), control.Dialer, key), c), content{}, false},
		"for the other role":          {ring.seal(resumeGrant(id, control.Accepter, key), c), content{}, false},
		"for another use":             {ring.seal(joinGrant(id), c), content{}, false},
		"with another key's ID":       {renamed(t, ring.seal(g, c), ring.old[0].id), content{}, false},
		"of a key that is not there":  {renamed(t, ring.seal(g, c), [keyIDLen]byte{}), content{}, false},
		"expired":                     {ring.seal(g, content{expiry: now.Add(-time.Second)}), content{expiry: time.Unix(now.Unix()-1, 0)}, false},
		"empty":                       {"", content{}, false},
		"not base64":                  {"!", content{}, false},
		"too long":                    {ring.seal(g, c) + "AAAA", content{}, false},
		"too short":                   {ring.seal(g, c)[4:], content{}, false},
	} {
		got, ok := ring.open(test.token, g, now)
		if ok != test.ok || ok && got != test.want {
			t.Errorf("%s: %+v, %v, want %+v, %v", name, got, ok, test.want, test.ok)
		}
	}
	if n := ring.oldUses.Load(); n != 2 {
		t.Errorf("old secrets were used %d times, want 2", n)
	}
}

// renamed replaces the ID of the key in a token.
func renamed(t *testing.T, token string, id [keyIDLen]byte) string {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil {
		t.Fatal(err)
	}
	copy(b[1:], id[:])
	return base64.RawURLEncoding.EncodeToString(b)
}

// FuzzSessionToken checks that no text panics, and that only texts are accepted that the relay
// has made.
func FuzzSessionToken(f *testing.F) {
	s, err := deriveSecrets(testSecret, bytes.Repeat([]byte{8}, minSecret))
	if err != nil {
		f.Fatal(err)
	}
	now := time.Unix(2e9, 0)
	g, c := joinGrant(control.SessionID{1}), content{expiry: now.Add(time.Minute)}
	made := map[string]bool{s.tokens.seal(g, c): true, sealVersion1(&s.tokens.old[0], g, c): true}
	for token := range made {
		f.Add(token)
		f.Add(token[1:])
	}
	f.Add("")
	f.Fuzz(func(t *testing.T, token string) {
		if _, ok := s.tokens.open(token, g, now); ok != made[token] {
			t.Errorf("%q is accepted: %v", token, ok)
		}
	})
}
