package p2p

import (
	"context"
	"net/netip"
	"testing"
)

// TestLateAnswer: an answer that was overtaken by the news of another address does
// not bring the old one back.
func TestLateAnswer(t *testing.T) {
	a, b := netip.MustParseAddrPort("192.0.2.1:1"), netip.MustParseAddrPort("192.0.2.1:2")
	l := &line{}
	for i, told := range []struct {
		addr  netip.AddrPort
		sight uint64
		want  netip.AddrPort
	}{{a, 1, a}, {b, 2, b}, {a, 1, b}, {b, 2, b}, {a, 3, a}, {b, 2, a}} {
		l.observed(told.addr, told.sight)
		if got := l.address(); got != told.want {
			t.Errorf("step %d: we are at %v, want %v", i, got, told.want)
		}
	}
}

// TestLateRefresh: the same, with the answer to a leg's refresh.
func TestLateRefresh(t *testing.T) {
	runLab(t, func(l *lab) {
		a, _ := l.connect(l.host(nil), l.host(nil))
		ctx := context.Background()
		link, before := a.link, a.link.observed()
		ln, err := link.home.current(ctx)
		if err != nil {
			l.Fatal(err)
		}
		if err := link.home.registerOn(ctx, ln, link); err != nil || link.observed() != before {
			l.Fatalf("we are at %v, %v, want %v", link.observed(), err, before)
		}
		moved := netip.MustParseAddrPort("192.0.2.1:2")
		ln.observed(moved, 1<<32)
		if err := link.home.registerOn(ctx, ln, link); err != nil || link.observed() != moved {
			l.Errorf("after an old answer we are at %v, %v, want %v", link.observed(), err, moved)
		}
	})
}
