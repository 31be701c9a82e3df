package monitor

import (
	"slices"
	"testing"
)

// TestIdentified checks that an event says which of the hellos was read.
func TestIdentified(t *testing.T) {
	tracker := newTracker(t, nil)
	track(tracker, play(t, nil, false, func(s *scene) { s.exchange(s.dial(nil), 100) }))
	var servers []bool
	for _, e := range tracker.take() {
		if e.Kind == EventIdentified {
			servers = append(servers, e.ServerHello)
		}
	}
	if !slices.Equal(servers, []bool{false, true}) {
		t.Errorf("got %v, want the ClientHello and then the ServerHello", servers)
	}
}
