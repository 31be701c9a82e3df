package monitor

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// again returns the packets of n connections between the same endpoints, one after
// another.
func again(tb testing.TB, n int) (all []sent) {
	tb.Helper()
	late := time.Duration(0)
	for i := range n {
		for _, s := range establishedBy(tb, clientAddr, fmt.Appendf(nil, "srv-%04d", i), fmt.Appendf(nil, "c%03d", i)) {
			s.at = s.at.Add(late)
			all = append(all, s)
		}
		late = all[len(all)-1].at.Sub(start) + time.Second
	}
	return all
}

// TestReusedEndpoints checks that the latest connection of a client that uses one
// socket for one after another is followed, however many there were.
func TestReusedEndpoints(t *testing.T) {
	const n = 30
	all := again(t, n)
	each := uint64(len(all) / n)
	tracker := newTracker(t, nil)
	track(tracker, all)
	bounded(t, tracker)
	for i, c := range connections(tracker) {
		if got := c.FromClient.Packets + c.FromServer.Packets; got != each {
			t.Errorf("connection %d has %d packets, want %d", c.Number, got, each)
		}
		if i == 0 && c.Number != n {
			t.Errorf("the latest is connection %d, want %d", c.Number, n)
		}
	}
}

// TestProbeAmongSeveral checks that a probe is found to belong to a connection that
// is kept, if others of the same address were evicted.
func TestProbeAmongSeveral(t *testing.T) {
	const second = "192.0.2.1:50002"
	all := again(t, maxShared+maxOwners+1)
	all = addShorts(all, 20, shortHeaders{second, serverAddr, newID, 1200}, shortHeaders{serverAddr, second, cliNo, 1200})
	tracker := newTracker(t, nil)
	track(tracker, all)
	bounded(t, tracker)
	for _, c := range connections(tracker) {
		for _, p := range c.Paths {
			if p.Client.String() == second {
				return
			}
		}
	}
	t.Error("no connection that is kept has the path")
}

// TestReusedEndpointsInAFullTable checks that a new connection between the
// endpoints of the one that makes room for it gets the flow.
func TestReusedEndpointsInAFullTable(t *testing.T) {
	tracker := newTracker(t, &Config{MaxConnections: 1})
	all := again(t, 3)
	track(tracker, all)
	bounded(t, tracker)
	c := only(t, tracker)
	if got, want := c.FromClient.Packets+c.FromServer.Packets, uint64(len(all)/3); got != want {
		t.Errorf("got %d packets, want %d", got, want)
	}
	if got := tracker.Stats().Tables["flows"].Entries; got != 1 {
		t.Errorf("got %d flows, want 1", got)
	}
}

// TestFullTable checks that all connections can be found in every way when the
// table is full.
func TestFullTable(t *testing.T) {
	const n = 100
	tracker := newTracker(t, &Config{MaxConnections: n})
	shorts(t, tracker, n)
	for name, table := range tracker.Stats().Tables {
		if table.Evicted != 0 && name != "handshakes" { // fewer of these are read at a time
			t.Errorf("%s has forgotten %d, and keeps %d of %d", name, table.Evicted, table.Entries, table.Limit)
		}
	}
	bounded(t, tracker)
}

// TestLeastUsefulPath checks that the path of a connection that is over makes room,
// whatever it has sent, or else the path with the fewest packets.
func TestLeastUsefulPath(t *testing.T) {
	const now = int64(time.Hour)
	for _, test := range []struct {
		silent [3]time.Duration // of the paths with 100, 5 and 50 packets
		want   int
	}{
		{[3]time.Duration{20 * time.Second, time.Second, 2 * time.Second}, 0},
		{[3]time.Duration{12 * time.Second, time.Second, 20 * time.Second}, 2},
		{[3]time.Duration{9 * time.Second, time.Second, 2 * time.Second}, 1},
		{[3]time.Duration{time.Second, time.Second, time.Second}, 1},
	} {
		f := &flow{}
		for i, packets := range []uint64{100, 5, 50} {
			p := &path{}
			p.sent[i%2] = halfPath{packets: packets, last: now - int64(test.silent[i])}
			f.paths = append(f.paths, p)
		}
		if got := slices.Index(f.paths, f.leastUseful(now)); got != test.want {
			t.Errorf("silent for %v: got %d, want %d", test.silent, got, test.want)
		}
	}
}
