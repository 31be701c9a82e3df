package p2p

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/quicway/quicway/cid"
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
