package quota

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/quicway/quicway/internal/nettest"
	"github.com/quicway/quicway/internal/quotatest"
	"github.com/quicway/quicway/internal/wire"
)

// attempt is the first Initial of one.
func attempt(id byte) []byte {
	d := quotatest.Datagram{Type: wire.Initial, ID: 12, Size: 1280}
	b := d.Build()
	b[6] = id
	return b
}

// TestUnprovenLeaveRoom: those who may turn out to be real count for the next one
// who has shown nothing either.
func TestUnprovenLeaveRoom(t *testing.T) {
	c := mustNew(t, &Config{Now: newFakeClock().now, RetrySource: -1, RetryHalfOpen: -1, Source: Limits{Connections: 3}})
	wantAdmit(t, c, "192.0.2.1:1", false, PassNew)
	wantAdmit(t, c, "192.0.2.1:2", true, PassNew)
	if c.WantsRetry(addr("192.0.2.1:3")) {
		t.Error("asked for a Retry with room for one")
	}
	wantAdmit(t, c, "192.0.2.1:3", false, PassNew)
	if !c.WantsRetry(addr("192.0.2.1:4")) {
		t.Error("not asked for a Retry without room")
	}
	wantAdmit(t, c, "192.0.2.1:4", false, HalfOpen)
	wantAdmit(t, c, "192.0.2.1:5", true, PassNew)
}

// TestRefusalsAreAnsweredOnce: each attempt once, and a few a second.
func TestRefusalsAreAnsweredOnce(t *testing.T) {
	clock := newFakeClock()
	c := mustNew(t, &Config{Now: clock.now, Source: Limits{Connections: 1}})
	f := &filter{c: c, idLen: 4}
	wantAdmit(t, c, "192.0.2.1:1", true, PassNew)
	judge := func(id byte, wantPass bool, want Reason) {
		t.Helper()
		if pass, why := f.judge(addr("192.0.2.1:2"), attempt(id), c.now()); pass != wantPass || why != want {
			t.Errorf("attempt %d: got pass %v, %v, want %v, %v", id, pass, why, wantPass, want)
		}
	}
	for id := range byte(10) {
		judge(id, true, Connections)
		judge(id, false, Repeated)
	}
	judge(10, false, Connections)
	clock.advance(time.Second)
	judge(11, true, Connections)
}

// TestExemptPass: what is exempt passes the filter beyond all limits.
func TestExemptPass(t *testing.T) {
	c := mustNew(t, &Config{
		Now: newFakeClock().now, Excess: Drop,
		Total:     Limits{Connections: 1, PacketRate: 0.001, PacketBurst: 3, AttemptRate: 0.001, AttemptBurst: 3},
		Overrides: []Override{{Prefix: netip.MustParsePrefix("192.0.2.1/32"), Exempt: true}},
	})
	wantAdmit(t, c, "192.0.2.2:1", true, PassNew)
	f := &filter{c: c, idLen: 4}
	for id := range byte(20) {
		if pass, why := f.judge(addr("192.0.2.1:1"), attempt(id), c.now()); !pass || why != PassNew {
			t.Fatalf("attempt %d: got pass %v, %v", id, pass, why)
		}
	}
	if pass, why := f.judge(addr("192.0.2.3:1"), attempt(1), c.now()); pass || why != TotalConnections {
		t.Errorf("another: got pass %v, %v", pass, why)
	}
}

// TestAllowedIsNotHeldToLimits: not even when its handshake is complete.
func TestAllowedIsNotHeldToLimits(t *testing.T) {
	nettest.Bubble(t, func(t *testing.T) {
		c := mustNew(t, &Config{AlwaysRetry: true, Source: Limits{Connections: 1}, Total: Limits{Connections: 1}})
		if err := c.Allow(netip.MustParsePrefix("192.0.2.1/32"), 0, ""); err != nil {
			t.Fatal(err)
		}
		for i := range 3 {
			if c.WantsRetry(addr("192.0.2.1:1")) {
				t.Error("asked for a Retry")
			}
			slot := wantAdmit(t, c, fmt.Sprintf("192.0.2.1:%d", 1+i), false, PassNew)
			if !slot.Established() {
				t.Error("no room when the handshake was complete")
			}
			defer slot.Release()
		}
	})
}

// TestDryRunEndsNothing: though an entry says so.
func TestDryRunEndsNothing(t *testing.T) {
	c := mustNew(t, &Config{DryRun: true})
	wantAdmit(t, c, "192.0.2.1:1", true, PassNew)
	p := netip.MustParsePrefix("192.0.2.1/32")
	if err := c.Add(Entry{List: DenyList, Prefix: p, End: true}); err != nil {
		t.Fatal(err)
	}
	if n := c.End(p); n != 1 {
		t.Errorf("%d were left to be ended, want 1", n)
	}
}

// TestDryRunServes: nobody is kept out, whatever is counted.
func TestDryRunServes(t *testing.T) {
	runLab(t, &Config{DryRun: true}, func(l *lab) {
		if err := l.c.Deny(netip.MustParsePrefix("198.51.100.1/32"), 0, ""); err != nil {
			t.Fatal(err)
		}
		if err := l.visit("198.51.100.1"); err != nil {
			t.Error(err)
		}
		if s := l.c.Stats(); s.Dropped[Denied] == 0 || s.Refused[Denied] != 1 {
			t.Errorf("counted %+v", s)
		}
	})
}

// TestDialFromProtected: a transport that also dials hears those it has dialed,
// though their addresses are over quota, and its IDs as long as those of clients.
func TestDialFromProtected(t *testing.T) {
	runLab(t, nil, func(l *lab) {
		c := mustNew(t, &Config{Excess: Drop, Source: Limits{Connections: 1}})
		slot := wantAdmit(t, c, serverAddr, true, PassNew)
		defer slot.Release()
		conn := l.net.Listen("198.51.100.1:1000")
		tr := &quic.Transport{Conn: conn, ConnectionIDLength: 12}
		if err := c.Protect(tr); err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		defer tr.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		out, err := tr.Dial(ctx, net.UDPAddrFromAddrPort(addr(serverAddr)), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h3"}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		out.CloseWithError(0, "")
	})
}

// TestEstablishedAtOnce: with a listener there is nothing to wait for.
func TestEstablishedAtOnce(t *testing.T) {
	runLab(t, nil, func(l *lab) {
		c := l.client("198.51.100.1")
		defer c.close()
		if _, err := c.dial(context.Background()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		wantLive(t, l.c, 1, 0)
	})
}

// TestSlotsAreFound: after any of them has gone.
func TestSlotsAreFound(t *testing.T) {
	c := mustNew(t, nil)
	var slots []*Slot
	for i := range 5 {
		slots = append(slots, wantAdmit(t, c, fmt.Sprintf("192.0.2.1:%d", 1+i), true, PassNew))
	}
	for _, i := range []int{2, 0, 4} {
		slots[i].Release()
	}
	if n := c.End(netip.MustParsePrefix("192.0.2.1/32")); n != 2 {
		t.Errorf("ended %d, want 2", n)
	}
}

// TestRefusingTellsNobody: the enforcer does not answer, so it is not told if there
// are to be answers.
func TestRefusingTellsNobody(t *testing.T) {
	clock := newFakeClock()
	c := mustNew(t, &Config{Now: clock.now, Source: Limits{Connections: 1}})
	r := newRecorder(clock)
	c.enforcer = r
	wantAdmit(t, c, "192.0.2.1:1", true, PassNew)
	wantAdmit(t, c, "192.0.2.1:2", true, Connections)
	if len(r.turned) > 0 {
		t.Errorf("told of %v", r.turned)
	}
}

func TestMasks(t *testing.T) {
	for _, tc := range []struct {
		v4, v6 int
		a, b   string
		same   bool
	}{
		{32, 64, "2001:db8::1", "2001:db8::8000:0:0:1", true},
		{32, 64, "2001:db8::1", "2001:db8:0:1::1", false},
		{32, 57, "2001:db8::1", "2001:db8:0:7f::1", true},
		{32, 57, "2001:db8::1", "2001:db8:0:80::1", false},
		{32, 128, "2001:db8::1", "2001:db8::2", false},
		{32, 64, "192.0.2.0", "192.0.2.1", false},
		{31, 64, "192.0.2.0", "192.0.2.1", true},
		{24, 64, "192.0.2.0", "192.0.2.255", true},
		{24, 64, "192.0.2.0", "192.0.3.0", false},
		{32, 64, "192.0.2.1", "::ffff:192.0.2.1", true},
		{32, 64, "::", "192.0.2.1", false},
	} {
		c := mustNew(t, &Config{IPv4Bits: tc.v4, IPv6Bits: tc.v6, Source: Limits{Connections: 1}})
		wantAdmit(t, c, netip.AddrPortFrom(netip.MustParseAddr(tc.a), 1).String(), true, PassNew)
		want := PassNew
		if tc.same {
			want = Connections
		}
		wantAdmit(t, c, netip.AddrPortFrom(netip.MustParseAddr(tc.b), 2).String(), true, want)
	}
}

// TestSitesAreForgotten: with their sources.
func TestSitesAreForgotten(t *testing.T) {
	clock := newFakeClock()
	c := mustNew(t, &Config{Now: clock.now, MaxSources: 100, Source: Limits{Connections: 1}})
	for i := range 1000 {
		c.WantsRetry(netip.AddrPortFrom(netip.AddrFrom16([16]byte{0x20, 1, 4: byte(i >> 8), 5: byte(i)}), 1))
		if s := c.Stats(); s.Sources+s.Sites > 100 || s.Sources == 0 {
			t.Fatalf("%d sources and %d sites, want some, and at most 100", s.Sources, s.Sites)
		}
		clock.advance(time.Millisecond)
	}
	wantAdmit(t, c, "[2001:db8::1]:1", true, PassNew)
	wantAdmit(t, c, "[2001:db8::1]:2", true, Connections)
}
