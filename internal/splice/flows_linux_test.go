package splice

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
)

// TestLayout checks the sizes of the structures that the programs and Go share.
func TestLayout(t *testing.T) {
	t.Parallel()
	p := mustLoad(t, &Config{MaxPairs: 3})
	for name, sizes := range map[string][2]uintptr{
		"pair":     {unsafe.Sizeof(splicePair{}), uintptr(p.objects.Pairs.ValueSize())},
		"flow_set": {unsafe.Sizeof(spliceFlowSet{}), uintptr(p.objects.Flows.ValueSize())},
		"a pair":   {unsafe.Sizeof(splicePair{}), pairSize},
		"a set":    {unsafe.Sizeof(spliceFlowSet{}), 64}, // a cache line
	} {
		if sizes[0] != sizes[1] {
			t.Errorf("%s: %d bytes in Go, %d in C", name, sizes[0], sizes[1])
		}
	}
	if e := (event{}); unsafe.Sizeof(e) != eventSize {
		t.Errorf("an event has %d bytes, want %d", unsafe.Sizeof(e), eventSize)
	}
	if _, ok := parseEvent(make([]byte, eventSize-1)); ok {
		t.Error("a short event was read")
	}
	if n := p.objects.Counters.MaxEntries(); n != uint32(kernelReasons) {
		t.Errorf("%d counters in C, %d in Go", n, kernelReasons)
	}
	for r := range kernelReasons {
		if r.String() == "" || r.Text() == "" {
			t.Errorf("reason %d has no text", r)
		}
	}
}

// TestMemory checks that a pair with its flows takes at most 400 bytes of the kernel's memory.
func TestMemory(t *testing.T) {
	t.Parallel()
	const pairs = 1 << 14
	p := mustLoad(t, &Config{MaxPairs: pairs})
	total := 0
	for _, m := range []*ebpf.Map{p.objects.Pairs, p.objects.Flows} {
		total += memory(t, m)
	}
	t.Logf("%.0f bytes for a pair", float64(total)/pairs)
	if total > 400*pairs {
		t.Errorf("%d bytes for %d pairs", total, pairs)
	}
}

// memory returns what a map takes, as the kernel says.
func memory(t testing.TB, m *ebpf.Map) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", m.FD()))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "memlock:"); ok {
			n, err := strconv.Atoi(strings.TrimSpace(value))
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("no memlock in\n%s", text)
	return 0
}

// randomTuple returns a tuple of a family.
func randomTuple(rng *rand.Rand, family int) tuple {
	at := func() netip.AddrPort {
		var b [16]byte
		binary.BigEndian.PutUint64(b[:], rng.Uint64())
		binary.BigEndian.PutUint64(b[8:], rng.Uint64())
		addr := netip.AddrFrom16(b)
		if family == 0 {
			addr = netip.AddrFrom4([4]byte(b[:4]))
		}
		return netip.AddrPortFrom(addr, uint16(rng.Uint32()))
	}
	return tuple{at(), at()}
}

// TestFlowTable checks that the table has room for nearly all of the flows that it is made for, that
// the flows are found, and that deleted flows make room.
func TestFlowTable(t *testing.T) {
	t.Parallel()
	const pairs = 4096
	p := mustLoad(t, &Config{MaxPairs: pairs})
	rng := rand.New(rand.NewPCG(1, 2))
	flows, full := make(map[tuple]uint32), 0
	for i := range uint32(2 * pairs) {
		tup := randomTuple(rng, int(i)&1)
		switch err := p.flows.put(tup, i>>1, direction(i&1)); {
		case errors.Is(err, errFull):
			full++
		case err != nil:
			t.Fatal(err)
		default:
			flows[tup] = i
		}
	}
	if full > 2*pairs/500 {
		t.Errorf("%d of %d flows find no room", full, 2*pairs)
	}
	var live uint32
	if err := p.objects.Live.Get(&live); err != nil || int(live) != len(flows) || p.flows.len() != len(flows) {
		t.Errorf("%d flows, the programs see %d: %v", len(flows), live, err)
	}
	for tup, i := range flows {
		if pair, d, ok := p.flows.find(tup); !ok || pair != i>>1 || d != direction(i&1) {
			t.Fatalf("%v: found pair %d, direction %d, %v", tup, pair, d, ok)
		}
		if err := p.flows.put(tup, 1, 0); !errors.Is(err, errTaken) {
			t.Fatalf("put again: %v, want %v", err, errTaken)
		}
		if err := p.flows.delete(tup, i>>1+1, direction(i&1)); err != nil {
			t.Fatal(err)
		}
	}
	if p.flows.len() != len(flows) {
		t.Error("delete removes the flow of another pair")
	}
	for tup, i := range flows {
		if err := p.flows.delete(tup, i>>1, direction(i&1)); err != nil {
			t.Fatal(err)
		}
		if _, _, ok := p.flows.find(tup); ok {
			t.Fatalf("%v is found after delete", tup)
		}
	}
	if err := p.objects.Live.Get(&live); err != nil || live != 0 {
		t.Errorf("the programs see %d flows: %v", live, err)
	}
}

// TestStaleSlot checks that a slot that leads to another pair is not believed: the program compares
// all of the addresses.
func TestStaleSlot(t *testing.T) {
	t.Parallel()
	newRig(t).each(func(r *rig, family int, d direction) {
		frame := newSegment(family, d).build()
		kernel := &r.program.pairs.pairs[family]
		changes := []func(h *spliceHalf){
			func(h *spliceHalf) { h.Sport++ }, func(h *spliceHalf) { h.Dport++ }, func(h *spliceHalf) { h.Flags ^= halfV6 },
		}
		for i := range 4 {
			if family == 0 && i < 3 {
				continue // IPv4 is in the last word
			}
			changes = append(changes, func(h *spliceHalf) { h.Src[i]++ }, func(h *spliceHalf) { h.Dst[i]++ })
		}
		for i, change := range changes {
			*kernel = pairIn(family, active)
			if verdict, _ := r.run(r.program.objects.SpliceIngress, frame, 0); verdict != redirect {
				r.Fatalf("verdict %d", verdict)
			}
			change(&kernel.Halves[1-d])
			if verdict, _ := r.run(r.program.objects.SpliceIngress, frame, 0); verdict != next {
				r.Errorf("change %d: verdict %d", i, verdict)
			}
		}
	})
}

// TestNoFlows checks that the programs do nothing while there are no flows.
func TestNoFlows(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	if err := r.program.objects.Live.Set(uint32(0)); err != nil {
		t.Fatal(err)
	}
	r.program.pairs.pairs[0] = pairIn(0, active)
	for _, p := range []*ebpf.Program{r.program.objects.SpliceIngress, r.program.objects.SpliceEgress} {
		for _, s := range []*segment{newSegment(0, fromClient), sent(0, fromClient)} {
			if verdict, _ := r.run(p, s.build(), 0); verdict != next {
				t.Errorf("verdict %d", verdict)
			}
		}
	}
}

// TestLastAge checks that the programs and Go read the same clock.
func TestLastAge(t *testing.T) {
	r := newRig(t)
	pair := &r.program.pairs.pairs[0]
	*pair = pairIn(0, off)
	pair.setState(active)
	h := &pair.Halves[fromClient]
	h.Last = ^uint32(0)
	r.run(r.program.objects.SpliceIngress, newSegment(0, fromClient).build(), 0)
	if age := h.lastAge(); age < 0 || age > time.Minute {
		t.Errorf("the last packet was %v ago", age)
	}
}
