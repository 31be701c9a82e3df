package splice

import (
	"bytes"
	"encoding/binary"
	"errors"
	"maps"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"
)

// rig runs the programs and the model on the same packets.
type rig struct {
	testing.TB
	program *Program
	before  map[Reason]uint64 // counters before the packet
}

// Addresses of the two legs, by family.
var (
	clients     = addrs("10.1.0.2:40000", "[2001:db8:1::2]:40000")
	listeners   = addrs("10.1.0.1:443", "[2001:db8:1::1]:443")
	dialers     = addrs("10.2.0.1:50000", "[2001:db8:2::1]:50000")
	upstreams   = addrs("10.2.0.2:8443", "[2001:db8:2::2]:8443")
	familyNames = []string{"IPv4", "IPv6"}
)

func addrs(texts ...string) (out []netip.AddrPort) {
	for _, text := range texts {
		out = append(out, netip.MustParseAddrPort(text))
	}
	return out
}

// newRig loads the programs, with a pair for each family. The index of the pair is the family.
func newRig(tb testing.TB) *rig {
	tb.Helper()
	r := &rig{TB: tb, program: mustLoad(tb, &Config{MaxPairs: 16})}
	for family := range familyNames {
		flows := []tuple{{clients[family], listeners[family]}, {upstreams[family], dialers[family]}}
		for d, t := range flows {
			if err := r.program.flows.put(t, uint32(family), direction(d)); err != nil {
				tb.Fatal(err)
			}
			tb.Cleanup(func() {
				if err := r.program.flows.delete(t, uint32(family), direction(d)); err != nil {
					tb.Error(err)
				}
			})
		}
	}
	r.before = r.stats()
	return r
}

// pairIn returns a pair in the middle of its life. What the client sends gets to its other end
// with a sequence number that is 1000 less, and what the upstream sends with one that is 5000 more.
func pairIn(family int, s state) splicePair {
	p := splicePair{State: uint32(s), Generation: 7}
	c, u := &p.Halves[fromClient], &p.Halves[fromUpstream]
	*c = spliceHalf{SeqAdd: ^uint32(999), TsAdd: 300, InScale: 7, OutScale: 9, OwnScale: 8, MaxEnd: 20000, MaxAck: 70000, MaxEdge: 70000 + 5000, LastTs: 90, Window: 40}
	*u = spliceHalf{SeqAdd: 5000, TsAdd: ^uint32(399), InScale: 8, OutScale: 8, OwnScale: 9, MaxEnd: 65000, MaxAck: 19000, MaxEdge: 19000 + 9000, LastTs: 5000, Window: 35}
	for _, h := range []*spliceHalf{c, u} {
		h.Ifindex, h.Mtu, h.Flags = 1, 1500, uint8(family)*halfV6
	}
	c.setAddrs(dialers[family], upstreams[family])
	u.setAddrs(listeners[family], clients[family])
	return p
}

// newSegment returns a segment of a direction that continues what pairIn has seen.
func newSegment(family int, d direction) *segment {
	if d == fromClient {
		return &segment{src: clients[family], dst: listeners[family], seq: 20000, ack: 70000, flags: ack, window: 50}
	}
	return &segment{src: upstreams[family], dst: dialers[family], seq: 65000, ack: 19000, flags: ack, window: 30}
}

// sent returns a segment that our socket on the leg of a direction sends.
func sent(family int, d direction) *segment {
	if d == fromClient {
		return &segment{src: listeners[family], dst: clients[family], seq: 70000, ack: 19000, flags: ack, window: 100}
	}
	return &segment{src: dialers[family], dst: upstreams[family], seq: 19000, ack: 64000, flags: ack, window: 100}
}

func (r *rig) stats() map[Reason]uint64 {
	r.Helper()
	s, err := r.program.Stats()
	if err != nil {
		r.Fatal(err)
	}
	return s
}

// counted returns the counters that have changed since the last call.
func (r *rig) counted() map[Reason]uint64 {
	r.Helper()
	now, out := r.stats(), make(map[Reason]uint64)
	for reason, n := range now {
		if d := n - r.before[reason]; d != 0 {
			out[reason] = d
		}
	}
	maps.Copy(r.before, now)
	return out
}

// with returns the rig for a subtest.
func (r *rig) with(tb testing.TB) *rig { return &rig{tb, r.program, r.before} }

// told returns the events since the last call.
func (r *rig) told() (out []event) {
	r.Helper()
	r.program.events.SetDeadline(time.Unix(1, 0))
	for {
		record, err := r.program.events.Read()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return out
		}
		if err != nil {
			r.Fatal(err)
		}
		e, ok := parseEvent(record.RawSample)
		if !ok {
			r.Fatalf("an event of %d bytes", len(record.RawSample))
		}
		out = append(out, e)
	}
}

// run runs a program on a frame.
func (r *rig) run(prog *ebpf.Program, frame []byte, gso int) (verdict int, out []byte) {
	r.Helper()
	return r.runFrom(prog, frame, gso, 0)
}

// runFrom runs a program on a frame that has come from an interface.
func (r *rig) runFrom(prog *ebpf.Program, frame []byte, gso, ingress int) (verdict int, out []byte) {
	r.Helper()
	context := make([]byte, 184) // struct __sk_buff up to gso_size
	binary.NativeEndian.PutUint32(context[36:], uint32(ingress))
	binary.NativeEndian.PutUint32(context[176:], uint32(gso))
	if gso > 0 {
		binary.NativeEndian.PutUint32(context[164:], 2) // segments
	}
	opts := ebpf.RunOptions{Data: frame, DataOut: make([]byte, len(frame)+256), Context: context}
	v, err := prog.Run(&opts)
	if err != nil {
		r.Fatalf("test run: %v", err)
	}
	return int(int32(v)), opts.DataOut
}

// hook is one of the two programs.
type hook bool

const (
	atIngress hook = false
	atEgress  hook = true
)

// check runs a program and the model on a packet of a pair, and compares the verdicts, the frames,
// the pair, the counters and the events. It returns the verdict, the frame and the model afterwards.
func (r *rig) check(h hook, family int, pair splicePair, frame []byte, gso int) (verdict int, out []byte, m *model) {
	r.Helper()
	m = &model{pair: pair, counters: make(map[Reason]uint64)}
	prog, modelled := r.program.objects.SpliceIngress, m.ingress
	if h == atEgress {
		prog, modelled = r.program.objects.SpliceEgress, m.egress
	}
	kernel := &r.program.pairs.pairs[family]
	*kernel = pair
	verdict, out = r.run(prog, frame, gso)
	got := *kernel
	got.Halves[0].Last, got.Halves[1].Last = pair.Halves[0].Last, pair.Halves[1].Last
	wantVerdict, want := modelled(slices.Clone(frame), gso)
	for i := range m.events {
		m.events[i].Pair = uint32(family)
	}
	if verdict != wantVerdict {
		r.Errorf("verdict %d, want %d", verdict, wantVerdict)
	}
	if !sameFrame(out, want) {
		r.Errorf("frame\n%x, want\n%x", out, want)
	}
	if got != m.pair {
		r.Errorf("pair\n%+v, want\n%+v", got, m.pair)
	}
	maps.DeleteFunc(m.counters, func(_ Reason, n uint64) bool { return n == 0 })
	if counted := r.counted(); !maps.Equal(counted, m.counters) {
		r.Errorf("counted %v, want %v", counted, m.counters)
	}
	if told := r.told(); !slices.Equal(told, m.events) {
		r.Errorf("events %+v, want %+v", told, m.events)
	}
	return verdict, out, m
}

// sameFrame compares frames. The checksums 0 and 0xffff are the same number.
func sameFrame(a, b []byte) bool {
	return bytes.Equal(normalized(a), normalized(b))
}

func normalized(frame []byte) []byte {
	frame = slices.Clone(frame)
	v, protocol, rest, ok := viewIP(frame, 1)
	if !ok {
		return frame
	}
	at := []int{24}
	if v.v6() {
		at = nil
	}
	if protocol == 6 && v.viewTCP(rest) {
		at = append(at, v.tcp+16)
	}
	for _, i := range at {
		if v.u16(i) == 0xffff {
			v.put16(i, 0)
		}
	}
	return frame
}

// wantSums checks the checksums of a TCP segment against full sums.
func (r *rig) wantSums(frame []byte) {
	r.Helper()
	v, _, rest, ok := viewIP(frame, 1)
	if !ok || !v.viewTCP(rest) {
		r.Errorf("not a TCP segment: %x", frame)
		return
	}
	if !v.v6() && fold(sumOf(frame[14:34])) != 0xffff {
		r.Errorf("wrong IP checksum: %x", frame)
	}
	if fold(pseudo(v.src.Addr(), v.dst.Addr(), rest)+sumOf(frame[v.tcp:v.tcp+rest])) != 0xffff {
		r.Errorf("wrong TCP checksum: %x", frame)
	}
}
