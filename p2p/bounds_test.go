package p2p

import (
	"errors"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/control"
	"github.com/quicway/quicway/internal/tunnel"
	"github.com/quicway/quicway/internal/udp"
)

// TestAcceptQueueIsBounded checks that connections that nobody accepts are refused when the
// queue is full.
func TestAcceptQueueIsBounded(t *testing.T) {
	runLab(t, func(l *lab) {
		client, server := l.host(nil), l.host(nil)
		for i := range acceptQueue + 1 {
			offer, dialed := l.offer(client, server.ID())
			if err := server.mailbox.enqueue(offer); err != nil {
				l.Fatal(err)
			}
			result := <-dialed
			if i == acceptQueue {
				if err := result.ended(); !errors.Is(err, ErrPeerRefused) {
					l.Errorf("the connection that found no room has ended with %v, want %v", err, ErrPeerRefused)
				}
			} else if result.err != nil {
				l.Fatalf("dial %d: %v", i, result.err)
			}
		}
		if n := len(server.mailbox.accepted); n != acceptQueue {
			l.Errorf("%d connections wait to be accepted, want %d", n, acceptQueue)
		}
		if s := server.Stats(); s.Unaccepted != s.Limits.Unaccepted || s.Offers["connected"] != acceptQueue || s.Offers["not_accepted"] != 1 {
			l.Errorf("%d of %d wait; offers %v", s.Unaccepted, s.Limits.Unaccepted, s.Offers)
		}
	})
}

// ended waits until a connection has ended, if it ever began, and returns the reason.
func (r result) ended() error {
	if r.err != nil {
		return r.err
	}
	<-r.conn.Context().Done()
	return r.conn.Err()
}

// TestProbeQueueIsBounded checks that probes are dropped while the queue of the pathfinder
// is full.
func TestProbeQueueIsBounded(t *testing.T) {
	f := &pathfinder{probes: make(chan receivedProbe, probeQueue)}
	for i := range probeQueue + 10 {
		if got, want := f.receive([]byte{1}, netip.AddrPort{}), i < probeQueue; got != want {
			t.Fatalf("probe %d: received %v, want %v", i, got, want)
		}
	}
}

// TestLinkKeepsLatestIDs checks that a link receives packets for its latest connection IDs
// only, however many it makes.
func TestLinkKeepsLatestIDs(t *testing.T) {
	m := &mux{links: make(map[cid.ID]*link)}
	l := &link{mux: m}
	key := cid.NewKey()
	for counter := range uint64(3 * keptIDs) {
		l.generated(key.ID(cid.Peer, counter), counter)
	}
	if len(m.links) != keptIDs {
		t.Errorf("%d connection IDs lead to the link, want %d", len(m.links), keptIDs)
	}
	for counter := range uint64(3 * keptIDs) {
		if got, want := m.links[key.ID(cid.Peer, counter)] == l, counter >= 2*keptIDs; got != want {
			t.Errorf("ID %d leads to the link: %v, want %v", counter, got, want)
		}
	}
}

// TestUrgentLegsAreBounded checks that what a relay says about one leg, however often, has the
// relay asked about it once, and not any more when the leg has been given back.
func TestUrgentLegsAreBounded(t *testing.T) {
	e := &Endpoint{conf: &Config{Logger: slog.New(slog.DiscardHandler)}}
	c := &relayClient{endpoint: e}
	c.legs = newLegs(c)
	g := &leg{link: &link{session: control.NewSessionID()}, client: c}
	g.link.routes.Store(&routes{carrier: g})
	c.legs.add(g)
	say := func() {
		for range 1000 {
			c.handleEvent(nil, control.Event{Type: control.EventJoined, Session: g.link.session})
		}
	}
	say()
	if silent, urgent := c.legs.suspects(time.Now()); !silent || len(urgent) != 1 {
		t.Errorf("joined 1000 times: ask %v, about %d legs, want 1", silent, len(urgent))
	}
	if silent, urgent := c.legs.suspects(time.Now()); silent {
		t.Errorf("asked again, about %d legs", len(urgent))
	}
	say()
	c.legs.forget(g)
	if _, urgent := c.legs.suspects(time.Now()); len(urgent) != 0 {
		t.Error("a leg that was given back is registered again")
	}
}

// TestSendErrorsOfTunnels checks that a relay's client keeps no errors of tunnels that have ended.
func TestSendErrorsOfTunnels(t *testing.T) {
	runLab(t, func(l *lab) {
		x := l.host(nil)
		client, err := x.relays.acquire(l.relay())
		if err != nil {
			l.Fatal(err)
		}
		defer x.relays.release(client)
		for i := range uint64(3) {
			to := tunnel.Address(netip.MustParseAddrPort(relayAddr), i+1)
			if err := client.send(&udp.Message{Data: []byte{shortHeader}, Remote: to}); err != nil {
				l.Error(err)
			}
		}
		client.mu.Lock()
		defer client.mu.Unlock()
		if n := len(client.sendErrors); n != 0 {
			l.Errorf("%d errors are kept", n)
		}
	})
}

// TestEarlyHellosAreBounded checks that early hellos for which there is no room are not copied.
func TestEarlyHellosAreBounded(t *testing.T) {
	h := newEarlyHellos()
	b := make([]byte, maxEarlyHello)
	b[0], b[envelopeSize] = shortHeader, earlyHelloType
	run := &udp.Message{Data: b}
	for range maxEarlyHellos {
		h.catch(run)
	}
	if n := testing.AllocsPerRun(10, func() { h.catch(run) }); n != 0 || len(h.arrived) != maxEarlyHellos {
		t.Errorf("%v allocations, %d early hellos", n, len(h.arrived))
	}
}
