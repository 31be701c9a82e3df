package p2p

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/control"
	"github.com/quicway/quicway/internal/test/nettest"
	"github.com/quicway/quicway/internal/wire"
)

// hop is the delay between a peer and the relay, one way. A round trip on one leg takes
// two of them, and one from peer to peer four.
const hop = 20 * time.Millisecond

// TestFirstByte checks how many hops a dial takes until Dial returns. The first byte that
// the dialer then sends is at the accepter two hops later.
//
// From a warm endpoint there are four: the registration with the offer to the relay, the
// offer to the accepter, the answer to the relay, and the answer to the dialer.
func TestFirstByte(t *testing.T) {
	for _, test := range []struct {
		name string
		hops int
		hand bool // the offer is delivered by hand, at once
		cold bool // no control connection but that of an accepter that waits for offers
		tls  bool // the accepter has its own TLS configuration
		mode func(*firstByteLab)
	}{
		{name: "mailbox, cold", hops: 6, cold: true},
		{name: "mailbox, warm", hops: 4},
		{name: "by hand, cold", hops: 8, cold: true, hand: true},
		{name: "by hand, warm", hops: 4, hand: true},
		// The accepter may refuse the dialer's certificate, and says hello when it has not.
		{name: "accepter with TLS", hops: 8, tls: true},
		// A dialer that leaves its offer with a request of its own, and a relay that wants
		// it so, take another round trip.
		{name: "old dialer", hops: 6, mode: (*firstByteLab).leaveNoOffers},
		// An old relay drops what comes before the registration.
		{name: "old relay", hops: 8, mode: func(f *firstByteLab) { f.leaveNoOffers(); f.dropEarlyAnswer() }},
		{name: "old relay, by hand", hops: 6, hand: true, mode: (*firstByteLab).dropEarlyAnswer},
		// An old accepter says hello only on the stream.
		{name: "old accepter", hops: 8, mode: (*firstByteLab).dropEarlyHellos},
		{name: "old dialer, relay and accepter", hops: 12, mode: func(f *firstByteLab) {
			f.leaveNoOffers()
			f.dropEarlyAnswer()
			f.dropEarlyHellos()
		}},
		{name: "forged early hellos", hops: 4, mode: func(f *firstByteLab) { f.forgeEarlyHellos(maxEarlyHellos - 1) }},
		{name: "only forged early hellos", hops: 8, mode: func(f *firstByteLab) {
			f.forgeEarlyHellos(2 * maxEarlyHellos)
			f.dropEarlyHellos()
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			runLab(t, func(l *lab) {
				l.net.Set(nettest.Conditions{Delay: hop})
				f := newFirstByteLab(l, test.tls)
				if !test.cold {
					f.warm(f.dialer)
					f.warm(f.accepter)
				}
				if test.mode != nil {
					test.mode(f)
				}
				l.net.Filter(func(p nettest.Packet) bool {
					return !slices.ContainsFunc(f.drop, func(drop func(nettest.Packet) bool) bool { return drop(p) })
				})
				dialed, arrived := f.run(test.hand)
				if want := time.Duration(test.hops) * hop; dialed != want || arrived != want+2*hop {
					l.Errorf("Dial returned after %v, and the first byte arrived after %v, want %v and %v", dialed, arrived, want, want+2*hop)
				}
			})
		})
	}
}

// firstByteLab is a dialer and an accepter, and what happens to packets between them.
type firstByteLab struct {
	*lab
	dialer, accepter *host
	from, to         netip.AddrPort // of the accepter and the dialer
	began            time.Time
	answered         time.Time // when the accepter first sent something for the dialer
	separate         bool      // an offer is not left with the registration
	holdsNothing     bool      // the relay does not hold what comes before a registration
	drop             []func(nettest.Packet) bool
}

func newFirstByteLab(l *lab, ownConfig bool) *firstByteLab {
	f := &firstByteLab{lab: l}
	configure := func(c *Config) {
		c.asOldRelay = f.asOldRelay
		if ownConfig {
			c.TLS = ownTLS(c.identityFor(l.T))
		}
	}
	f.dialer, f.accepter = l.host(configure), l.host(configure)
	f.from, f.to = f.accepter.conn.Public(), f.dialer.conn.Public()
	return f
}

// warm makes sure that a host has a control connection.
func (f *firstByteLab) warm(h *host) {
	client, err := h.relays.acquire(h.conf.Relay)
	if err == nil {
		_, err = client.current(f.Context())
	}
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { h.relays.release(client) })
}

// leaveNoOffers keeps the dialer from leaving its offer with the registration, which an
// old relay would ignore.
func (f *firstByteLab) leaveNoOffers() { f.separate = true }

// asOldRelay is the asOldRelay of both peers.
func (f *firstByteLab) asOldRelay(request *control.Register, reply *control.Registered) {
	switch {
	case reply == nil && f.separate:
		request.Offer = nil
	case reply != nil && f.holdsNothing:
		reply.Held = false
	}
}

// isAnswer says whether a packet is the accepter's, for the dialer.
func (f *firstByteLab) isAnswer(p nettest.Packet) bool {
	dst, err := wire.DstID(p.Data, cid.Len)
	return err == nil && p.From == f.from && cid.RoleOf(dst) == cid.Peer
}

// early says whether a packet is the accepter's, and was sent within a time after its
// first one for the dialer.
func (f *firstByteLab) early(p nettest.Packet, within time.Duration) bool {
	if !f.isAnswer(p) {
		return false
	}
	if f.answered.IsZero() {
		f.answered = time.Now()
	}
	return time.Since(f.answered) < within
}

// dropEarlyAnswer drops what the accepter sends before the relay has answered its
// registration, as an old relay does.
func (f *firstByteLab) dropEarlyAnswer() {
	f.holdsNothing = true
	f.drop = append(f.drop, func(p nettest.Packet) bool { return f.early(p, 2*hop) })
}

// dropEarlyHellos drops early hellos, as if the accepter were an old one.
func (f *firstByteLab) dropEarlyHellos() {
	f.drop = append(f.drop, func(p nettest.Packet) bool {
		return f.early(p, 3*hop) && len(p.Data) <= maxEarlyHello && p.Data[envelopeSize] == earlyHelloType
	})
}

// forgeEarlyHellos sends early hellos to the dialer, in the relay's name, which arrive
// before the answer.
func (f *firstByteLab) forgeEarlyHellos(n int) {
	f.drop = append(f.drop, func(p nettest.Packet) bool {
		if n == 0 || !f.isAnswer(p) {
			return false
		}
		dst, _ := wire.DstID(p.Data, cid.Len)
		forged := append(append([]byte{shortHeader}, dst...), earlyHelloType)
		forged = append(forged, hello{version: signalVersion, proof: make([]byte, 32)}.frame().payload...)
		for ; n > 0; n-- {
			go f.net.Inject(nettest.Packet{From: netip.MustParseAddrPort(relayAddr), To: f.to, Data: forged})
		}
		return false
	})
}

// run dials, and sends a byte. It returns when Dial returned, and when the accepter had
// the byte.
func (f *firstByteLab) run(hand bool) (dialed, arrived time.Duration) {
	offers, errs := make(chan Offer, 1), make(chan error, 1)
	conf := &DialConfig{Deliver: func(_ context.Context, o Offer) error { offers <- o; return nil }}
	accept := func() (*Conn, error) { return f.accepter.AcceptOffer(f.Context(), <-offers) }
	if !hand {
		conf = nil
		accept = func() (*Conn, error) { return f.accepter.Accept(f.Context()) }
	}
	go func() {
		c, err := accept()
		if err == nil {
			var s io.Reader
			if s, err = c.AcceptUniStream(f.Context()); err == nil {
				_, err = io.ReadFull(s, make([]byte, 1))
			}
		}
		arrived = time.Since(f.began)
		errs <- err
	}()
	time.Sleep(2 * time.Second) // until the accepter waits
	synctest.Wait()
	f.began = time.Now()
	c, err := f.dialer.Dial(f.Context(), f.accepter.ID(), conf)
	dialed = time.Since(f.began)
	if err == nil {
		var s io.Writer
		if s, err = c.OpenUniStreamSync(f.Context()); err == nil {
			_, err = s.Write([]byte{1})
		}
	}
	if err := errors.Join(err, <-errs); err != nil {
		f.Fatal(err)
	}
	return dialed, arrived
}
