package sni

import (
	"math"
	"testing"
)

// TestLimits checks that Stats has the limits of the configuration, and all reasons from the
// start.
func TestLimits(t *testing.T) {
	conf := &Config{MaxConnections: 9, MaxWaiting: 4}
	want := StatsLimits{Connections: 9, Waiting: 4, QUICFlows: 13, QUICWaiting: 4}
	if got := newServer(t, conf).Stats().Limits; got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	huge := newServer(t, &Config{MaxConnections: math.MaxInt, MaxWaiting: math.MaxInt}).Stats().Limits
	if huge.QUICFlows != math.MaxInt {
		t.Errorf("got %+v", huge)
	}
	splice := early(Always)
	splice.MaxConnections = 3
	conf.Splice, want.InKernel = splice, 3
	s := newSplicing(t, conf, &fakeKernel{}).Stats()
	if s.Limits != want {
		t.Errorf("got %+v, want %+v", s.Limits, want)
	}
	for reason, all := range map[string]map[string]uint64{
		"refused_protocol": s.Splice.NotTaken, "refused_busy": s.Splice.NotTaken, "policy": s.Splice.WaysBack, "wanted_interface": s.Splice.WaysBack,
	} {
		if n, ok := all[reason]; !ok || n != 0 {
			t.Errorf("%s is %d, %v, want 0", reason, n, ok)
		}
	}
}
