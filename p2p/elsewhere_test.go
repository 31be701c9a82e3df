package p2p

import (
	"bytes"
	"testing"
	"time"

	"github.com/quicway/quicway/internal/monotime"
	"github.com/quicway/quicway/internal/test/nettest"
	"github.com/quicway/quicway/internal/udp"
)

// TestAnswerGoesElsewhere checks that what quic-go sends while the relay that carries is silent goes
// also through another one, if packets have just come from there, and only then.
func TestAnswerGoesElsewhere(t *testing.T) {
	for _, test := range []struct {
		what          string
		silence, past time.Duration // of the relay that carries, and since the other one was heard
		want          int           // packets through the other one
	}{
		{"the peer has turned", followAfter, 0, 1},
		{"the relay that carries answers", 0, 0, 0},
		{"it was long ago", followAfter, 2 * followAfter, 0},
	} {
		t.Run(test.what, func(t *testing.T) {
			runFleet(t, 2, func(f *fleet) {
				_, b := f.pair()
				l := b.link
				other := l.routes.Load().others[0]
				packet := append(append([]byte{shortHeader}, l.peerID.Load()[:]...), "not of quic-go"...)
				sent := make(map[string]int)
				f.net.Filter(func(p nettest.Packet) bool {
					if bytes.Equal(p.Data, packet) {
						sent[p.To.String()]++
					}
					return true
				})
				now := time.Now()
				l.activity.received()
				l.activity.unanswered.Store(monotime.Of(now.Add(-test.silence)))
				l.heardElsewhere(other)
				l.elsewhere.heard.Store(monotime.Of(now.Add(-test.past)))
				if err := l.send(&udp.Message{Data: packet, Remote: l.relay}); err != nil {
					f.Fatal(err)
				}
				f.net.Filter(nil)
				if n, m := sent[l.remote().String()], sent[other.client.address().String()]; n != 1 || m != test.want {
					f.Errorf("%d packets through the relay that carries, and %d through the other one, want 1 and %d", n, m, test.want)
				}
			})
		})
	}
}
