package monitor

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// traffic is what a client and a server send on a path: a packet each at intervals.
type traffic struct {
	client           string
	toServer         string // the connection ID
	toClient         string
	from, to, pause  int // in milliseconds
	server           string
	probe, clientOut bool // with a probe before; only the client's packets
}

// packets returns the packets in the order of time.
func packets(begin []sent, all ...traffic) []sent {
	rng := rand.New(rand.NewPCG(5, uint64(len(all))))
	out := slices.Clone(begin)
	add := func(ms int, from, to, id string, length int) {
		b := make([]byte, length)
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		b[0] = 0x40 | b[0]&0x1f
		copy(b[1:], id)
		out = append(out, at(ms, from, to, b))
	}
	for _, x := range all {
		server := x.server
		if server == "" {
			server = serverAddr
		}
		if x.probe {
			add(x.from-12, x.client, server, x.toServer, 1200)
			add(x.from-8, server, x.client, x.toClient, 1200)
			add(x.from-4, x.client, server, x.toServer, 1200)
		}
		for ms := x.from; ms < x.to; ms += x.pause {
			add(ms, x.client, server, x.toServer, 100+rng.IntN(300))
			if !x.clientOut {
				add(ms+2, server, x.client, x.toClient, 300+rng.IntN(900))
			}
		}
	}
	slices.SortStableFunc(out, func(a, b sent) int { return a.at.Compare(b.at) })
	return out
}

// The connections of one host in the tests of open moves.
const (
	hostA, hostB, hostC = "192.0.2.1:50001", "192.0.2.1:50002", "192.0.2.1:50003"
	newPort             = "192.0.2.1:60000"
)

// pair returns the handshakes of a and b.
func pair(tb testing.TB) []sent {
	tb.Helper()
	a := establishedBy(tb, hostA, []byte("srv-id-A"), []byte("cliA"))
	b := establishedBy(tb, hostB, []byte("srv-id-B"), []byte("cliB"))
	return append(a, b...)
}

// outcome describes which connection has a path at a client's endpoint.
func outcome(tracker *Tracker, client string) string {
	var out []string
	all := connections(tracker)
	for i := range all {
		c := &all[i]
		for _, p := range c.Paths {
			if p.Client.String() != client && p.Server.String() != client {
				continue
			}
			text := "itself"
			if c.Confidence != MidFlow { // the ID ends in the digit of the port
				last := c.OriginalID[len(c.OriginalID)-1]
				text = string(rune('A' + last - '1'))
			}
			if n := len(c.PathChanges); n > 0 {
				last := c.PathChanges[n-1]
				text += fmt.Sprintf(" %v %v", last.Kind, last.Confidence)
				if len(last.Candidates) > 0 {
					text += fmt.Sprintf(" of %d", len(last.Candidates)+last.CandidatesOmitted)
				}
			}
			out = append(out, text)
		}
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

// TestOpenMove checks whose a path is that one of two connections of a host may have moved to.
func TestOpenMove(t *testing.T) {
	a := func(from, to int) traffic {
		return traffic{client: hostA, toServer: "srv-id-A", toClient: "cliA", from: from, to: to, pause: 20}
	}
	b := func(from, to int) traffic {
		return traffic{client: hostB, toServer: "srv-id-B", toClient: "cliB", from: from, to: to, pause: 20}
	}
	fresh := func(from, to int) traffic {
		return traffic{client: newPort, toServer: "new-id-1", toClient: "new1", from: from, to: to, pause: 20, probe: true}
	}
	back := func(from, to int) traffic {
		return traffic{client: hostA, toServer: "new-id-9", toClient: "new9", from: from, to: to, pause: 20}
	}
	for _, test := range []struct {
		name string
		all  []traffic
		want string
	}{
		{"the other one goes on", []traffic{a(300, 2000), b(300, 4000), fresh(2000, 4000)}, "A migration medium"},
		{"the other one goes on, for a while", []traffic{a(300, 2000), b(300, 3000), fresh(2000, 4000)}, "A migration medium"},
		{"the older one goes on", []traffic{a(300, 4000), b(300, 2000), fresh(2000, 4000)}, "B migration medium"},
		{"the other one was silent", []traffic{a(300, 2000), b(300, 1000), fresh(2000, 4000)}, "A migration medium"},
		{"the older one was silent", []traffic{a(300, 1000), b(300, 2000), fresh(2000, 4000)}, "B migration medium"},
		{"both fall silent", []traffic{a(300, 2000), b(300, 2000), fresh(2000, 4000)}, "itself migration low of 2"},
		{"both fall silent, one goes on later", []traffic{a(300, 2000), b(300, 2000), b(3000, 5000), fresh(2000, 5000)}, "A migration medium"},
		{"both were silent", []traffic{a(300, 1000), b(300, 1000), fresh(3000, 5000)}, "itself migration low of 2"},
		{"both go on", []traffic{a(300, 4000), b(300, 4000), fresh(2000, 4000)}, "itself migration low"},
		{"only a probe", []traffic{a(300, 2000), b(300, 4000), fresh(2000, 2000)}, "itself probe low of 2"},
		{"there and back", []traffic{a(300, 2000), a(2500, 5000), b(300, 2000), fresh(2000, 2500)}, "itself migration low of 2"},
		{"several paths at a time", []traffic{a(300, 5000), b(300, 1000), fresh(2000, 5000)}, "itself migration low of 1"},
		{"the client's packets alone", []traffic{a(300, 2000), b(300, 4000), {client: newPort, toServer: "new-id-1", from: 2000, to: 4000, pause: 20, clientOut: true}}, ""},
		{"other IDs", []traffic{a(300, 2000), b(300, 4000), {client: newPort, toServer: "new5", toClient: "new1", from: 2000, to: 4000, pause: 20, probe: true}},
			"itself"},
		{"an ID of a connection", []traffic{a(300, 2000), b(300, 2000), fresh(2000, 3000), {client: newPort, toServer: "srv-id-A", toClient: "new1", from: 3000, to: 3100, pause: 20}},
			"A migration high"},
		{"back with an ID of the path", []traffic{a(300, 2000), b(300, 2000), fresh(2000, 3000), {client: hostA, toServer: "new-id-1", toClient: "new1", from: 3000, to: 3100, pause: 20}},
			"A migration medium"},
		{"the port is used again", []traffic{a(300, 2000), b(300, 4000), fresh(2000, 6000),
			{client: hostA, toServer: "new-id-B", toClient: "newB", from: 4000, to: 6000, pause: 20, probe: true}}, "A migration medium"},
		{"back to the old path", []traffic{a(300, 2000), b(300, 5000), fresh(2000, 3500), back(3500, 5000)}, "A migration medium"},
	} {
		for _, family := range []string{"IPv4", "IPv6"} {
			all := packets(pair(t), test.all...)
			at := newPort
			if family == "IPv6" {
				all, at = toIPv6(all), "[2001:db8::c000:201]:60000"
			}
			tracker := newTracker(t, nil)
			track(tracker, all)
			if got := outcome(tracker, at); got != test.want {
				t.Errorf("%s, %s: got %q, want %q", test.name, family, got, test.want)
			}
			if got, want := outcome(tracker, hostA), "A migration medium, B migration medium"; test.name == "the port is used again" && family == "IPv4" && got != want {
				t.Errorf("%s, %s: of the port, got %q, want %q", test.name, family, got, want)
			}
			bounded(t, tracker)
			countedOnce(t, tracker, all)
			counted(t, tracker)
		}
	}
}

// countedOnce checks that each packet was counted once for a path between its endpoints.
func countedOnce(t *testing.T, tracker *Tracker, all []sent) {
	t.Helper()
	got, want := map[netip.AddrPort]Traffic{}, map[netip.AddrPort]Traffic{}
	for c := range tracker.Connections() {
		for _, p := range c.Paths {
			n := got[p.Client]
			n.add(Traffic{Packets: p.FromClient.Packets, Bytes: p.FromClient.Bytes})
			got[p.Client] = n
		}
	}
	for _, s := range all {
		if n, ok := got[s.from]; ok {
			n = want[s.from]
			n.add(Traffic{Packets: 1, Bytes: uint64(len(s.data))})
			want[s.from] = n
		}
	}
	if !maps.Equal(got, want) {
		t.Errorf("got %v from the clients' endpoints, want %v", got, want)
	}
}

// TestMergedEvent checks what the events say about a path that was a connection of its own
// until it was known whose it is.
func TestMergedEvent(t *testing.T) {
	all := packets(pair(t),
		traffic{client: hostA, toServer: "srv-id-A", toClient: "cliA", from: 300, to: 2000, pause: 20},
		traffic{client: hostB, toServer: "srv-id-B", toClient: "cliB", from: 300, to: 4000, pause: 20},
		traffic{client: newPort, toServer: "new-id-1", toClient: "new1", from: 2000, to: 4000, pause: 20, probe: true})
	tracker := newTracker(t, nil)
	track(tracker, all)
	own, a := uint64(0), uint64(0)
	var got []string
	for _, e := range tracker.take() {
		if e.Kind == EventRTT || e.Kind == EventIdentified {
			continue
		}
		text := e.Kind.String()
		switch {
		case e.Kind == EventNew && e.Connection.Paths[0].Client.String() == newPort:
			own = e.Connection.Number
		case e.Kind == EventNew && e.Connection.Paths[0].Client.String() == hostA:
			a = e.Connection.Number
		}
		if e.Change != nil {
			text += " " + e.Change.Kind.String() + " " + e.Change.Confidence.String()
		}
		if e.Kind == EventMerged && (e.Connection.Number != own || e.MergedInto != a) {
			t.Errorf("connection %d was merged into %d, want %d into %d", e.Connection.Number, e.MergedInto, own, a)
		}
		got = append(got, text)
	}
	want := []string{"new", "new", "new", "path_change probe low", "path_change migration low", "merged", "path_change probe medium", "path_change migration medium"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestOpenMoveWithoutIDs checks connections of which one side, or both, have no connection IDs.
func TestOpenMoveWithoutIDs(t *testing.T) {
	for _, test := range []struct{ name, server, client, newServer, newClient string }{
		{"the client", "srv-id-", "", "new-id-1", ""},
		{"the server", "", "cli", "", "new1"},
		{"both", "", "", "", ""},
	} {
		id := func(prefix, end string) string {
			if prefix == "" {
				return ""
			}
			return prefix + end
		}
		begin := append(establishedBy(t, hostA, []byte(id(test.server, "A")), []byte(id(test.client, "A"))),
			establishedBy(t, hostB, []byte(id(test.server, "B")), []byte(id(test.client, "B")))...)
		a := traffic{client: hostA, toServer: id(test.server, "A"), toClient: id(test.client, "A"), from: 300, to: 2000, pause: 20}
		b := traffic{client: hostB, toServer: id(test.server, "B"), toClient: id(test.client, "B"), from: 300, to: 4000, pause: 20}
		fresh := traffic{client: newPort, toServer: test.newServer, toClient: test.newClient, from: 2000, to: 4000, pause: 20, probe: true}
		for want, all := range map[string][]sent{
			"medium":   packets(begin, a, b, fresh),
			"low of 2": packets(begin, a, traffic{client: b.client, toServer: b.toServer, toClient: b.toClient, from: 300, to: 2000, pause: 20}, fresh),
		} {
			tracker := newTracker(t, nil)
			track(tracker, all)
			if got := outcome(tracker, newPort); !strings.HasSuffix(got, want) {
				t.Errorf("without IDs of %s: got %q, want %q", test.name, got, want)
			}
			countedOnce(t, tracker, all)
			counted(t, tracker)
			bounded(t, tracker)
		}
	}
}

// TestOpenMovesAreBounded checks that there are not more open moves than the limit, and that a
// path whose open move has ended stays a connection of its own.
func TestOpenMovesAreBounded(t *testing.T) {
	all := []traffic{{client: hostA, toServer: "srv-id-A", toClient: "cliA", from: 300, to: 1000, pause: 20},
		{client: hostB, toServer: "srv-id-B", toClient: "cliB", from: 300, to: 1000, pause: 20}}
	for i := range maxOpenMoves + 20 {
		all = append(all, traffic{client: fmt.Sprintf("192.0.2.1:%d", 20_000+i), toServer: fmt.Sprintf("new-%04d", i), toClient: fmt.Sprintf("%04d", i),
			from: 3000 + i, to: 5000, pause: 500, probe: true})
	}
	tracker := newTracker(t, nil)
	track(tracker, packets(pair(t), all...))
	bounded(t, tracker)
	conns := connections(tracker)
	if len(conns) != len(all) {
		t.Errorf("got %d connections, want %d", len(conns), len(all))
	}
	for _, c := range conns {
		for _, change := range c.PathChanges {
			if change.Confidence != Low || len(change.Candidates) > maxCandidates || len(change.Candidates)+change.CandidatesOmitted < 2 {
				t.Fatalf("connection %d: got %+v", c.Number, change)
			}
		}
	}
}
