package sni

import (
	"testing"
	"time"
)

// TestDefaultPolicy checks the limits of the default policy, and that a connection does not go
// to and fro at one of them.
func TestDefaultPolicy(t *testing.T) {
	for name, tt := range map[string]struct {
		rtt    time.Duration // of both sides together
		again  float64
		enters bool
		stays  bool
	}{
		"near, no loss":         {rtt: time.Millisecond, enters: true, stays: true},
		"near, at its limit":    {rtt: 5 * time.Millisecond, again: 0.0009, enters: true, stays: true},
		"near, 0.1 %":           {rtt: 5 * time.Millisecond, again: 0.001, stays: true},
		"near, 0.5 %":           {rtt: time.Millisecond, again: 0.005},
		"far, no loss":          {rtt: 100 * time.Millisecond, enters: true, stays: true},
		"far, a lost segment":   {rtt: 6 * time.Millisecond, again: 0.0001, stays: true},
		"far, 0.05 %":           {rtt: 6 * time.Millisecond, again: 0.0005},
		"far, 1 % on each side": {rtt: 20 * time.Millisecond, again: 0.02},
	} {
		c := &Candidate{ClientRTT: tt.rtt / 3, UpstreamRTT: tt.rtt - tt.rtt/3, Retransmitted: tt.again}
		enters := DefaultPolicy(c)
		c.InKernel = true
		if stays := DefaultPolicy(c); enters != tt.enters || stays != tt.stays {
			t.Errorf("%s: enters %v and stays %v, want %v and %v", name, enters, stays, tt.enters, tt.stays)
		}
		if Never(c) || !Always(c) {
			t.Error("Never or Always is wrong")
		}
	}
}

// TestPause checks that pauses double up to the longest.
func TestPause(t *testing.T) {
	var p pause
	for _, want := range []time.Duration{10, 20, 40, 60, 60} {
		if got := p.next(10, 60); got != want {
			t.Errorf("got %v, want %v", got, want)
		}
	}
}

// TestSince checks the shares of two samples.
func TestSince(t *testing.T) {
	for _, tt := range []struct {
		now, before sample
		want        float64
	}{
		{sample{}, sample{}, 0},
		{sample{100, 1}, sample{}, 0.01},
		{sample{300, 2}, sample{200, 1}, 0.01},
		{sample{200, 1}, sample{100, 1}, 0},
		{sample{0, 3}, sample{}, 1},
		{sample{50, 5}, sample{100, 1}, 0.1}, // after a way back the numbers begin anew
	} {
		if got := tt.now.since(tt.before); got != tt.want {
			t.Errorf("from %+v to %+v: got %v, want %v", tt.before, tt.now, got, tt.want)
		}
	}
}

// TestMaxSegs checks which segments are announced for the MTUs of the interfaces.
func TestMaxSegs(t *testing.T) {
	for _, tt := range []struct {
		mtus           []int
		most           int
		both, v4, dial int // listener for both families, for IPv4; dialer of IPv6
	}{
		{[]int{1500, 1500}, 0, 1460, 1460, 1440},
		{[]int{1500, 1400}, 0, 1340, 1360, 1340},
		{[]int{9000, 1500, 1280}, 0, 1220, 1240, 1220},
		{[]int{1500, 1500}, 1360, 1360, 1360, 1360},
		{[]int{1500, 1400}, 1350, 1340, 1350, 1340},
		{nil, 0, 0, 0, 0},
	} {
		sizes := maxSegsFor(tt.mtus, tt.most)
		if both, v4 := sizes.ofListener(false), sizes.ofListener(true); both != tt.both || v4 != tt.v4 || sizes.v6 != tt.dial {
			t.Errorf("%v, at most %d: got %d, %d and %d, want %d, %d and %d", tt.mtus, tt.most, both, v4, sizes.v6, tt.both, tt.v4, tt.dial)
		}
	}
}
