package nettest

import (
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/quicway/quicway/internal/test/packet"
)

var (
	macA, macB = net.HardwareAddr{2, 0, 0, 0, 0, 1}, net.HardwareAddr{2, 0, 0, 0, 0, 2}
	laneBegin  = time.Unix(1e9, 0)
)

// numbered returns a frame with a number in its payload.
func numbered(n int, from, to string, tos byte, size int) []byte {
	f := packet.Frame{
		Src: netip.MustParseAddrPort(from), Dst: netip.MustParseAddrPort(to), TTL: 64, TOS: tos,
		Payload: binary.BigEndian.AppendUint32(make([]byte, size), uint32(n)), Flags: packet.DontFragment,
	}
	return f.Build(macA, macB)
}

func numberOf(frame []byte) int { return int(binary.BigEndian.Uint32(frame[len(frame)-4:])) }

// send lets a lane accept n frames, one each millisecond.
func (l *lane) send(n int, tos byte) {
	for i := range n {
		l.accept(numbered(i, "10.0.0.1:1", "10.0.0.2:2", tos, 96), laneBegin.Add(time.Duration(i)*time.Millisecond))
	}
}

// arrive returns the numbers of the frames that a lane delivers until a time.
func (l *lane) arrive(until time.Duration) (numbers []int) {
	for {
		frame := l.deliver(laneBegin.Add(until))
		if frame == nil {
			return numbers
		}
		numbers = append(numbers, numberOf(frame))
	}
}

func TestLaneDelays(t *testing.T) {
	l := newLane(1, 0)
	l.conditions.Delay = 10 * time.Millisecond
	l.send(3, 0)
	if got := l.arrive(10*time.Millisecond - 1); len(got) != 0 {
		t.Errorf("before the delay: %v", got)
	}
	if got := l.arrive(11 * time.Millisecond); !slices.Equal(got, []int{0, 1}) {
		t.Errorf("after 11 ms: %v, want 0 and 1", got)
	}
	if due, ok := l.next(); !ok || !due.Equal(laneBegin.Add(12*time.Millisecond)) {
		t.Errorf("the next is due at %v, %v", due, ok)
	}
	if got := l.arrive(12 * time.Millisecond); !slices.Equal(got, []int{2}) {
		t.Errorf("after 12 ms: %v, want 2", got)
	}
}

func TestLaneRate(t *testing.T) {
	l := newLane(1, 0)
	frame := numbered(0, "10.0.0.1:1", "10.0.0.2:2", 0, 96)
	l.conditions.Rate = len(frame) * 100 // a frame takes 10 ms
	l.conditions.Queue = 5
	l.send(10, 0)
	for i := range 5 {
		due := time.Duration(i+1) * 10 * time.Millisecond
		if got := append(l.arrive(due-1), l.arrive(due)...); !slices.Equal(got, []int{i}) {
			t.Errorf("until %v: %v, want %d", due, got, i)
		}
	}
	if want := (LineCounts{Received: 10, Delivered: 5, Overflown: 5}); l.counts != want {
		t.Errorf("got %+v, want %+v", l.counts, want)
	}
}

// TestLaneConditions checks that each condition concerns about as many packets as it
// says, the same with the same seed, and that the counts are right.
func TestLaneConditions(t *testing.T) {
	const sent, late = 10000, time.Hour
	run := func(seed uint64, c LineConditions, tos byte) ([]int, LineCounts) {
		l := newLane(seed, 0)
		l.conditions = c
		l.conditions.Queue = 2 * sent
		l.send(sent, tos)
		return l.arrive(late), l.counts
	}
	for _, test := range []struct {
		name       string
		conditions LineConditions
		tos        byte
		of         func(LineCounts) uint64
		want       float64
	}{
		{"loss", LineConditions{Loss: 0.01}, 0, func(c LineCounts) uint64 { return c.Lost }, 0.01},
		{"duplicate", LineConditions{Duplicate: 0.05}, 0, func(c LineCounts) uint64 { return c.Duplicated }, 0.05},
		{"reorder", LineConditions{Reorder: 0.05, Behind: 4 * time.Millisecond}, 0, func(c LineCounts) uint64 { return c.Reordered }, 0.05},
		{"CE", LineConditions{CE: 0.02}, 2, func(c LineCounts) uint64 { return c.Marked }, 0.02},
		{"CE without ECT", LineConditions{CE: 0.02}, 0, func(c LineCounts) uint64 { return c.Marked }, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			first, counts := run(7, test.conditions, test.tos)
			second, _ := run(7, test.conditions, test.tos)
			if !slices.Equal(first, second) {
				t.Error("two runs with one seed differ")
			}
			if got, want := float64(test.of(counts)), test.want*sent; got < 0.8*want || got > 1.2*want {
				t.Errorf("%v of %d packets, want about %v: %+v", got, sent, want, counts)
			}
			if counts.Received != sent || counts.Delivered != uint64(len(first)) ||
				counts.Delivered != sent-counts.Lost+counts.Duplicated {
				t.Errorf("%d arrived: %+v", len(first), counts)
			}
			if sorted := slices.IsSorted(first); sorted != (counts.Reordered == 0) {
				t.Errorf("in order: %v, and %d were reordered", sorted, counts.Reordered)
			}
		})
	}
}

// TestLaneIndependent checks that a condition does not change the decisions of another.
func TestLaneIndependent(t *testing.T) {
	var arrived [2][]int
	for i, c := range []LineConditions{{Loss: 0.1}, {Loss: 0.1, CE: 0.5, Delay: time.Second, Reorder: 0.2}} {
		l := newLane(3, 0)
		l.conditions = c
		l.send(1000, 2)
		arrived[i] = l.arrive(time.Hour)
		slices.Sort(arrived[i])
	}
	if !slices.Equal(arrived[0], arrived[1]) {
		t.Error("other packets were lost under other conditions")
	}
}

// TestLaneSpares checks that a line loses no packet that is neither TCP nor UDP.
func TestLaneSpares(t *testing.T) {
	l := newLane(1, 0)
	l.conditions = LineConditions{Loss: 1, Duplicate: 1, CE: 1, MTU: 1500}
	arp := append(append(append([]byte(nil), macB...), macA...), 8, 6)
	icmp := numbered(0, "[2001:db8::1]:1", "[2001:db8::2]:2", 2, 4)
	icmp[etherLen+6] = protocolICMPv6
	for _, frame := range [][]byte{arp, icmp, arp[:5], append(arp[:12:12], 8, 0, 0x45), append(arp[:12:12], 0x86, 0xdd, 0x60)} {
		before := slices.Clone(frame)
		l.accept(frame, laneBegin)
		if got := l.deliver(laneBegin); !slices.Equal(got, before) {
			t.Errorf("got %x, want %x", got, before)
		}
	}
}

func TestLaneMarks(t *testing.T) {
	for _, addrs := range [][2]string{{"10.0.0.1:1", "10.0.0.2:2"}, {"[2001:db8::1]:1", "[2001:db8::2]:2"}} {
		for tos, want := range map[byte]byte{0xb8: 0xb8, 0xb9: 0xbb, 0xba: 0xbb, 0xbb: 0xbb} {
			l := newLane(1, 0)
			l.conditions.CE = 1
			l.accept(numbered(0, addrs[0], addrs[1], tos, 8), laneBegin)
			if got, want := l.deliver(laneBegin), numbered(0, addrs[0], addrs[1], want, 8); !slices.Equal(got, want) {
				t.Errorf("%v, %#x: got %x, want %x", addrs, tos, got, want)
			}
		}
	}
}

func TestLaneTooBig(t *testing.T) {
	for _, addrs := range [][2]string{{"10.0.0.1:1", "10.0.0.2:2"}, {"[2001:db8::1]:1", "[2001:db8::2]:2"}} {
		l := newLane(1, 0)
		l.conditions.MTU = 1400
		frame := numbered(0, addrs[0], addrs[1], 0, 1500)
		answer := l.accept(frame, laneBegin)
		checkTooBig(t, frame, answer, 1400)
		l.conditions.Silent = true
		if answer := l.accept(frame, laneBegin); answer != nil {
			t.Errorf("%v: the line answers although it is silent", addrs)
		}
		fits := numbered(0, addrs[0], addrs[1], 0, 1400)
		l.accept(fits[:etherLen+1400], laneBegin) // the lengths in its headers are larger
		if want := (LineCounts{Received: 3, TooBig: 3}); l.counts != want {
			t.Errorf("got %+v, want %+v", l.counts, want)
		}
	}
	l := newLane(1, 0)
	l.conditions.MTU = 1400
	f := packet.Frame{Src: netip.MustParseAddrPort("10.0.0.1:1"), Dst: netip.MustParseAddrPort("10.0.0.2:2"), Payload: make([]byte, 1400)}
	if answer := l.accept(f.Build(macA, macB), laneBegin); answer != nil {
		t.Error("the line answers a packet without DF")
	}
}

// checkTooBig checks an ICMP message that answers a frame.
func checkTooBig(t *testing.T, frame, answer []byte, mtu uint32) {
	t.Helper()
	ip, sent := parseFrame(answer), parseFrame(frame)
	if ip.version != sent.version || ip.length != len(answer)-etherLen {
		t.Fatalf("got an answer of version %d and length %d: %x", ip.version, ip.length, answer)
	}
	if !slices.Equal(answer[:6], frame[6:12]) || !slices.Equal(answer[6:12], frame[:6]) {
		t.Errorf("from %x to %x", answer[6:12], answer[:6])
	}
	header, icmp := answer[etherLen:][:ipv4Len], answer[etherLen+ipv4Len:]
	pseudo := []byte(nil)
	if ip.version == 6 {
		header, icmp = answer[etherLen:][:ipv6Len], answer[etherLen+ipv6Len:]
		pseudo = append(binary.BigEndian.AppendUint32(slices.Clone(header[8:40]), uint32(len(icmp))), 0, 0, 0, protocolICMPv6)
	} else if internetChecksum(header) != 0 {
		t.Error("the IP checksum is wrong")
	}
	if internetChecksum(append(pseudo, icmp...)) != 0 {
		t.Error("the ICMP checksum is wrong")
	}
	if got := binary.BigEndian.Uint32(icmp[4:]); got != mtu {
		t.Errorf("MTU %d, want %d", got, mtu)
	}
	if !slices.Equal(icmp[icmpLen:], frame[etherLen:][:len(icmp)-icmpLen]) {
		t.Error("the message does not quote the packet")
	}
}
