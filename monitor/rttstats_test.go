package monitor

import (
	"slices"
	"testing"
	"time"

	"github.com/quicway/quicway/internal/datapath"
	"github.com/quicway/quicway/internal/wire"
)

// spinning returns the packets of an established connection, and then those of both sides, whose
// spin bit changes after each of the round trips.
func spinning(tb testing.TB, rtts ...int) []sent {
	all := addShorts(establishedConn(tb), 1, shortHeaders{clientAddr, serverAddr, oldID, 300})
	last := int(all[len(all)-1].at.Sub(start) / time.Millisecond)
	for i, rtt := range append([]int{1}, rtts...) {
		for n := range 5 { // enough packets to be no grease
			first, when := []byte{0x40 | byte((i+1)%2*spinBit)}, last+rtt+n
			toServer, toClient := append(slices.Clone(first), oldID...), append(first, cliID...)
			all = append(all, at(when, clientAddr, serverAddr, append(toServer, make([]byte, 60)...)))
			all = append(all, at(when, serverAddr, clientAddr, append(toClient, make([]byte, 60)...)))
		}
		last += rtt
	}
	return all
}

// TestRTTStats checks what is told of round trips by the spin bit and by the handshake, which took
// 15 ms.
func TestRTTStats(t *testing.T) {
	ms := func(n float64) Milliseconds { return Milliseconds(n * float64(time.Millisecond)) }
	for name, test := range map[string]struct {
		rtts []int
		want RTTStats
	}{
		"handshake": {nil, RTTStats{1, ms(15), ms(15), 0}},
		"steady":    {[]int{40, 40, 40}, RTTStats{4, ms(15), ms(40), 0}},
		"one more":  {[]int{40, 56, 40}, RTTStats{4, ms(15), ms(40), ms(1.9375)}}, // 16/16, then 1 + 15/16
		"shorter":   {[]int{40, 12, 40, 40}, RTTStats{5, ms(12), ms(40), ms(3.1787109)}},
	} {
		tracker := newTracker(t, nil)
		track(tracker, spinning(t, test.rtts...))
		c := only(t, tracker)
		got := c.RTT
		if d := got.Jitter - test.want.Jitter; d > 1000 || d < -1000 {
			t.Errorf("%s: got a jitter of %v, want %v", name, got.Jitter, test.want.Jitter)
		}
		if got.Jitter = test.want.Jitter; got != test.want {
			t.Errorf("%s: got %+v, want %+v", name, got, test.want)
		}
		if c.Paths[0].RTT != c.RTT {
			t.Errorf("%s: the path has %+v, the connection %+v", name, c.Paths[0].RTT, c.RTT)
		}
	}
}

// TestSamplesAreBounded checks that the median is that of the latest round trips, and that the
// shortest one stays.
func TestSamplesAreBounded(t *testing.T) {
	p := &path{conn: new(connection)}
	at := int64(0)
	for i := range 100 {
		rtt := 10 * time.Millisecond
		if i >= 50 {
			rtt = 20 * time.Millisecond
		}
		at += int64(rtt)
		for range 5 {
			p.addSpin(at, wire.Client, byte(0x40|i%2*spinBit), nil)
			at++
		}
	}
	got := p.rttStats()
	if got.Min.Duration().Round(time.Millisecond) != 10*time.Millisecond || got.Median.Duration().Round(time.Millisecond) != 20*time.Millisecond {
		t.Errorf("got %+v, want 10 ms and 20 ms", got)
	}
	if got.Samples != 98 {
		t.Errorf("got %d samples, want 98", got.Samples)
	}
}

// TestNoRTTStats checks that there are no round trips of a connection that greases its spin bit,
// of a handshake with a Retry, or on another path than that of the handshake.
func TestNoRTTStats(t *testing.T) {
	greasing := addShorts(establishedConn(t), 20, shortHeaders{clientAddr, serverAddr, oldID, 300}, shortHeaders{serverAddr, clientAddr, cliID, 1200})
	greasing = greasing[20:] // the handshake was not captured
	for i := range greasing {
		greasing[i].data[0] |= byte(i/2%2) * spinBit
	}
	moved := addShorts(establishedConn(t), 20, shortHeaders{"192.0.2.1:50001", serverAddr, oldID, 300}, shortHeaders{serverAddr, "192.0.2.1:50001", cliID, 300})
	for name, all := range map[string][]sent{
		"greasing": greasing, "moved": moved,
		"Retry": play(t, nil, true, func(s *scene) { s.exchange(s.dial(nil), 20000) }),
	} {
		tracker := newTracker(t, nil)
		track(tracker, all)
		if c := only(t, tracker); c.RTT != (RTTStats{}) {
			t.Errorf("%s: got %+v, want nothing", name, c.RTT)
		}
	}
}

// TestKernelSamples checks that the moving averages that the kernel reports are samples.
func TestKernelSamples(t *testing.T) {
	conn := &connection{}
	p := &path{conn: conn}
	o := &offload{events: &events{clock: &clock{}}}
	for i, ms := range []int{30, 20, 40} {
		for from := range p.sent {
			o.addSpin(p, wire.Side(from), ID{}, &datapath.Spin{
				Packets: uint32(100 * i), Edges: uint32(4 * i), Samples: uint32(1 + i), Sum: 8 * time.Duration(ms) * time.Millisecond,
			})
		}
	}
	got := p.rttStats()
	want := RTTStats{Samples: 3, Min: Milliseconds(20 * time.Millisecond), Median: Milliseconds(30 * time.Millisecond), Jitter: Milliseconds(30 * time.Millisecond / 16)}
	if got.Jitter = want.Jitter; got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
