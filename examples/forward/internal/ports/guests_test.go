package ports

import (
	"context"
	"testing"

	"github.com/quicway/quicway/p2p"
)

// TestGuests checks how many sessions there may be, and that no peer has more than its share.
func TestGuests(t *testing.T) {
	var g guests
	for i := range maxPeerSessions + 1 {
		if got, want := g.enter(p2p.PeerID{1}, nil), i < maxPeerSessions; got != want {
			t.Errorf("session %d: got %v", i, got)
		}
	}
	if !g.enter(p2p.PeerID{2}, nil) {
		t.Error("one peer keeps another out")
	}
	g.leave(p2p.PeerID{1}, nil)
	if !g.enter(p2p.PeerID{1}, nil) {
		t.Error("a session that has ended counts")
	}
	var other guests
	for i := range maxSessions + 1 {
		if got, want := other.enter(p2p.PeerID{byte(i), byte(i >> 8)}, nil), i < maxSessions; got != want {
			t.Errorf("peer %d: got %v", i, got)
		}
	}
}

// TestManyListeners checks at how many addresses a peer may listen.
func TestManyListeners(t *testing.T) {
	l := newLab(t)
	a, b := l.sessions(l.conf(), l.conf())
	spec := Spec{Network: "tcp", Listen: "127.0.0.1:0", Target: "127.0.0.1:9"}
	b.listeners.Store(maxListeners - 1)
	l.listenAtPeer(a, spec)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	err := a.ListenAtPeer(ctx, spec, func(string) { cancel() }) // must not be ready
	if err == nil || err.Error() != "the peer: too many listeners" {
		t.Errorf("got %v", err)
	}
}
