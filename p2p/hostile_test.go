package p2p

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"testing"
	"time"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/control"
	"github.com/quicway/quicway/internal/test/nettest"
	"github.com/quicway/quicway/internal/test/wiretest"
	"github.com/quicway/quicway/internal/wire"
)

// Tests of attackers that can leave offers or see packets.

// rewrite replaces the ID and the payload of an offer's only packet.
func rewrite(t *testing.T, o Offer, id, payload []byte) Offer {
	t.Helper()
	in := o.flight[0]
	h, err := wire.Parse(append(append([]byte(nil), in.header...), make([]byte, len(in.payload)+wire.Overhead)...), cid.Len)
	if err != nil {
		t.Fatal(err)
	}
	number := in.header[h.HeaderLen:]
	h.DstID = id
	protected := make([]byte, len(number)+len(payload)+wire.Overhead)
	header, err := wiretest.AppendLong(nil, &h, protected)
	if err != nil {
		t.Fatal(err)
	}
	header = append(header[:len(header)-len(protected)], number...)
	o.flight = []initial{{header: header, payload: payload}}
	return o
}

// TestUnanswerableOffers checks that an offer is malformed if no QUIC server would
// answer its first flight.
func TestUnanswerableOffers(t *testing.T) {
	whole := sampleOffer(t)
	payload := whole.flight[0].payload
	for name, o := range map[string]Offer{
		"short packet": rewrite(t, whole, []byte("12345678"), payload[:500]),
		"short ID":     rewrite(t, whole, []byte("1234567"), payload),
	} {
		if _, err := ParseOffer(o.String()); !errors.Is(err, ErrMalformedOffer) {
			t.Errorf("%s: %v, want %v", name, err, ErrMalformedOffer)
		}
	}
	good := rewrite(t, whole, []byte("12345678"), payload)
	if _, err := ParseOffer(good.String()); err != nil {
		t.Errorf("offer rewritten: %v", err)
	}
}

// TestOfferExpiryIsBounded checks that an offer with an expiry in the far future does
// not occupy the accepter until then.
func TestOfferExpiryIsBounded(t *testing.T) {
	runLab(t, func(l *lab) {
		mallory, bob, alice := l.host(nil), l.host(nil), l.host(nil)
		accepted := make(chan *Conn, 1)
		go func() {
			c, err := bob.Accept(l.Context())
			if err != nil {
				l.Errorf("accept: %v", err)
			}
			accepted <- c
		}()
		for i := range maxAnswering + 1 {
			o, _ := l.offer(mallory, bob.ID())
			o.expires = time.Now().Add(time.Hour)
			if i%2 == 0 {
				o.expires = time.Unix(maxExpiry, 0)
			}
			o.flight = o.flight[:1]
			clear(o.flight[0].payload)
			o.flight[0].payload[0] = 1 // a PING and padding: no ClientHello
			if err := mallory.putOffer(l.Context(), mallory.conf.Relay, bob.ID(), o); err != nil {
				l.Fatal(err)
			}
			time.Sleep(100 * time.Millisecond)
		}
		mallory.Close()
		time.Sleep(3*answerTimeout + time.Second) // those that wait begin when others have ended
		if n := bob.mailbox.answering.count(); n != 0 {
			l.Errorf("%d offers are still being answered", n)
		}
		if _, err := alice.Dial(l.Context(), bob.ID(), nil); err != nil {
			l.Errorf("an honest dial: %v", err)
		}
		if c := <-accepted; c.RemoteID() != alice.ID() {
			l.Error("connected to another")
		}
	})
}

// TestOfferFailsAndIsTriedAgain checks that an offer is not used up if the relay could
// not be reached.
func TestOfferFailsAndIsTriedAgain(t *testing.T) {
	runLab(t, func(l *lab) {
		alice, bob := l.host(nil), l.host(nil)
		offer, dialed := l.offer(alice, bob.ID())
		bob.conn.Unreachable(true)
		if _, err := bob.AcceptOffer(l.Context(), offer); !errors.Is(err, ErrRelayUnreachable) {
			l.Errorf("%v, want %v", err, ErrRelayUnreachable)
		}
		bob.conn.Unreachable(false)
		if _, err := bob.AcceptOffer(l.Context(), offer); err != nil {
			l.Error(err)
		}
		if r := <-dialed; r.err != nil {
			l.Error(r.err)
		}
	})
}

// TestOfferStealsNoID checks that an attacker who puts the connection ID of another
// connection into an offer does not get that connection's packets.
func TestOfferStealsNoID(t *testing.T) {
	runLab(t, func(l *lab) {
		alice, bob, mallory := l.host(nil), l.host(nil), l.host(nil)
		a, b := l.connect(alice, bob)
		b.link.mu.Lock()
		ids := append([]cid.ID(nil), b.link.known...)
		b.link.mu.Unlock()
		o, _ := l.offer(mallory, PeerID{})
		for _, id := range ids {
			o.session = control.NewSessionID()
			stolen := rewrite(t, o, id.Bytes(), o.flight[0].payload)
			if _, err := bob.AcceptOffer(l.Context(), stolen); !errors.Is(err, ErrMalformedOffer) {
				l.Errorf("%v, want %v", err, ErrMalformedOffer)
			}
		}
		time.Sleep(time.Minute)
		l.exchange(a, b, 10_000)
		l.alive(a, b)
	})
}

// TestManyLegsOnSlowPath checks that the relay does not count as lost when refreshing
// many legs takes long.
func TestManyLegsOnSlowPath(t *testing.T) {
	runLab(t, func(l *lab) {
		alice, bob := l.host(nil), l.host(nil)
		l.net.Set(nettest.Conditions{Delay: 300 * time.Millisecond})
		for range 40 {
			l.connect(alice, bob)
		}
		h := alice.relays.clients[l.relay().key()]
		lines := make(map[*controlConn]bool)
		for range 300 {
			time.Sleep(200 * time.Millisecond)
			h.mu.Lock()
			lines[h.control] = true
			h.mu.Unlock()
		}
		if len(lines) != 1 {
			l.Errorf("%d control connections in a minute, want 1", len(lines))
		}
		if n := l.server.Stats().Legs; n != 80 {
			l.Errorf("%d legs, want 80", n)
		}
	})
}

// TestPeerThatIsNotGone checks that a connection survives if the relay reports the peer
// as gone by mistake, for example after a long outage.
func TestPeerThatIsNotGone(t *testing.T) {
	runLab(t, func(l *lab) {
		a, b := l.connect(l.host(nil), l.host(nil))
		for range 3 {
			a.peerGone()
			for range 10 {
				time.Sleep(500 * time.Millisecond)
				l.exchange(a, b, 1000)
			}
		}
		l.alive(a, b)
	})
}

// TestRelayUsedAgainAtOnce checks that an endpoint can use a relay again while the old
// control connection is being closed.
func TestRelayUsedAgainAtOnce(t *testing.T) {
	runLab(t, func(l *lab) {
		h := l.host(nil)
		nobody := Relay{Addr: "192.0.2.99:1"}
		for range 3 {
			first, err := h.relays.acquire(nobody)
			if err != nil {
				l.Fatal(err)
			}
			h.relays.release(first)
			second, err := h.relays.acquire(nobody)
			if err != nil || second == first {
				l.Fatalf("the same home: %v, %v", second == first, err)
			}
			h.relays.release(second)
		}
	})
}

// TestAllowPeerWantsCertificate checks that AllowPeer requires a certificate, whatever
// Config.TLS says.
func TestAllowPeerWantsCertificate(t *testing.T) {
	for name, chosen := range map[string]bool{"plain": false, "chosen for the client": true} {
		t.Run(name, func(t *testing.T) {
			runLab(t, func(l *lab) {
				var friend PeerID
				anonymous := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"mine"}}
				alice := l.host(func(c *Config) { c.TLS = anonymous })
				friend = alice.ID()
				bob := l.host(func(c *Config) {
					c.TLS = ownTLS(c.identityFor(t))
					if chosen {
						inner := c.TLS.Clone()
						c.TLS.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return inner, nil }
					}
					c.AllowPeer = func(id PeerID) bool { return id == friend }
				})
				offer, dialed := l.offer(alice, PeerID{})
				if c, err := bob.AcceptOffer(l.Context(), offer); err == nil {
					l.Errorf("let in %v, who has shown no key", c.RemoteID())
				}
				if r := <-dialed; r.err == nil {
					l.Error("connected")
				}
			})
		})
	}
}

func TestNumberZone(t *testing.T) {
	for addr, want := range map[string]string{
		"fe80::1":                 "fe80::1",
		"192.0.2.1":               "192.0.2.1",
		"fe80::1%no-such-network": "fe80::1%no-such-network",
	} {
		if got := numberZone(netip.MustParseAddr(addr)).String(); got != want {
			t.Errorf("%s became %s, want %s", addr, got, want)
		}
	}
	all, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, iface := range all {
		addr := netip.MustParseAddr("fe80::1").WithZone(iface.Name)
		if got := numberZone(addr).Zone(); got != strconv.Itoa(iface.Index) {
			t.Errorf("zone %q for %s, want %d", got, iface.Name, iface.Index)
		}
	}
}

// TestFloodDelaysOnlyItself checks that a dialer with a token that floods the mailbox
// with useless offers does not delay others.
func TestFloodDelaysOnlyItself(t *testing.T) {
	half := func(o *Offer) { o.flight = o.flight[1:] } // what is missing is never sent
	none := func(o *Offer) {
		clear(o.flight[0].payload)
		o.flight = o.flight[:1]
	}
	for name, spoil := range map[string]func(*Offer){"half a ClientHello": half, "no ClientHello": none} {
		t.Run(name, func(t *testing.T) {
			runLab(t, func(l *lab) {
				mallory, bob, alice := l.host(nil), l.host(nil), l.host(nil)
				accepting, stop := context.WithCancel(context.Background())
				done := make(chan struct{}, 2)
				go func() {
					for {
						if _, err := bob.Accept(accepting); err != nil {
							done <- struct{}{}
							return
						}
					}
				}()
				go func() {
					for accepting.Err() == nil {
						o, _ := l.offer(mallory, bob.ID())
						spoil(&o)
						_ = mallory.putOffer(l.Context(), mallory.conf.Relay, bob.ID(), o)
						time.Sleep(400 * time.Millisecond)
					}
					done <- struct{}{}
				}()
				time.Sleep(30 * time.Second)
				for range 3 {
					start := time.Now()
					c, err := alice.Dial(l.Context(), bob.ID(), nil)
					if err != nil || time.Since(start) > 2*time.Second {
						l.Errorf("an honest dial: %v after %v", err, time.Since(start))
						continue
					}
					_ = c.CloseWithError(0, "")
				}
				stop()
				<-done
				<-done
				_ = mallory.Close()
			})
		})
	}
}

// TestOfferOnDeadConnection checks that an offer that was sent on a dead control
// connection is shown again on the next one, long before the dialer gives up.
func TestOfferOnDeadConnection(t *testing.T) {
	runLab(t, func(l *lab) {
		alice, bob := l.host(nil), l.host(nil)
		accepted := make(chan error, 1)
		go func() {
			_, err := bob.Accept(l.Context())
			accepted <- err
		}()
		time.Sleep(time.Second)
		dead := bob.conn.Public()
		l.net.Filter(func(p nettest.Packet) bool { return p.To != dead && p.From != dead })
		start := time.Now()
		dialed := make(chan error, 1)
		go func() {
			_, err := alice.Dial(l.Context(), bob.ID(), nil)
			dialed <- err
		}()
		time.Sleep(5 * time.Second)
		h := bob.relays.clients[bob.conf.Relay.key()]
		h.mu.Lock()
		h.control.close() // as when traffic shows that the connection is dead
		h.mu.Unlock()
		time.Sleep(3 * time.Second)
		l.net.Filter(nil)
		if err := <-dialed; err != nil || time.Since(start) > 30*time.Second {
			l.Errorf("dialed: %v after %v", err, time.Since(start))
		}
		if err := <-accepted; err != nil {
			l.Error(err)
		}
	})
}
