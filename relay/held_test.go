package relay

import (
	"bytes"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/quicway/quicway/internal/control"
	"github.com/quicway/quicway/internal/test/nettest"
	"github.com/quicway/quicway/internal/udp"
)

// TestHeldPackets checks that packets of an accepter that is not registered yet are held,
// and go on when it is registered: those from its address, and only once.
func TestHeldPackets(t *testing.T) {
	runLab(t, nil, func(l *lab) {
		alice, bob := l.peer(), l.peer()
		session := control.NewSessionID()
		join := alice.mustRegister(session, control.Register{Key: alice.key}, l.server.Token()).Join
		stranger := netip.MustParseAddrPort("203.0.113.66:666")
		l.net.Inject(nettest.Packet{From: stranger, To: netip.MustParseAddrPort(relayAddr), Data: alice.packet(0, "forged")})
		first, second := alice.packet(0, "first"), alice.packet(0, "second")
		bob.send(first)
		bob.send(second)
		alice.want()
		l.dropped(DropNoPeer, 0)

		register := control.Register{Role: control.Accepter, Key: bob.key}
		if status, _ := bob.register(session, register, "no token"); status != http.StatusUnauthorized {
			l.Errorf("status %d", status)
		}
		alice.want()
		if bob.mustRegister(session, register, join).Held {
			l.Error("all were held, although one came from elsewhere")
		}
		if got := alice.arrived(); len(got) != 2 || bytes.Equal(got[0], got[1]) || !bytes.Contains(append(got[0], got[1]...), []byte("first")) {
			l.Errorf("arrived: %q", got) // the network keeps no order
		}
		l.dropped(DropNoPeer, 1)
		if bob.mustRegister(session, register, join).Held {
			l.Error("something was held before a refresh")
		}
		alice.want()
		if s := l.server.Stats(); s.ForwardedPackets != 2 || s.ForwardedBytes != uint64(len(first)+len(second)) {
			l.Errorf("forwarded %d packets, %d bytes", s.ForwardedPackets, s.ForwardedBytes)
		}
	})
}

// TestHeldPacketsAreBounded checks the limits on what is held for a leg: in number, size and time,
// and that nothing more is held for a leg when something was dropped.
func TestHeldPacketsAreBounded(t *testing.T) {
	runLab(t, nil, func(l *lab) {
		alice, bob, carol := l.peer(), l.peer(), l.peer()
		session := control.NewSessionID()
		join := alice.mustRegister(session, control.Register{Key: alice.key}, l.server.Token()).Join
		carol.mustRegister(control.NewSessionID(), control.Register{Key: carol.key}, l.server.Token())
		for i := range maxHeldEach + 3 {
			bob.send(alice.packet(0, fmt.Sprint(i)))
		}
		alice.want()
		l.dropped(DropNoPeer, 3)
		bob.send(carol.packet(0, strings.Repeat("x", maxHeldSize)))
		carol.want()
		l.dropped(DropNoPeer, 4)
		time.Sleep(heldFor + 2*sweepPeriod)
		l.dropped(DropNoPeer, maxHeldEach+4)
		if h := &l.server.held; h.packets+len(h.flights)+len(h.accounts) > 0 {
			l.Errorf("%d packets, %d flights and %d accounts are held for ever", h.packets, len(h.flights), len(h.accounts))
		}
		bob.send(alice.packet(0, "one more"))
		alice.want()
		l.dropped(DropNoPeer, maxHeldEach+5)
		if bob.mustRegister(session, control.Register{Role: control.Accepter, Key: bob.key}, join).Held {
			l.Error("all were held, although some were dropped")
		}
		alice.want()
	})
}

// TestHeldShares checks that the account that has most of what is held makes room for others,
// until they have as much, and that two accounts do not drop each other's packets in turns.
func TestHeldShares(t *testing.T) {
	var e env
	h, now := &e.held, time.Now()
	flight := &run{data: make([]byte, maxHeldEach*100), packets: maxHeldEach, message: &udp.Message{SegmentSize: 100}}
	var legs []*leg
	fill := func(account accountTag) {
		for range maxHeld/maxHeldEach + 1 {
			to := &newSession(&table{env: &e}, 0, control.NewSessionID(), account, nil).legs[control.Dialer]
			legs = append(legs, to)
			h.keep(flight, to, now)
		}
	}
	for _, step := range []struct {
		newcomer accountTag
		most     int // packets that an account has then
	}{
		{accountTag{1}, maxHeld}, {accountTag{2}, maxHeld / 2}, {accountTag{1}, maxHeld / 2}, {accountTag{3}, maxHeld/3 + maxHeldEach},
	} {
		fill(step.newcomer)
		for account, n := range h.accounts {
			if n > step.most {
				t.Errorf("account %d has %d packets after account %d came, want at most %d", account[0], n, step.newcomer[0], step.most)
			}
		}
		if h.packets != maxHeld {
			t.Errorf("%d packets are held, want %d", h.packets, maxHeld)
		}
	}
	refused, taken := 0, 0
	for _, to := range legs {
		if n := len(h.take(to)); n > 0 {
			taken += n
		} else if !to.overheld.Load() {
			t.Fatal("a packet was dropped, and the reply will not say so")
		} else {
			refused += maxHeldEach
		}
	}
	if dropped := e.counters.heldDropped.Load(); taken != maxHeld || dropped == 0 || int(dropped) > refused {
		t.Errorf("took %d packets, counted %d that were dropped of %d", taken, dropped, refused)
	}
	if h.packets+len(h.flights)+len(h.accounts) > 0 {
		t.Errorf("%d packets, %d flights and %d accounts are left", h.packets, len(h.flights), len(h.accounts))
	}
}

// TestAllHeld checks that the relay says so if it has held all, or there was nothing.
func TestAllHeld(t *testing.T) {
	for _, early := range []int{0, maxHeldEach} {
		runLab(t, nil, func(l *lab) {
			alice, bob := l.peer(), l.peer()
			session := control.NewSessionID()
			join := alice.mustRegister(session, control.Register{Key: alice.key}, l.server.Token()).Join
			for range early {
				bob.send(alice.packet(0, "early"))
			}
			alice.want()
			if !bob.mustRegister(session, control.Register{Role: control.Accepter, Key: bob.key}, join).Held {
				l.Errorf("of %d packets not all were held", early)
			}
			if got := len(alice.arrived()); got != early {
				l.Errorf("%d packets arrived, want %d", got, early)
			}
		})
	}
}
