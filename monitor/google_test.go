package monitor

import (
	"slices"
	"testing"

	"github.com/quicway/quicway/internal/wire"
)

// googleLong returns a long header of one of Google's own versions.
func googleLong(version string) []byte {
	return append([]byte{0xc0, version[0], version[1], version[2], version[3], 0x50, 1, 2, 3, 4, 5, 6, 7, 8}, make([]byte, 1200)...)
}

// TestSpoofedGoogle checks that a forged packet with one of Google's versions
// changes no connection between the same endpoints, and does not prevent one from
// beginning.
func TestSpoofedGoogle(t *testing.T) {
	for _, id := range [][]byte{cliID, nil} {
		testSpoofedGoogle(t, establishedBy(t, clientAddr, oldID, id))
	}
}

func testSpoofedGoogle(t *testing.T, live []sent) {
	t.Helper()
	spoof := googleLong("Q046")
	for name, all := range map[string][]sent{
		"within": append(live[:10:10], append([]sent{at(100, clientAddr, serverAddr, spoof), at(100, serverAddr, clientAddr, spoof)}, live[10:]...)...),
		"before": append([]sent{at(0, clientAddr, serverAddr, spoof), at(0, serverAddr, clientAddr, spoof)}, live...),
		"all along": slices.Collect(func(yield func(sent) bool) {
			for _, s := range live {
				if !yield(sent{at: s.at, from: s.from, to: s.to, data: spoof}) || !yield(s) {
					return
				}
			}
		}),
	} {
		tracker := newTracker(t, nil)
		track(tracker, all)
		bounded(t, tracker)
		if s := tracker.Stats(); name == "within" && s.Bogus != 2 {
			t.Errorf("%s: got %d bogus, want 2", name, s.Bogus)
		}
		found := false
		for _, c := range connections(tracker) {
			if c.Confidence != Proven {
				continue
			}
			found = true
			if got := c.FromClient.Packets + c.FromServer.Packets; got != uint64(len(live)) || c.Version != Version(wire.Version1) || len(c.Versions) != 1 {
				t.Errorf("%s: got %d packets of %v, want %d of v1", name, got, c.Versions, len(live))
			}
		}
		if !found {
			t.Errorf("%s: the connection is not known", name)
		}
	}
}
