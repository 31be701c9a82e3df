package monitor

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/quicway/quicway/internal/test/wiretest"
	"github.com/quicway/quicway/internal/wire"
)

// zeroRTTOf returns a 0-RTT packet.
func zeroRTTOf(tb testing.TB, dst, src []byte) []byte {
	tb.Helper()
	first, _ := wiretest.FirstByte(wire.Version1, wire.ZeroRTT, 0)
	h := wire.Header{Type: wire.ZeroRTT, First: first, Version: wire.Version1, DstID: dst, SrcID: src}
	packet, err := wiretest.AppendLong(nil, &h, bytes.Repeat([]byte{7}, 300))
	if err != nil {
		tb.Fatal(err)
	}
	return packet
}

// TestZeroRTTFirst checks that 0-RTT that arrives before the Initial belongs to the
// same connection, whether the client has an ID or not.
func TestZeroRTTFirst(t *testing.T) {
	for name, src := range map[string][]byte{"an ID": cliID, "no ID": nil} {
		id := []byte("original")
		tracker := newTracker(t, nil)
		track(tracker, []sent{
			at(0, clientAddr, serverAddr, zeroRTTOf(t, id, src)),
			at(1, clientAddr, serverAddr, initialOf(t, id, src, 0, cryptoFrame(0, helloOf("early.example")))),
			at(2, clientAddr, serverAddr, zeroRTTOf(t, id, src)),
		})
		all := connections(tracker)
		if len(all) != 1 {
			t.Errorf("client with %s: got %d connections, want 1", name, len(all))
			continue
		}
		c := all[0]
		if c.Confidence != Proven || c.ZeroRTT != 2 || c.ServerName != "early.example" || c.OriginalID != "6f726967696e616c" || c.Paths[0].Client.String() != clientAddr {
			t.Errorf("client with %s: got %v, %d packets of 0-RTT, %+v, ID %s", name, c.Confidence, c.ZeroRTT, c.TLS, c.OriginalID)
		}
	}
}

// TestScatteredHello checks that a ClientHello in ten datagrams is read in any
// order.
func TestScatteredHello(t *testing.T) {
	const datagrams = 10
	hello := helloWith(serverNameOf("scattered.example"), extension(0xff77, make([]byte, 9000)))
	for seed := range uint64(20) {
		order := rand.New(rand.NewPCG(seed, 1)).Perm(datagrams)
		tracker := newTracker(t, nil)
		id := []byte("original")
		for i, n := range order {
			size := len(hello)/datagrams + 1
			piece := hello[n*size : min((n+1)*size, len(hello))]
			tracker.Packet(frame(at(i, clientAddr, serverAddr, initialOf(t, id, nil, byte(n), cryptoFrame(n*size, piece)))))
		}
		if c := only(t, tracker); c.ServerName != "scattered.example" || c.FromClient.Packets != datagrams {
			t.Fatalf("order %v: got %q in %d packets", order, c.ServerName, c.FromClient.Packets)
		}
	}
}

// sentBy returns the datagrams of one sender.
func sentBy(all []sent, from string) []sent {
	return slices.DeleteFunc(slices.Clone(all), func(s sent) bool { return s.from.String() != from })
}

// TestOneSide checks that the packets of one side are enough to find a connection
// and its roles.
func TestOneSide(t *testing.T) {
	all := play(t, nil, false, func(s *scene) { s.exchange(s.dial(nil), 50000) })
	for from, want := range map[string]Confidence{clientAddr: Proven, serverAddr: HandshakeShaped} {
		half := sentBy(all, from)
		tracker := newTracker(t, nil)
		track(tracker, half)
		c := only(t, tracker)
		if c.Confidence != want || c.Version != Version(wire.Version1) || c.Paths[0].Client.String() != clientAddr {
			t.Errorf("from %s: got %v %v, paths %v", from, c.Confidence, c.Version, c.Paths)
		}
		if got := c.FromClient.Packets + c.FromServer.Packets; got != uint64(len(half)) {
			t.Errorf("from %s: got %d packets, want %d", from, got, len(half))
		}
	}
}

// TestBeginsWithinHandshake checks a capture without the client's first flight and
// the IDs in it.
func TestBeginsWithinHandshake(t *testing.T) {
	all := play(t, nil, false, func(s *scene) {
		conn := s.dial(nil)
		s.exchange(conn, 12<<20) // enough to change IDs
	})
	late := all[slices.IndexFunc(all, func(s sent) bool { return s.from.String() == serverAddr }):]
	tracker := newTracker(t, nil)
	track(tracker, late)
	c := only(t, tracker)
	if got := c.FromClient.Packets + c.FromServer.Packets; c.Paths[0].Client.String() != clientAddr || got != uint64(len(late)) {
		t.Errorf("got %d packets on %v, want %d", got, c.Paths, len(late))
	}
	if c.Rotations == 0 || c.Handshake != (HandshakeRTT{}) {
		t.Errorf("got %d rotations, and handshake %v, want some and none", c.Rotations, c.Handshake)
	}
}

// TestNoTime checks packets without a time, or with the time 0.
func TestNoTime(t *testing.T) {
	for name, move := range map[string]func(i int, at time.Time) time.Time{
		"none":      func(int, time.Time) time.Time { return time.Time{} },
		"the epoch": func(int, time.Time) time.Time { return time.Unix(0, 0) },
		"every second": func(i int, at time.Time) time.Time {
			if i%2 == 1 {
				return time.Time{}
			}
			return at
		},
	} {
		all := establishedConn(t)
		idle := establishedBy(t, "192.0.2.200:1", []byte("idle-id1"), []byte("idle"))
		tracker := newTracker(t, nil)
		for i, s := range append(idle, all...) {
			s.at = move(i, s.at)
			tracker.Packet(frame(s))
		}
		conns := connections(tracker)
		if len(conns) != 2 {
			t.Errorf("times are %s: got %d connections, want 2", name, len(conns))
			continue
		}
		for _, c := range conns {
			if got := c.FromClient.Packets + c.FromServer.Packets; got != uint64(len(all)) {
				t.Errorf("times are %s: got %d packets, want %d", name, got, len(all))
			}
		}
		if s := tracker.Stats(); s.Bogus != 0 {
			t.Errorf("times are %s: got %d bogus", name, s.Bogus)
		}
	}
}

// attemptOf returns a handshake of a client with an ID for each side: its Initial, the server's answer, and the
// client's.
func attemptOf(tb testing.TB, ms int, orig, client, server, name string) []sent {
	ack := []byte{0x02, 0, 0, 0, 0}
	o, c, s := []byte(orig), []byte(client), []byte(server)
	return []sent{
		at(ms, clientAddr, serverAddr, initialOf(tb, o, c, 0, cryptoFrame(0, helloOf(name)))),
		at(ms+30, serverAddr, clientAddr, sealed(tb, wire.Version1, wire.Server, o, c, s, 0, append(ack, cryptoFrame(0, serverHelloOf())...))),
		at(ms+40, clientAddr, serverAddr, sealed(tb, wire.Version1, wire.Client, o, s, c, 1, ack)),
	}
}

// TestAttemptsAlike checks that two connections between the same endpoints are told apart in their handshakes,
// though the client has the same ID in both, or none.
func TestAttemptsAlike(t *testing.T) {
	for name, client := range map[string]string{"an ID": "cli1", "no ID": ""} {
		first, second := attemptOf(t, 0, "original", client, "server-1", "a.example"), attemptOf(t, 3000, "origina2", client, "server-2", "b.example")
		for what, n := range map[string][2]int{"answered": {3, 3}, "the first one is not": {1, 3}, "the second one is not": {3, 1}} {
			tracker := newTracker(t, nil)
			track(tracker, slices.Concat(first[:n[0]], second[:n[1]]))
			got := map[string]Connection{}
			for _, c := range connections(tracker) {
				got[c.ServerName] = c
			}
			want := HandshakeRTT{ServerSide: Milliseconds(30 * time.Millisecond), ClientSide: Milliseconds(10 * time.Millisecond)}
			for server, n := range map[string]int{"a.example": n[0], "b.example": n[1]} {
				c := got[server]
				if len(got) != 2 || c.FromClient.Packets+c.FromServer.Packets != uint64(n) || n == 3 && (c.Handshake != want || c.Cipher == "") {
					t.Errorf("client with %s, %s: got %d connections, %q with %v, %v and %v, want %d packets", name, what, len(got), server, c.FromClient, c.FromServer, c.Handshake, n)
				}
			}
			if s := tracker.Stats(); s.Unopened != 0 {
				t.Errorf("client with %s, %s: %d Initials were not opened", name, what, s.Unopened)
			}
		}
	}
}

// TestLateAttempt checks that the server's answer is read though an Initial of an attempt before the Retry comes
// after those that follow the Retry, and that a Retry need not be captured.
func TestLateAttempt(t *testing.T) {
	all := play(t, nil, true, func(s *scene) { s.exchange(s.dial(nil), 100) })
	retry := slices.IndexFunc(all, func(s sent) bool { return s.from.String() == serverAddr })
	answer := retry + 1 + slices.IndexFunc(all[retry+1:], func(s sent) bool { return s.from.String() == serverAddr })
	for name, all := range map[string][]sent{
		"late":         slices.Insert(slices.Clone(all), answer, sent{all[answer].at, all[0].from, all[0].to, all[0].data, 0}),
		"not captured": slices.Delete(slices.Clone(all), retry, retry+1),
	} {
		tracker := newTracker(t, nil)
		track(tracker, all)
		if c := only(t, tracker); c.Cipher == "" || c.ServerName != serverName || len(c.OriginalIDs) < 2 {
			t.Errorf("%s: got %+v, IDs %v", name, c.TLS, c.OriginalIDs)
		}
		if s := tracker.Stats(); s.Unopened != 0 {
			t.Errorf("%s: %d Initials were not opened", name, s.Unopened)
		}
	}
}

// TestNegotiatedWithSameID checks a client that keeps its own ID after a Version Negotiation, and takes another
// one for the server.
func TestNegotiatedWithSameID(t *testing.T) {
	orig, client := []byte("original"), []byte("cli1")
	first := initialOf(t, orig, client, 0, cryptoFrame(0, helloOf("again.example")))
	copy(first[1:], "\x2a\x2a\x2a\x2a") // a version that no server has
	negotiation := slices.Concat([]byte{0xc0, 0, 0, 0, 0, 4}, client, []byte{8}, orig, []byte{0, 0, 0, 1})
	all := []sent{at(0, clientAddr, serverAddr, first), at(20, serverAddr, clientAddr, negotiation)}
	tracker := newTracker(t, nil)
	track(tracker, append(all, attemptOf(t, 100, "origina2", "cli1", "server-1", "again.example")...))
	c := only(t, tracker)
	want := HandshakeRTT{ServerSide: Milliseconds(30 * time.Millisecond), ClientSide: Milliseconds(10 * time.Millisecond)}
	if c.Version != Version(wire.Version1) || c.Negotiations != 1 || c.Handshake != want || c.ServerName != "again.example" || c.Cipher == "" {
		t.Errorf("got %v, %d negotiations, %v, %+v", c.Version, c.Negotiations, c.Handshake, c.TLS)
	}
}

// TestAnswerFirst checks that a server's answer, or its Retry, that comes before the Initial that it answers, or
// without it, begins no connection of its own.
func TestAnswerFirst(t *testing.T) {
	plain := play(t, nil, false, func(s *scene) { s.exchange(s.dial(nil), 100) })
	retried := play(t, nil, true, func(s *scene) { s.exchange(s.dial(nil), 100) })
	retry := func(ms int) sent { // of a client without an ID
		return at(ms, serverAddr, clientAddr, append([]byte("\xf0\x00\x00\x00\x01\x00\x08retried1token"), make([]byte, 16)...))
	}
	isServer := func(s sent) bool { return s.from.String() == serverAddr }
	for name, test := range map[string]struct {
		all  []sent
		read bool // the ClientHello
	}{
		"an answer first":          {moveFirst(plain, slices.IndexFunc(plain, isServer)), true},
		"a Retry first":            {moveFirst(retried, slices.IndexFunc(retried, isServer)), true},
		"a Retry alone":            {retried[slices.IndexFunc(retried, isServer):], true},
		"a Retry once more, late":  {slices.Insert(slices.Clone(retried), len(retried)-2, retried[slices.IndexFunc(retried, isServer)]), true},
		"the second attempt first": {moveFirst(retried, slices.IndexFunc(retried, isServer)+1), true},
		"a Retry again, no ID":     {slices.Concat([]sent{retry(0)}, attemptOf(t, 10, "retried1", "", "server-1", serverName), []sent{retry(500)}), true},
		"an answer alone":          {plain[slices.IndexFunc(plain, isServer):], false},
	} {
		for _, swapped := range []bool{false, true} { // the ports, which make the monitor guess the roles wrongly
			t.Run(fmt.Sprintf("%s, %v", name, swapped), func(t *testing.T) {
				all := slices.Clone(test.all)
				for i := range all {
					if swapped {
						all[i].from, all[i].to = portSwapped(all[i].from), portSwapped(all[i].to)
					}
				}
				tracker := newTracker(t, nil)
				track(tracker, all)
				c := only(t, tracker)
				if test.read && (c.ServerName != serverName || c.Confidence != Proven || c.Paths[0].Client.Addr().String() != "192.0.2.1") {
					t.Errorf("got %v %q from %v", c.Confidence, c.ServerName, c.Paths[0].Client)
				}
				if got := c.FromClient.Packets + c.FromServer.Packets; got != uint64(len(all)) {
					t.Errorf("got %d packets, want %d", got, len(all))
				}
			})
		}
	}
}

// moveFirst returns the datagrams with datagram i first.
func moveFirst(all []sent, i int) []sent {
	out := slices.Concat(all[i:i+1], all[:i], all[i+1:])
	for j := range out[:i+1] {
		out[j].at = all[j].at
	}
	return out
}

// portSwapped returns an address with the port of the other end.
func portSwapped(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr(), 443+50000-a.Port())
}

// TestClockSetBack checks that nothing is negative if the clock is set back while a connection is open.
func TestClockSetBack(t *testing.T) {
	for i := range 20 {
		all := withSpin(establishedConn(t))
		for j := range all[i+1:] {
			all[i+1+j].at = all[i+1+j].at.Add(-time.Hour)
		}
		tracker := newTracker(t, nil)
		track(tracker, all)
		c := only(t, tracker)
		if c.Duration < 0 || c.Last.Before(c.First) || c.Paths[0].Last.Before(c.Paths[0].First) {
			t.Errorf("after packet %d: got %v from %v to %v", i, c.Duration, c.First, c.Last)
		}
		if r := c.Paths[0].RTT; min(c.Handshake.ClientSide, c.Handshake.ServerSide, r.Min, r.Jitter, c.Paths[0].SpinServerSide, c.Paths[0].SpinClientSide) < 0 {
			t.Errorf("after packet %d: got %+v and %+v", i, c.Handshake, c.Paths[0])
		}
		for _, e := range tracker.take() {
			if e.RTT < 0 || e.Connection.Duration < 0 {
				t.Errorf("after packet %d: %v of %v after %v", i, e.Kind, e.RTT, e.Connection.Duration)
			}
		}
	}
}

// TestFitTogether checks which long headers that do not open are accepted as a
// connection.
func TestFitTogether(t *testing.T) {
	handshake := handshakeOf(t, wire.Version1, cliID, oldID)
	greased, other, brief := bytes.Clone(handshake), bytes.Clone(handshake), bytes.Clone(handshake)
	greased[0] &^= fixedBit
	other[4] = 2
	brief = brief[:len(brief)-200]
	binary.BigEndian.PutUint16(brief[len(brief)-2:], 0x4000|minNumbered-1)
	brief = append(brief, make([]byte, minNumbered-1)...)
	short := append([]byte{0x41}, make([]byte, 40)...)
	for name, test := range map[string]struct {
		packets [][]byte
		want    bool
	}{
		"one":                   {[][]byte{handshake}, true},
		"two":                   {[][]byte{handshake, handshake}, true},
		"and a short header":    {[][]byte{handshake, short}, true},
		"one and noise":         {[][]byte{handshake, {0xff, 0xff, 0xff}}, false},
		"two of other versions": {[][]byte{handshake, other}, false},
		"another ID":            {[][]byte{handshake, handshakeOf(t, wire.Version1, cliNo, oldID)}, false},
		"no IDs":                {[][]byte{handshakeOf(t, wire.Version1, nil, nil)}, false},
		"the fixed bit not set": {[][]byte{greased}, false},
		"no room for a tag":     {[][]byte{brief}, false},
		"cut":                   {[][]byte{handshake[:len(handshake)-1]}, false},
		"one too many":          {slices.Repeat([][]byte{handshake}, maxCoalesced+1), false},
	} {
		b := slices.Concat(test.packets...)
		if _, got := fitTogether(&arrival{payload: b, length: len(b)}, wire.Version1, wire.DialectV1); got != test.want {
			t.Errorf("%s: got %v, want %v", name, got, test.want)
		}
	}
}
