package datapath

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/quicway/quicway/internal/test/packet"
)

// testTable returns a table for so many flows, in memory that no program reads.
func testTable(flows int) *knownFlows {
	h := newPairHash(flows)
	return tableOf(h, make([]datapathFlow, flows+spareFlows), make([]datapathSlotSet, h.sets()))
}

// testFlow returns the n-th flow.
func testFlow(n int) *datapathFlow {
	end := func(port int) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)}), uint16(port))
	}
	f := &datapathFlow{Pair: pairOf(FlowKey{end(1000), end(2000)}), Born: uint64(n + 1)}
	return f
}

// count returns how many of the first n flows are in the table.
func (k *knownFlows) count(n int) (found int) {
	for i := range n {
		if f := k.find(&testFlow(i).Pair); f != nil && f.Born == uint64(i+1) {
			found++
		}
	}
	return found
}

// TestKnownFlows checks that a table holds the flows for which it has room, that it finds no
// others, and that flows that were removed make room.
func TestKnownFlows(t *testing.T) {
	const flows = 1000
	k := testTable(flows)
	for range 3 {
		for i := range flows {
			if k.add(testFlow(i), 0) == nil {
				t.Fatalf("flow %d has no room", i)
			}
		}
		if got := k.count(2 * flows); got < flows*98/100 { // a few share their set with too many
			t.Errorf("%d of %d flows are there", got, flows)
		}
		some, next := k.some(0, flows+1)
		if got := k.count(2 * flows); len(some) != got || next != -1 {
			t.Errorf("some returns %d of %d flows, and %d", len(some), got, next)
		}
		for i := range flows {
			if f := k.find(&testFlow(i).Pair); f != nil && k.remove(f).Born != uint64(i+1) {
				t.Errorf("remove returns another flow than %d", i)
			}
		}
		if got := k.count(flows); got != 0 || k.frees != len(k.flows) {
			t.Errorf("%d flows are there after remove, and %d of %d are free", got, k.frees, len(k.flows))
		}
	}
}

// TestKnownFlowsMakeRoom checks which flows make room for others: never one with rules for an
// ignored one, and rarely one with recent packets. Hashes that collide cost a flow its place at most.
func TestKnownFlowsMakeRoom(t *testing.T) {
	const flows = 512
	for name, break_ := range map[string]func(*pairHash){
		"random":   func(*pairHash) {},
		"one set":  func(h *pairHash) { h.keys = [pairWords]uint64{3: 1 << 16, 7: 1 << 16} },
		"one slot": func(h *pairHash) { h.keys = [pairWords]uint64{} },
	} {
		t.Run(name, func(t *testing.T) {
			k := testTable(flows)
			break_(&k.pairHash)
			for i := range 4 * flows {
				if k.add(testFlow(i), 0) == nil || k.find(&testFlow(i).Pair) == nil {
					t.Fatalf("flow %d has no room", i)
				}
			}
			before := k.count(4 * flows)
			if name == "random" && (before < flows*9/10 || before > flows) {
				t.Errorf("%d flows are there, want about %d", before, flows)
			}
			if name == "one slot" && before != 1 {
				t.Errorf("%d flows have the same tag in a set", before)
			}
			if name == "random" && k.find(&testFlow(0).Pair) != nil && k.find(&testFlow(1).Pair) != nil {
				t.Error("the oldest flows are there")
			}
			for i := range 4 * flows {
				f := testFlow(4*flows + i)
				f.Ignored = 1
				k.add(f, 0)
			}
			if after := k.count(4 * flows); after != before {
				t.Errorf("ignored flows have removed %d others", before-after)
			}
		})
	}
}

// TestScanRemovesNoKnownFlow checks that packets are counted by the rules of their flows after a scan
// of many more flows than there is room for, whether or not Go ignores these.
func TestScanRemovesNoKnownFlow(t *testing.T) {
	const known = 100
	p := loadFlows(t)
	m, err := p.Monitor()
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	frame := func(n int) (packet.Frame, FlowKey) {
		a := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)}), 1000)
		f := packet.Frame{Src: a, Dst: netip.MustParseAddrPort("192.0.2.1:443"), TTL: 64, Payload: append([]byte{0x40, 1, 2, 3, 4}, make([]byte, 60)...)}
		return f, FlowKey{A: f.Src, B: f.Dst}
	}
	rule := Rule{Match: MatchID, IDLen: 4}
	copy(rule.ID[:], []byte{1, 2, 3, 4})
	run := func(n, times int, rules *FlowRules) {
		f, key := frame(n)
		for range times {
			if _, _, err := p.Test(1, f.Build(edgeMAC, peerMAC)); err != nil {
				t.Fatal(err)
			}
		}
		if rules != nil {
			if _, err := m.SetRules(key, rules); err != nil {
				t.Fatal(err)
			}
		}
		for s := new(Sample); m.Pending(); {
			if err := m.Read(s); err != nil {
				t.Fatal(err)
			}
		}
	}
	for n := range known {
		run(n, 2, &FlowRules{Directions: [2]Rule{rule, rule}})
	}
	for n := range 3000 {
		run(known+n, 2, []*FlowRules{nil, {Ignored: true}}[n%2])
	}
	lost := 0
	for n := range known {
		run(n, 3, nil)
		_, key := frame(n)
		f, ok, err := m.Lookup(key)
		if err != nil {
			t.Fatal(err)
		}
		if sum := f.Directions[0].Matched.Packets[0] + f.Directions[1].Matched.Packets[0]; !ok || sum != 3 {
			lost++
		}
	}
	if lost > 0 {
		t.Errorf("%d of %d flows do not have what was counted", lost, known)
	}
}

// TestKnownFlowsOverlap checks that a flow keeps what was counted before its first rules, and that
// Take ends it.
func TestKnownFlowsOverlap(t *testing.T) {
	p := loadFlows(t)
	m, err := p.Monitor()
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	f := packet.Frame{Src: netip.MustParseAddrPort("10.0.0.1:1000"), Dst: netip.MustParseAddrPort("10.0.0.2:443"), TTL: 64, Payload: append([]byte{0x40}, make([]byte, 60)...)}
	key := FlowKey{f.Src, f.Dst}
	send := func(n int) {
		for range n {
			if _, _, err := p.Test(1, f.Build(edgeMAC, peerMAC)); err != nil {
				t.Fatal(err)
			}
		}
	}
	look := func(get func(FlowKey) (Flow, bool, error)) string {
		flow, ok, err := get(key)
		if err != nil {
			t.Fatal(err)
		}
		d := &flow.Directions[0]
		return fmt.Sprint(ok, d.Unreported.Packets[0], d.Matched.Packets[0])
	}
	send(1 + 64 + 1 + 30) // one before there is an entry, and a burst
	stats, err := p.Stats()
	if err != nil {
		t.Fatal(err)
	}
	limited := stats[MonitorLimited] // 30, fewer if the sending took long
	if limited == 0 {
		t.Fatal("all packets were reported")
	}
	if got, want := look(m.Lookup), fmt.Sprint(true, limited, 0); got != want {
		t.Errorf("before rules: got %s, want %s", got, want)
	}
	for _, rules := range []FlowRules{{}, {Directions: [2]Rule{{Match: MatchShort}}}} {
		if ok, err := m.SetRules(key, &rules); !ok || err != nil {
			t.Fatal(ok, err)
		}
	}
	send(5)
	if got, want := look(m.Lookup), fmt.Sprint(true, limited, 5); got != want {
		t.Errorf("with rules: got %s, want %s", got, want)
	}
	if got, want := look(m.Take), fmt.Sprint(true, limited, 5); got != want {
		t.Errorf("Take: got %s, want %s", got, want)
	}
	if got, want := look(m.Lookup), "false 0 0"; got != want {
		t.Errorf("after Take: got %s, want %s", got, want)
	}
}
