package p2p

import (
	"testing"
	"time"

	"github.com/quicway/quicway/cid"
)

// TestIDsDuringRegistration checks that a leg can be registered while quic-go makes connection
// IDs: the generator calls the link, and the link asks the generator.
func TestIDsDuringRegistration(t *testing.T) {
	l := &link{mux: &mux{links: make(map[cid.ID]*link)}, key: cid.NewKey()}
	l.ids = cid.NewGenerator(l.key, cid.Peer, l.generated)
	leg := &leg{link: l}
	const rounds = 20_000
	done := make(chan struct{}, 2)
	go func() {
		for range rounds {
			if _, err := l.ids.GenerateConnectionID(); err != nil {
				t.Error(err)
			}
		}
		done <- struct{}{}
	}()
	go func() {
		for range rounds {
			leg.registration()
		}
		done <- struct{}{}
	}()
	for range 2 {
		select {
		case <-done:
		case <-time.After(time.Minute):
			t.Fatal("link and generator wait for each other")
		}
	}
}
