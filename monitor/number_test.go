package monitor

import (
	"testing"
	"time"
)

// TestByNumber checks the order of connections by number, though the first one was seen last.
func TestByNumber(t *testing.T) {
	tracker := newTracker(t, nil)
	first := establishedConn(t)
	track(tracker, after(first[:3], establishedBy(t, "192.0.2.1:50001", newID, cliNo)))
	later := first[2]
	later.at = later.at.Add(5 * time.Second)
	track(tracker, []sent{later})
	var numbers []uint64
	for c := range tracker.ByNumber() {
		numbers = append(numbers, c.Number)
	}
	if latest := connections(tracker)[0].Number; len(numbers) != 2 || numbers[0] != 1 || numbers[1] != 2 || latest != 1 {
		t.Errorf("got %v, want 1 and 2; connection %d was seen last, want 1", numbers, latest)
	}
}
