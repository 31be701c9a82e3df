package monitor

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quicway/quicway/internal/datapath"
	"github.com/quicway/quicway/internal/wire"
)

// feed adds n packets at intervals of gap. value returns the spin bit of each.
func feed(s *spin, n int, gap time.Duration, value func(i int) bool) {
	for i := range n {
		s.add(int64(time.Duration(i+1)*gap), value(i), 0)
	}
}

// TestSpin checks the filters of RFC 9312 §3.8.2.
func TestSpin(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	const gap = 5 * time.Millisecond
	for name, test := range map[string]struct {
		value func(i int) bool
		want  time.Duration
	}{
		"spins":                    {func(i int) bool { return i/10%2 == 1 }, 10 * gap},
		"is always 0":              {func(int) bool { return false }, 0},
		"is always 1":              {func(int) bool { return true }, 0},
		"is drawn for each packet": {func(int) bool { return rng.IntN(2) == 1 }, 0},
		"is out of order once":     {func(i int) bool { return (i/10%2 == 1) != (i == 62) }, 10 * gap},
	} {
		var s spin
		feed(&s, 200, gap, test.value)
		got := s.rtt()
		if low, high := test.want*4/5, test.want*6/5; got < low || got > high {
			t.Errorf("%s: got %v, want %v", name, got, test.want)
		}
	}
}

// TestSpinHalves checks the halves of the round trip by the spin bit.
func TestSpinHalves(t *testing.T) {
	const toServer, toClient = 30 * time.Millisecond, 10 * time.Millisecond
	tracker := newTracker(t, nil)
	for _, s := range shorts(t, tracker, 1) {
		const period = toServer + toClient
		begin := s.at
		other := sent{at: s.at, from: s.to, to: s.from, data: append([]byte{0x40}, make([]byte, 60)...)}
		for i := range 200 {
			now := time.Duration(i) * time.Millisecond
			up, down := other, s
			up.at, down.at = begin.Add(now), begin.Add(now)
			up.data, down.data = append([]byte(nil), up.data...), append([]byte(nil), down.data...)
			if now/period%2 == 1 {
				up.data[0] |= spinBit
			}
			if (now+period-toServer)/period%2 == 0 { // the bit that the client has sent toServer ago
				down.data[0] |= spinBit
			}
			tracker.Packet(frame(up))
			tracker.Packet(frame(down))
		}
	}
	c := only(t, tracker)
	p := c.Paths[0]
	if got, want := p.SpinRTT.Duration(), toServer+toClient; got != want {
		t.Errorf("got a round trip of %v, want %v", got, want)
	}
	if p.SpinServerSide.Duration() != toServer || p.SpinClientSide.Duration() != toClient {
		t.Errorf("got halves %v and %v, want %v and %v", p.SpinServerSide, p.SpinClientSide, toServer, toClient)
	}
}

// TestSpinEvents checks that round trips by the spin bit are reported once a
// second.
func TestSpinEvents(t *testing.T) {
	tracker := newTracker(t, nil)
	s := shorts(t, tracker, 1)[0]
	tracker.take()
	const seconds = 5
	for i := range seconds * 1000 {
		s.at = s.at.Add(time.Millisecond)
		s.data[0] = 0x40
		if i/20%2 == 1 {
			s.data[0] |= spinBit
		}
		tracker.Packet(frame(s))
	}
	told := 0
	for _, e := range tracker.take() {
		if e.Kind != EventRTT || e.RTT.Duration() != 20*time.Millisecond {
			t.Errorf("got %v of %v", e.Kind, e.RTT)
		}
		told++
	}
	if told < seconds-1 || told > seconds {
		t.Errorf("got %d round trips in %d seconds, want one in each", told, seconds)
	}
}

// TestSpinOfOneEnd checks that there is no round trip if only one end changes the value.
func TestSpinOfOneEnd(t *testing.T) {
	const gap = 50 * time.Millisecond
	p := &path{clientIsA: true}
	for i := range 60 {
		now := int64(time.Duration(i+1) * gap)
		p.addSpin(now, wire.Client, byte(0x40|i/10%2*spinBit), nil)
		if p.addSpin(now, wire.Server, 0x40, nil); i > 40 && p.spinRTT() != 0 {
			t.Fatalf("packet %d: got %v, want none", i, p.spinRTT())
		}
	}
	for i := range 60 { // and the server spins after all
		now := int64(time.Duration(i+61) * gap)
		p.addSpin(now, wire.Client, byte(0x40|i/10%2*spinBit), nil)
		p.addSpin(now, wire.Server, byte(0x40|i/10%2*spinBit), nil)
	}
	if p.spinRTT() == 0 {
		t.Error("got no round trip of two ends that spin")
	}
}

// spun is a packet with a connection ID and a value of the spin bit. The ID says which end has sent it.
type spun struct {
	ms    int
	id    string
	value byte
}

// spunBy returns the packets of an established connection, and further ones.
func spunBy(tb testing.TB, packets []spun) []sent {
	all := addShorts(establishedConn(tb), 1, shortHeaders{clientAddr, serverAddr, oldID, 300})
	began := all[len(all)-1].at
	for _, p := range packets {
		s := sent{at: began.Add(time.Duration(p.ms) * time.Millisecond), from: all[0].to, to: all[0].from}
		if strings.HasPrefix(p.id, "srv") {
			s.from, s.to = s.to, s.from
		}
		s.data = append(append([]byte{0x40 | p.value*spinBit}, p.id...), make([]byte, 60)...)
		all = append(all, s)
	}
	return all
}

// TestSpinOfChangedID checks that the reset of the value with a new connection ID is no edge (RFC
// 9000 §17.4), and that an edge that comes with a new ID is one.
func TestSpinOfChangedID(t *testing.T) {
	const want = 240 * time.Millisecond
	for name, test := range map[string]struct {
		packets []spun
		want    time.Duration
	}{
		"from 1":                     {[]spun{{100, "cli1", 1}, {117, "cli2", 0}, {260, "cli2", 0}, {340, "cli2", 1}}, want},
		"from 1, then an edge":       {[]spun{{100, "cli1", 1}, {117, "cli2", 0}, {340, "cli2", 1}}, want},
		"from 0":                     {[]spun{{100, "cli1", 1}, {340, "cli1", 0}, {350, "cli2", 0}, {351, "cli2", 0}}, want},
		"and an old ID again":        {[]spun{{100, "cli1", 1}, {117, "cli2", 0}, {118, "cli1", 1}, {119, "cli2", 0}, {340, "cli2", 1}}, want},
		"twice":                      {[]spun{{100, "cli1", 1}, {117, "cli2", 0}, {118, "cli2", 0}, {119, "cli3", 0}, {340, "cli3", 1}}, want},
		"and no edge":                {[]spun{{100, "cli1", 1}, {117, "cli2", 0}, {340, "cli2", 0}}, 0},
		"of the other end":           {[]spun{{100, "cli1", 1}, {110, "srv-id-2", 0}, {340, "cli1", 0}}, want},
		"with the first edge":        {[]spun{{100, "cli2", 1}, {340, "cli2", 0}}, want},
		"with an edge":               {[]spun{{100, "cli1", 1}, {200, "srv-id-1", 1}, {340, "cli2", 0}}, want},
		"of both ends, with an edge": {[]spun{{100, "cli1", 1}, {200, "srv-id-2", 1}, {340, "cli2", 0}}, want},
	} {
		tracker := newTracker(t, nil)
		track(tracker, spunBy(t, test.packets))
		if got := only(t, tracker).SpinRTT.Duration(); got != test.want {
			t.Errorf("%s: got %v, want %v", name, got, test.want)
		}
	}
}

// TestSpinDrawnForEachID checks that there is no round trip if an end does not spin, and draws a value for
// each of its peer's connection IDs (RFC 9000 §17.4), whatever the other end does.
func TestSpinDrawnForEachID(t *testing.T) {
	const lifetime, rtt = 50, 10 // of an ID and of a round trip, in packets
	drawn := func(i int) byte { return "0101101001"[i/lifetime%10] - '0' }
	other := func(i int) byte { return "1001011010"[i/lifetime%10] - '0' }
	spins := func(i int) byte { return byte(i / rtt % 2) }
	for name, test := range map[string]struct {
		client, server func(i int) byte
		want           bool
	}{
		"both draw":                    {drawn, other, false},
		"the client inverts the drawn": {func(i int) byte { return 1 - drawn(max(i-rtt/2, 0)) }, drawn, false},
		"the server returns the drawn": {drawn, func(i int) byte { return drawn(max(i-rtt/2, 0)) }, false},
		"both spin":                    {spins, spins, true},
	} {
		var all []spun
		for i := range 10 * lifetime {
			n := byte('0' + i/lifetime)
			all = append(all, spun{10*i + 100, "srv-id-" + string(n), test.client(i)}, spun{10*i + 103, "cli" + string(n), test.server(i)})
		}
		tracker := newTracker(t, nil)
		track(tracker, spunBy(t, all))
		if c := only(t, tracker); (c.SpinRTT != 0) != test.want || c.Rotations < 9 {
			t.Errorf("%s: got %v after %d changes of ID, want one: %v", name, c.SpinRTT, c.Rotations, test.want)
		}
		events := slices.DeleteFunc(tracker.take(), func(e Event) bool { return e.Kind != EventRTT })
		if name == "both draw" && len(events) != 1 { // that of the handshake
			t.Errorf("%s: got %d events of round trips, want 1", name, len(events))
		}
	}
}

// TestHalvesWithZeroRTT checks that 0-RTT packets neither begin nor end a half of the round trip.
func TestHalvesWithZeroRTT(t *testing.T) {
	first, client, server, ack := []byte("original"), []byte("cl"), []byte("serverID"), []byte{0x02, 0, 0, 0, 0}
	all := []sent{
		at(0, clientAddr, serverAddr, zeroRTTOf(t, first, client)),
		at(100, clientAddr, serverAddr, initialOf(t, first, client, 0, cryptoFrame(0, helloOf("early.example")))),
		at(130, serverAddr, clientAddr, sealed(t, wire.Version1, wire.Server, first, client, server, 0, ack)),
		at(131, clientAddr, serverAddr, zeroRTTOf(t, first, client)),
		at(140, clientAddr, serverAddr, sealed(t, wire.Version1, wire.Client, first, server, client, 1, ack)),
	}
	tracker := newTracker(t, nil)
	track(tracker, all)
	want := HandshakeRTT{ServerSide: Milliseconds(30 * time.Millisecond), ClientSide: Milliseconds(10 * time.Millisecond)}
	if got := only(t, tracker).Handshake; got != want {
		t.Errorf("got %v, want %v", got, want)
	}
}

// TestHalvesWithUnanswered checks that an Initial that the client has sent before it got the server's answer
// does not end a half of the round trip, though it comes after the answer.
func TestHalvesWithUnanswered(t *testing.T) {
	orig, client, server, ack := []byte("original"), []byte("cl"), []byte("serverID"), []byte{0x02, 0, 0, 0, 0}
	hello := helloOf("late.example")
	answer := at(30, serverAddr, clientAddr, sealed(t, wire.Version1, wire.Server, orig, client, server, 0, ack))
	acked := at(40, clientAddr, serverAddr, sealed(t, wire.Version1, wire.Client, orig, server, client, 9, ack))
	initial := func(ms int, offset, end int) sent {
		return at(ms, clientAddr, serverAddr, initialOf(t, orig, client, byte(ms), cryptoFrame(offset, hello[offset:end])))
	}
	toServer := at(40, clientAddr, serverAddr, sealed(t, wire.Version1, wire.Client, orig, server, client, 1, cryptoFrame(40, hello[40:])))
	ping := at(33, clientAddr, serverAddr, initialOf(t, orig, client, 33, []byte{0x01}))
	for name, all := range map[string][]sent{
		"the same once more":        {initial(0, 0, len(hello)), answer, initial(31, 0, len(hello)), acked},
		"the rest of a ClientHello": {initial(0, 0, 40), answer, initial(31, 40, len(hello)), acked},
		"a probe":                   {initial(0, 0, len(hello)), answer, ping, acked},
		"the rest to the server's":  {initial(0, 0, 40), answer, toServer}, // ID, which was in the answer
	} {
		tracker := newTracker(t, nil)
		track(tracker, all)
		c := only(t, tracker)
		want := HandshakeRTT{ServerSide: Milliseconds(30 * time.Millisecond), ClientSide: Milliseconds(10 * time.Millisecond)}
		if c.Handshake != want || c.ServerName != "late.example" {
			t.Errorf("%s: got %v of %q, want %v", name, c.Handshake, c.ServerName, want)
		}
	}
}

// TestKernelSpinOfOneEnd checks the same of the state that the kernel has counted: there is no event.
func TestKernelSpinOfOneEnd(t *testing.T) {
	for _, test := range []struct {
		name                string
		serverEdges, withID uint32 // withID: of the client's, those with another connection ID
		want                bool
	}{{"both ends", 6, 0, true}, {"one end", 0, 0, false}, {"drawn for each ID", 6, 6, false}} {
		tracker := newTracker(t, nil)
		track(tracker, establishedConn(t))
		tracker.take()
		o := &offload{events: &tracker.events}
		for e := range tracker.index.connections.all() {
			p := e.value.active
			p.sent[wire.Server].spin = spin{packets: 40, edges: test.serverEdges, started: true}
			p.sent[wire.Client].spin.withID = test.withID
			o.addSpin(p, wire.Client, ID{}, &datapath.Spin{
				Edge: start.Add(time.Second), Sum: 4 * time.Second, Packets: 40, Edges: 6, Samples: 5, Started: true,
			})
		}
		got := false
		for _, e := range tracker.take() {
			got = got || e.Kind == EventRTT
		}
		if got != test.want {
			t.Errorf("%s: an event of a round trip: %v, want %v", test.name, got, test.want)
		}
	}
}
