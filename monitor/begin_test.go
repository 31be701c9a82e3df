package monitor

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
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
