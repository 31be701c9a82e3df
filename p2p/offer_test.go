package p2p

import (
	"bytes"
	"compress/flate"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"flag"
	"net/netip"
	"os"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quicway/quicway/internal/test/nettest"
	"github.com/quicway/quicway/internal/wire"
)

// qrCapacity is how many bytes the largest QR code of error correction level L
// holds.
const qrCapacity = 2953

// TestOfferHoldsWholeFirstFlight checks that an offer holds both datagrams of the
// ClientHello with Go's default key shares.
func TestOfferHoldsWholeFirstFlight(t *testing.T) {
	for _, test := range []struct {
		name   string
		curves []tls.CurveID
		want   int // datagrams
		max    int // characters
	}{
		{"default", nil, 2, qrCapacity},
		{"X25519 alone", []tls.CurveID{tls.X25519}, 1, qrCapacity / 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			runLab(t, func(l *lab) {
				alice := l.host(func(c *Config) {
					if test.curves != nil {
						c.TLS = ownTLS(c.identityFor(t))
						c.TLS.CurvePreferences = test.curves
					}
				})
				offer, _ := l.offer(alice, PeerID{})
				datagrams, err := offer.datagrams()
				if err != nil || len(datagrams) != test.want {
					l.Fatalf("%d datagrams, %v, want %d", len(datagrams), err, test.want)
				}
				if !helloOf(t, datagrams).Complete() {
					l.Error("the ClientHello is not whole")
				}
				if n := len(offer.String()); n > test.max {
					l.Errorf("%d characters, want at most %d", n, test.max)
				}
			})
		})
	}
}

// identityFor generates an identity for a configuration without one.
func (c *Config) identityFor(t *testing.T) *Identity {
	t.Helper()
	identity, err := NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	c.Identity = identity
	return identity
}

func helloOf(t *testing.T, datagrams [][]byte) *wire.CryptoStream {
	t.Helper()
	var hello wire.CryptoStream
	for _, d := range datagrams {
		h, err := wire.Parse(d, 0)
		if err != nil {
			t.Fatal(err)
		}
		keys, err := wire.NewInitialKeys(h.Version, h.DstID, wire.Client)
		if err != nil {
			t.Fatal(err)
		}
		opened, err := keys.Open(nil, &h)
		if err != nil {
			t.Fatal(err)
		}
		for f, err := range wire.CryptoFrames(opened.Payload) {
			if err == nil {
				err = hello.Add(f.Offset, f.Data)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	return &hello
}

// TestOfferDeliveredLate checks that the handshake succeeds if the offer is delivered
// after more than quic-go's default handshake timeout of five seconds.
func TestOfferDeliveredLate(t *testing.T) {
	runLab(t, func(l *lab) {
		alice, bob := l.host(nil), l.host(nil)
		offer, dialed := l.offer(alice, bob.ID())
		time.Sleep(100 * time.Second)
		b, err := bob.AcceptOffer(l.Context(), offer)
		if err != nil {
			l.Fatal(err)
		}
		a := <-dialed
		if a.err != nil {
			l.Fatal(a.err)
		}
		l.exchange(a.conn, b, 100_000)
	})
}

// TestLostDatagramOfFirstFlight checks that the dialer sends a datagram that is missing
// in the offer again through the relay.
func TestLostDatagramOfFirstFlight(t *testing.T) {
	for lost, name := range []string{"first", "second"} {
		t.Run(name, func(t *testing.T) {
			runLab(t, func(l *lab) {
				alice, bob := l.host(nil), l.host(nil)
				offer, dialed := l.offer(alice, bob.ID())
				offer.flight = append([]initial(nil), offer.flight[1-lost])
				b, err := bob.AcceptOffer(l.Context(), offer)
				if err != nil {
					l.Fatal(err)
				}
				a := <-dialed
				if a.err != nil {
					l.Fatal(a.err)
				}
				l.exchange(a.conn, b, 10_000)
			})
		})
	}
}

// TestHandshakeOnLossyNetwork checks the handshake on a network that loses a fifth of
// the packets.
func TestHandshakeOnLossyNetwork(t *testing.T) {
	for seed := range uint64(10) {
		runLabSeeded(t, seed, func(l *lab) {
			l.net.Set(nettest.Conditions{Delay: 30 * time.Millisecond, Loss: 0.1})
			a, b := l.connect(l.host(nil), l.host(nil))
			l.net.Set(nettest.Conditions{})
			l.exchange(a, b, 1000)
		})
	}
}

// TestOfferIsUsedOnce checks that an offer cannot be answered twice, by the same
// endpoint or another one.
func TestOfferIsUsedOnce(t *testing.T) {
	runLab(t, func(l *lab) {
		alice, bob, eve := l.host(nil), l.host(nil), l.host(nil)
		offer, dialed := l.offer(alice, PeerID{})
		if _, err := bob.AcceptOffer(l.Context(), offer); err != nil {
			l.Fatal(err)
		}
		a := <-dialed
		if a.err != nil {
			l.Fatal(a.err)
		}
		for name, h := range map[string]*host{"the same": bob, "another": eve} {
			if _, err := h.AcceptOffer(l.Context(), offer); !errors.Is(err, ErrOfferUsed) {
				l.Errorf("%s endpoint: %v, want %v", name, err, ErrOfferUsed)
			}
		}
		if a.conn.RemoteID() != bob.ID() {
			l.Error("connected to another")
		}
		l.alive(a.conn)
		l.stopRelay() // bob need not ask it
		if _, err := bob.AcceptOffer(l.Context(), offer); !errors.Is(err, ErrOfferUsed) {
			l.Errorf("without relay: %v, want %v", err, ErrOfferUsed)
		}
		l.startRelay()
	})
}

func TestOfferExpires(t *testing.T) {
	runLab(t, func(l *lab) {
		alice, bob := l.host(func(c *Config) { c.OfferTTL = 30 * time.Second }), l.host(nil)
		offer, dialed := l.offer(alice, bob.ID())
		time.Sleep(30 * time.Second)
		if r := <-dialed; !errors.Is(r.err, ErrOfferExpired) {
			l.Errorf("dialed: %v, want %v", r.err, ErrOfferExpired)
		}
		// The accepter's clock may be wrong. The relay decides.
		if _, err := bob.AcceptOffer(l.Context(), offer); !errors.Is(err, ErrOfferExpired) && !errors.Is(err, ErrPeerGone) {
			l.Errorf("accepted late: %v", err)
		}
		time.Sleep(clockSkew)
		if _, err := bob.AcceptOffer(l.Context(), offer); !errors.Is(err, ErrOfferExpired) || !strings.Contains(err.Error(), "clock") {
			l.Errorf("accepted: %v, want %v", err, ErrOfferExpired)
		}
		l.stopRelay() // bob need not ask it
		if _, err := bob.AcceptOffer(l.Context(), offer); !errors.Is(err, ErrOfferExpired) {
			l.Errorf("accepted without relay: %v, want %v", err, ErrOfferExpired)
		}
		l.startRelay()
		// If the accepter's clock is wrong, the dialer is gone.
		offer.expires = offer.expires.Add(time.Hour)
		if _, err := l.host(nil).AcceptOffer(l.Context(), offer); !errors.Is(err, ErrOfferExpired) && !errors.Is(err, ErrPeerGone) {
			l.Errorf("accepted: %v", err)
		}
	})
}

// TestWrongPeer checks that an accepter with another key than the dialed one is refused.
func TestWrongPeer(t *testing.T) {
	runLab(t, func(l *lab) {
		alice, bob, eve := l.host(nil), l.host(nil), l.host(nil)
		offer, dialed := l.offer(alice, bob.ID())
		if _, err := eve.AcceptOffer(l.Context(), offer); !errors.Is(err, ErrPeerRefused) {
			l.Errorf("eve: %v, want %v", err, ErrPeerRefused)
		}
		if r := <-dialed; !errors.Is(r.err, ErrPeerMismatch) {
			l.Errorf("alice: %v, want %v", r.err, ErrPeerMismatch)
		}
	})
}

// TestRelayIsNoPeer checks that the relay cannot answer the offer although it has seen
// its packets.
func TestRelayIsNoPeer(t *testing.T) {
	runLab(t, func(l *lab) {
		alice, eve := l.host(nil), l.host(nil)
		offer, dialed := l.offer(alice, PeerID{})
		offer.secret = newSecret()
		c, err := eve.AcceptOffer(l.Context(), offer)
		if err == nil {
			err = l.closed(c)
		}
		if !errors.Is(err, ErrPeerRefused) {
			l.Errorf("eve: %v, want %v", err, ErrPeerRefused)
		}
		if r := <-dialed; !errors.Is(r.err, ErrPeerMismatch) {
			l.Errorf("alice: %v, want %v", r.err, ErrPeerMismatch)
		}
	})
}

// TestAllowPeer checks that each side may refuse the other.
func TestAllowPeer(t *testing.T) {
	nobody := func(c *Config) { c.AllowPeer = func(PeerID) bool { return false } }
	runLab(t, func(l *lab) {
		alice, bob := l.host(nil), l.host(nobody)
		offer, _ := l.offer(alice, bob.ID())
		if _, err := bob.AcceptOffer(l.Context(), offer); !errors.Is(err, ErrPeerMismatch) {
			l.Errorf("bob: %v, want %v", err, ErrPeerMismatch)
		}
	})
	runLab(t, func(l *lab) {
		alice, bob := l.host(nobody), l.host(nil)
		offer, dialed := l.offer(alice, PeerID{})
		if _, err := bob.AcceptOffer(l.Context(), offer); !errors.Is(err, ErrPeerRefused) {
			l.Errorf("bob: %v, want %v", err, ErrPeerRefused)
		}
		if r := <-dialed; !errors.Is(r.err, ErrPeerMismatch) {
			l.Errorf("alice: %v, want %v", r.err, ErrPeerMismatch)
		}
	})
}

// TestDialerIsWhoTheOfferSays checks that an offer that names another dialer is refused.
func TestDialerIsWhoTheOfferSays(t *testing.T) {
	runLab(t, func(l *lab) {
		alice, bob := l.host(nil), l.host(nil)
		offer, _ := l.offer(alice, bob.ID())
		offer.dialer[0] ^= 1
		if _, err := bob.AcceptOffer(l.Context(), offer); !errors.Is(err, ErrPeerMismatch) {
			l.Errorf("%v, want %v", err, ErrPeerMismatch)
		}
	})
}

var update = flag.Bool("update", false, "write testdata/offer.txt")

// TestSampleOffer checks that the sample for other tests has the form of present offers.
// With -update it writes a new sample.
func TestSampleOffer(t *testing.T) {
	runLab(t, func(l *lab) {
		offer, _ := l.offer(l.host(nil), PeerID{})
		if !*update {
			if sample := sampleOffer(t); len(sample.flight) != len(offer.flight) || sample.relay != offer.relay {
				l.Errorf("the sample has %d packets for %v, an offer %d for %v: run with -update",
					len(sample.flight), sample.relay, len(offer.flight), offer.relay)
			}
			return
		}
		if err := os.WriteFile("testdata/offer.txt", []byte(offer.String()+"\n"), 0o644); err != nil {
			l.Fatal(err)
		}
	})
}

// sampleOffer is an offer that a dialer has made.
func sampleOffer(t testing.TB) Offer {
	t.Helper()
	var offer Offer
	if err := offer.UnmarshalText([]byte(strings.TrimSpace(offerText))); err != nil {
		t.Fatal(err)
	}
	return offer
}

func TestOfferText(t *testing.T) {
	want := sampleOffer(t)
	text, err := want.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseOffer(string(text))
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v\nwant %+v", got, err, want)
	}
	if _, err := (Offer{}).MarshalText(); !errors.Is(err, ErrMalformedOffer) {
		t.Errorf("an empty offer is written: %v", err)
	}
}

// TestOfferTextCut checks that truncated or changed offers are detected, or harmless.
func TestOfferTextCut(t *testing.T) {
	whole := sampleOffer(t)
	text := whole.String()
	for n := range len(text) - 1 {
		if _, err := ParseOffer(text[:n]); !errors.Is(err, ErrMalformedOffer) {
			t.Fatalf("cut after %d of %d: %v, want %v", n, len(text), err, ErrMalformedOffer)
		}
	}
	binary := whole.appendBinary(nil)
	for n := range binary {
		if o, err := parseOfferBinary(binary[:n]); err == nil && len(o.flight) == len(whole.flight) {
			t.Errorf("cut after %d of %d bytes, all packets are there", n, len(binary))
		}
	}
}

// TestOfferBombs checks that the text of an offer and its decompressed form are bounded.
func TestOfferBombs(t *testing.T) {
	var packed bytes.Buffer
	w, _ := flate.NewWriter(&packed, flate.BestCompression)
	w.Write(make([]byte, 10<<20))
	w.Close()
	for name, text := range map[string]string{
		"long":     offerPrefix + strings.Repeat("A", 1<<20),
		"unpacked": offerPrefix + base64.RawURLEncoding.EncodeToString(packed.Bytes()),
		"other":    "quicway2.AAAA",
		"empty":    "",
	} {
		if _, err := ParseOffer(text); !errors.Is(err, ErrMalformedOffer) {
			t.Errorf("%s: %v, want %v", name, err, ErrMalformedOffer)
		}
	}
}

// TestMailboxNamesNoRelay checks that an offer from the mailbox is answered through the
// relay that it came from, whatever relay it names.
func TestMailboxNamesNoRelay(t *testing.T) {
	runLab(t, func(l *lab) {
		alice, bob := l.host(nil), l.host(nil)
		accepted := make(chan error, 1)
		ctx, cancel := context.WithTimeout(l.Context(), 30*time.Second)
		defer cancel()
		go func() {
			_, err := bob.Accept(ctx)
			accepted <- err
		}()
		_, err := alice.Dial(ctx, bob.ID(), &DialConfig{Deliver: func(ctx context.Context, o Offer) error {
			o.relay.Addr = "203.0.113.66:666"
			return alice.putOffer(ctx, alice.conf.Relay, bob.ID(), o)
		}})
		if err != nil {
			l.Error(err)
		}
		if err := <-accepted; err != nil {
			l.Error(err)
		}
	})
}

func FuzzOffer(f *testing.F) {
	whole := sampleOffer(f)
	f.Add(whole.appendBinary(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		o, err := parseOfferBinary(b)
		if err != nil {
			return
		}
		text, err := o.MarshalText()
		if err != nil {
			t.Fatalf("parsed, but not written: %v", err)
		}
		again, err := ParseOffer(string(text))
		if len(text) > maxOfferText {
			return // nobody reads it
		}
		if err != nil || !reflect.DeepEqual(again, o) {
			t.Errorf("%+v, %v\nwant %+v", again, err, o)
		}
		if _, err := o.initialID(); err != nil {
			t.Logf("ID: %v", err)
		}
	})
}

func FuzzOfferText(f *testing.F) {
	f.Add(strings.TrimSpace(offerText))
	f.Add(offerPrefix)
	f.Fuzz(func(t *testing.T, text string) {
		o, err := ParseOffer(text)
		if err != nil {
			if !errors.Is(err, ErrMalformedOffer) {
				t.Errorf("%v is no %v", err, ErrMalformedOffer)
			}
			return
		}
		if _, err := o.datagrams(); err != nil {
			t.Errorf("an offer whose packets can't be made: %v", err)
		}
	})
}

// TestListenersWithToken checks that endpoints that wait for offers with a token are not
// displaced at a relay with little room for those without one.
func TestListenersWithToken(t *testing.T) {
	runLab(t, func(l *lab) {
		l.stopRelay()
		l.maxListeners = 1
		l.startRelay()
		for range 3 {
			go l.public().peer(nil).Accept(l.Context())
		}
		time.Sleep(5 * time.Second)
		var handshakes atomic.Int32
		l.net.Filter(func(p nettest.Packet) bool {
			if p.To == netip.MustParseAddrPort(relayAddr) && wire.IsLong(p.Data[0]) {
				handshakes.Add(1)
			}
			return true
		})
		time.Sleep(time.Minute)
		if n := handshakes.Load(); n != 0 {
			l.Errorf("%d packets of handshakes with the relay, want none", n)
		}
	})
}
