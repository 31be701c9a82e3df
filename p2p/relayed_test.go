package p2p

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/quicway/quicway/internal/test/nettest"
	"github.com/quicway/quicway/relay"
)

// TestRelayRestart checks that a connection survives when the relay restarts and
// remembers only its secret.
func TestRelayRestart(t *testing.T) {
	for name, away := range map[string]time.Duration{"at once": 0, "3 s": 3 * time.Second, "20 s": 20 * time.Second} {
		t.Run(name, func(t *testing.T) {
			runLab(t, func(l *lab) {
				a, b := l.connect(l.host(nil), l.host(nil))
				l.exchange(a, b, 100_000)
				l.stopRelay()
				time.Sleep(away)
				l.startRelay()
				l.exchange(a, b, 100_000)
				l.alive(a, b)
				if s := l.server.Stats(); s.Sessions != 1 || s.Legs != 2 {
					l.Errorf("%d sessions, %d legs, want 1 and 2", s.Sessions, s.Legs)
				}
			})
		})
	}
}

// TestRelaySecretChanges checks that a connection survives, and that new ones can be made with
// the old token and pin, while the secret of the relay is changed (relay.Config.OldSecrets).
func TestRelaySecretChanges(t *testing.T) {
	next := bytes.Repeat([]byte{10}, len(relaySecret))
	runLab(t, func(l *lab) {
		alice, bob := l.host(nil), l.host(nil)
		a, b := l.connect(alice, bob)
		for _, conf := range []relay.Config{
			{Secret: relaySecret, NextSecret: next},
			{Secret: next, OldSecrets: [][]byte{relaySecret}},
		} {
			l.stopRelay()
			l.server, l.served = l.serveWith(relayAddr, &conf)
			l.exchange(a, b, 100_000)
			l.alive(a, b)
		}
		c, d := l.connect(alice, bob)
		l.exchange(c, d, 1000)
	})
}

// TestRelayCrash checks that a connection survives the restart also if the relay does not announce its end.
func TestRelayCrash(t *testing.T) {
	runLab(t, func(l *lab) {
		a, b := l.connect(l.host(nil), l.host(nil))
		l.exchange(a, b, 100_000)
		l.net.Filter(func(nettest.Packet) bool { return false })
		l.stopRelay()
		time.Sleep(5 * time.Second)
		l.net.Filter(nil)
		l.startRelay()
		l.exchange(a, b, 100_000)
		l.alive(a, b)
	})
}

// TestRebinding checks that a connection survives when a NAT gives either side another
// address, while it is idle or in use.
func TestRebinding(t *testing.T) {
	for _, test := range []struct {
		name string
		who  int
		busy bool
	}{
		{"dialer, idle", 0, false},
		{"accepter, idle", 1, false},
		{"dialer, busy", 0, true},
		{"accepter, busy", 1, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			runLab(t, func(l *lab) {
				hosts := [2]*host{l.host(nil), l.host(nil)}
				a, b := l.connect(hosts[0], hosts[1])
				l.exchange(a, b, 10_000)
				const elsewhere = "203.0.113.7:7777"
				rebind := func() { l.net.Rebind(hosts[test.who].conn, elsewhere) }
				if test.busy {
					time.AfterFunc(300*time.Millisecond, rebind)
					l.exchange(a, b, 4<<20)
				} else {
					rebind()
				}
				l.exchange(a, b, 100_000)
				l.alive(a, b)
				moved := [2]*Conn{a, b}[test.who]
				if got := moved.Path().Local.String(); got != elsewhere {
					l.Errorf("its address is %s, want %s", got, elsewhere)
				}
				if s := l.server.Stats(); s.Moved == 0 {
					l.Error("no leg has moved")
				}
			})
		})
	}
}

// TestWriteErrorsAreNotFatal checks that a connection survives write errors, at which
// quic-go would end it: a host without a route may get one again.
func TestWriteErrorsAreNotFatal(t *testing.T) {
	runLab(t, func(l *lab) {
		alice, bob := l.host(nil), l.host(nil)
		a, b := l.connect(alice, bob)
		alice.conn.Unreachable(true)
		time.AfterFunc(15*time.Second, func() { alice.conn.Unreachable(false) })
		l.exchange(a, b, 100_000)
		l.alive(a, b)
		if s := alice.Stats(); s.Unsent == 0 {
			l.Error("no packet was refused")
		}
	})
}

// TestIdleConnectionLives checks that keepalives keep an idle connection, its legs and
// the NATs' mappings.
func TestIdleConnectionLives(t *testing.T) {
	runLab(t, func(l *lab) {
		a, b := l.connect(l.host(nil), l.host(nil))
		time.Sleep(10 * time.Minute)
		l.alive(a, b)
		l.exchange(a, b, 10_000)
	})
}

// TestIdleConnectionEnds checks that QUIC's idle timeout ends a connection without
// keepalives.
func TestIdleConnectionEnds(t *testing.T) {
	runLab(t, func(l *lab) {
		silent := func(c *Config) { c.KeepAlive = -1 }
		a, b := l.connect(l.host(silent), l.host(silent))
		l.closed(a)
		l.closed(b)
	})
}

// TestPeerGone checks that the relay reports a peer that has vanished, before the idle
// timeout. A stateless reset does not get through a relay.
func TestPeerGone(t *testing.T) {
	runLab(t, func(l *lab) {
		alice, bob := l.host(nil), l.host(nil)
		a, _ := l.connect(alice, bob)
		start := time.Now()
		bob.conn.Unreachable(true)
		if err := l.closed(a); !errors.Is(err, ErrPeerGone) {
			l.Errorf("ends with %v, want %v", err, ErrPeerGone)
		}
		if after := time.Since(start); after > defaultIdle {
			l.Errorf("noticed after %v", after)
		}
	})
}

// TestCloseReachesPeer checks that the relay still forwards CONNECTION_CLOSE although
// the leg is given back at once.
func TestCloseReachesPeer(t *testing.T) {
	runLab(t, func(l *lab) {
		a, b := l.connect(l.host(nil), l.host(nil))
		l.net.Set(nettest.Conditions{Delay: 100 * time.Millisecond})
		a.CloseWithError(42, "bye")
		start := time.Now()
		if err := l.closed(b); !applicationError(err, 42) {
			l.Errorf("ends with %v", err)
		}
		if after := time.Since(start); after > time.Second {
			l.Errorf("noticed after %v", after)
		}
	})
}

// TestPathEvents checks the events of a path's changes.
func TestPathEvents(t *testing.T) {
	runLab(t, func(l *lab) {
		alice, bob := l.host(nil), l.host(nil)
		a, b := l.connect(alice, bob)
		events := make(chan Path, 100)
		go func() {
			defer close(events)
			for p := range a.PathEvents(context.Background()) {
				events <- p
			}
		}()
		want := func(why PathReason) Path {
			l.Helper()
			select {
			case p := <-events:
				if p.Why != why || p.Kind != Relayed || p.Remote.String() != relayAddr {
					l.Errorf("path %+v, want one for %v", p, why)
				}
				return p
			case <-time.After(time.Minute):
				l.Fatalf("no event %v", why)
			}
			return Path{}
		}
		if p := want(WhyEstablished); p.Local != alice.conn.Public() {
			l.Errorf("our address is %v", p.Local)
		}
		l.stopRelay()
		want(WhyRelayLost)
		l.startRelay()
		want(WhyRelayBack)
		l.net.Rebind(alice.conn, "203.0.113.1:5")
		l.exchange(a, b, 1000)
		if p := want(WhyAddressChanged); p.Local.String() != "203.0.113.1:5" {
			l.Errorf("our address is %v", p.Local)
		}
		if rtt := a.Path().RTT; rtt < 40*time.Millisecond {
			l.Errorf("round trip of %v over a path of 40ms", rtt)
		}
		a.CloseWithError(0, "")
		for range events {
		}
	})
}

// TestPacketsFromUnprovedAddress checks that a packet with a connection ID of the
// connection is dropped if the peer has not proved the address that it comes from.
func TestPacketsFromUnprovedAddress(t *testing.T) {
	runLab(t, func(l *lab) {
		alice := l.host(nil)
		a, b := l.connect(alice, l.host(nil))
		time.Sleep(time.Second)
		heard := a.link.activity.last.Load()
		time.Sleep(time.Second)
		l.net.Inject(nettest.Packet{
			From: netip.MustParseAddrPort("203.0.113.66:6"),
			To:   alice.conn.Public(),
			Data: append([]byte{0x40}, append(a.link.known[0].Bytes(), make([]byte, 100)...)...),
		})
		time.Sleep(time.Second)
		if n := alice.Stats().Unsorted; n != 1 {
			l.Errorf("%d packets were for nobody, want 1", n)
		}
		if a.link.activity.last.Load() != heard {
			l.Error("the attacker's packet counts as a sign of life")
		}
		l.exchange(a, b, 1000)
	})
}
