package p2p

import (
	"net/netip"
	"testing"
	"time"

	"github.com/quicway/quicway/internal/test/nettest"
)

// TestPathDiesBeforeRelayPath checks that a connection gets a direct path again if its
// path dies before the relay path is validated, when quic-go cannot leave the path.
func TestPathDiesBeforeRelayPath(t *testing.T) {
	for _, who := range []string{"dialer", "accepter"} {
		t.Run(who, func(t *testing.T) {
			runLab(t, func(l *lab) {
				g := nettest.Gateway{Filtering: nettest.AddressPortDependent}
				g.Address = "203.0.113.1"
				left := l.behind(g)
				g.Address = "203.0.113.2"
				right := l.behind(g)
				a, b := l.connect(left.peer(nil), right.peer(nil))
				l.until(Direct, a, b)
				beat := l.beat(a, b)
				if who == "dialer" {
					left.lan.Forget()
				} else {
					right.lan.Forget()
				}
				time.Sleep(20 * time.Second)
				for _, c := range []*Conn{a, b} {
					if p := c.Path(); p.Kind != Direct {
						l.Errorf("path %+v", p)
					}
				}
				before := l.forwarded()
				l.exchange(a, b, 100_000)
				if n := l.forwarded() - before; n != 0 {
					l.Errorf("the relay has forwarded %d packets", n)
				}
				l.end(beat)
			})
		})
	}
}

// TestMigrationDuringRelayPath checks that a connection that migrates again while the
// relay path is being validated, and then ends, leaves nothing behind that Close would wait
// for.
func TestMigrationDuringRelayPath(t *testing.T) {
	runLab(t, func(l *lab) {
		a, b := l.connect(l.public().peer(nil), l.public().peer(nil))
		l.until(Direct, a, b)
		relay := netip.MustParseAddrPort(relayAddr)
		l.net.Filter(func(nettest.Packet) bool { return false })
		beat := l.beat(a, b)
		l.until(Relayed, a)
		l.net.Filter(func(p nettest.Packet) bool { return p.From != relay && p.To != relay })
		l.until(Direct, a)
		time.Sleep(100 * time.Millisecond)
		l.end(beat)
		l.net.Filter(nil)
	})
}
