package monitor

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quicway/quicway/internal/decap"
)

// mustFilter parses a filter.
func mustFilter(tb testing.TB, text string) *Filter {
	tb.Helper()
	f, err := ParseFilter(text)
	if err != nil {
		tb.Fatal(err)
	}
	return f
}

// ends returns two endpoints as a flow's key.
func ends(a, b string) tuple {
	key, _ := tupleOf(&decap.Datagram{Src: decap.EndpointOf(netip.MustParseAddrPort(a)), Dst: decap.EndpointOf(netip.MustParseAddrPort(b))})
	return key
}

// TestFilterMatches checks what a filter says of two endpoints with a name, without one, and before
// the name is known.
func TestFilterMatches(t *testing.T) {
	v4, v6 := ends(clientAddr, serverAddr), ends("[2001:db8::1]:50000", "[2001:db8:1::2]:443")
	named := func(key tuple, name string) subject { return subject{key, name, true} }
	for _, test := range []struct {
		filter string
		of     subject
		want   verdict
	}{
		{"host 192.0.2.1", subject{ends: v4}, yes},
		{"host 198.51.100.2", subject{ends: v4}, yes},
		{"host ::ffff:192.0.2.1", subject{ends: v4}, yes},
		{"host 192.0.2.2", subject{ends: v4}, no},
		{"host 2001:db8:1::2", subject{ends: v6}, yes},
		{"port 443", subject{ends: v4}, yes},
		{"port 50000", subject{ends: v4}, yes},
		{"port 53", subject{ends: v4}, no},
		{"net 192.0.2.0/24", subject{ends: v4}, yes},
		{"net 192.0.3.0/24", subject{ends: v4}, no},
		{"net 0.0.0.0/0", subject{ends: v6}, no},
		{"net ::/0", subject{ends: v4}, no},
		{"net 2001:db8::/32", subject{ends: v6}, yes},
		{"net 2001:db8:1::/48", subject{ends: v6}, yes},
		{"net 2001:db9::/32", subject{ends: v6}, no},
		{"host 192.0.2.1 and port 443", subject{ends: v4}, yes},
		{"host 192.0.2.1 and port 53", subject{ends: v4}, no},
		{"port 53 or port 443", subject{ends: v4}, yes},
		{"port 53 and port 443 or port 50000", subject{ends: v4}, yes},
		{"not port 53", subject{ends: v4}, yes},
		{"not not port 53", subject{ends: v4}, no},
		{"!port 53&&port 443", subject{ends: v4}, yes},
		{"port 53||(port 443)", subject{ends: v4}, yes},
		{"not (port 53 or port 443)", subject{ends: v4}, no},
		{"not port 53 and port 53", subject{ends: v4}, no}, // not (port 53 and port 53) would be yes

		{"name a.example", subject{ends: v4}, maybe},
		{"not name a.example", subject{ends: v4}, maybe},
		{"name a.example and port 53", subject{ends: v4}, no},
		{"name a.example or port 443", subject{ends: v4}, yes},
		{"name a.example", named(v4, "A.Example"), yes},
		{"name A.EXAMPLE", named(v4, "a.example"), yes},
		{"name a.example", named(v4, "b.a.example"), no},
		{"name *.example", named(v4, "b.a.example"), yes},
		{"name *.example", named(v4, "example"), no},
		{"name .a.example", named(v4, "a.example"), yes},
		{"name .a.example", named(v4, "b.c.a.example"), yes},
		{"name .a.example", named(v4, "ba.example"), no},
		{"name .a*e", named(v4, "b.a.example"), yes},
		{"name *a*b*c", named(v4, "xaxxbbxc"), yes},
		{"name *a*b*c", named(v4, "xaxxcbx"), no},
		{"name a*", named(v4, "a"), yes},
		{"name *", named(v4, "a"), yes},
		{"name *", named(v4, ""), no},
		{"not name *", named(v4, ""), yes},
		{"name *", named(v4, strings.Repeat("a", 256)), no}, // not a name in DNS
	} {
		if got := mustFilter(t, test.filter).root.match(test.of); got != test.want {
			t.Errorf("%s of %v, %q: got %d, want %d", test.filter, test.of.ends, test.of.name, got, test.want)
		}
	}
}

// TestFilterErrors checks that an error names what is wrong, and where.
func TestFilterErrors(t *testing.T) {
	deep := strings.Repeat("(", 200) + "port 1" + strings.Repeat(")", 200)
	for filter, want := range map[string]string{
		"hots 192.0.2.1":                   `character 1: "hots" is not host`,
		"host":                             "character 5: the value of host is missing at the end",
		"host and port 1":                  `character 6: "and": not an IP address`,
		"host example.org":                 `character 6: "example.org": not an IP address`,
		"host fe80::1%eth0":                "character 6",
		"port 65536":                       `character 6: "65536": not a port`,
		"port -1":                          "character 6",
		"net 192.0.2.1":                    "character 5",
		"net 192.0.2.1/24":                 "not a network but an address in 192.0.2.0/24",
		"name bücher.example":              "character 6",
		"name (x)":                         `character 6: "(" is not the value of name`,
		"port 1 port 2":                    `character 8: "port" is not "and" or "or"`,
		"port 1 and":                       "character 11: host, port, net, name, not or a parenthesis is missing at the end",
		"and port 1":                       "character 1",
		"(port 1":                          "character 1: the parenthesis is not closed",
		"port 1)":                          `character 7: ")" is not`,
		"()":                               "character 2",
		"port 1 & port 2":                  `character 8: "&"`,
		"port 1 or port 2 and port 3":      `character 18: an "and" after an "or" needs parentheses`,
		"name ü and hots":                  "character 6",
		deep:                               "character 101",
		strings.Repeat("not ", 200):        "more than 100",
		"name " + strings.Repeat("a", 256): "longer than 255",
	} {
		f, err := ParseFilter(filter)
		if !errors.Is(err, ErrFilter) || f != nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40s: got %v, want %q", filter, err, want)
		}
	}
}

// TestEmptyFilter checks the filters that select all.
func TestEmptyFilter(t *testing.T) {
	for _, f := range []*Filter{nil, {}, mustFilter(t, " \t\n")} {
		if f.excludes(ends(clientAddr, serverAddr)) || !f.matches(&connection{}) {
			t.Errorf("%q does not select all", f)
		}
	}
}

// FuzzParseFilter checks that any text gives a filter or an error, and that the answers fit together.
func FuzzParseFilter(f *testing.F) {
	for _, text := range []string{"", "host 192.0.2.1 and not (port 443 or name *.x.example)", "net ::/0||!name .a", "((("} {
		f.Add(text, "a.example")
	}
	f.Fuzz(func(t *testing.T, text, name string) {
		filter, err := ParseFilter(text)
		if err != nil {
			if !errors.Is(err, ErrFilter) || filter != nil {
				t.Fatalf("got %v and %v", filter, err)
			}
			return
		}
		if filter.root == nil {
			return
		}
		key := ends(clientAddr, serverAddr)
		before := filter.root.match(subject{ends: key})
		if after := filter.root.match(subject{key, name, true}); after == maybe || before != maybe && after != before {
			t.Errorf("%q: %d, and with the name %q: %d", text, before, name, after)
		}
		negated, err := ParseFilter("not (" + text + ")")
		if err != nil {
			return // too deep
		}
		if got := negated.root.match(subject{ends: key}); got != -before {
			t.Errorf("%q: %d, and its opposite %d", text, before, got)
		}
	})
}

// filtered tracks packets with a filter.
func filtered(tb testing.TB, filter string, all ...sent) *Tracker {
	tb.Helper()
	tracker := newTracker(tb, &Config{Filter: mustFilter(tb, filter)})
	track(tracker, all)
	return tracker
}

// names returns the names of the connections that are reported.
func names(t *Tracker) (out []string) {
	for _, c := range connections(t) {
		out = append(out, c.ServerName)
	}
	slices.Sort(out)
	return out
}

// TestFilterOfConnections checks which connections are reported, and that the events are those of
// these connections.
func TestFilterOfConnections(t *testing.T) {
	second := func(name string) []sent {
		return []sent{at(500, "192.0.2.2:50001", "198.51.100.3:853", initialOf(t, []byte("second-1"), cliID, 0, cryptoFrame(0, helloOf(name))))}
	}
	all := append(establishedConn(t), second("second.example")...)
	all = append(all, addShorts(all[:1:1], 20, shortHeaders{"192.0.2.3:1", "192.0.2.4:2", []byte("a-random"), 300}, shortHeaders{"192.0.2.4:2", "192.0.2.3:1", []byte("another1"), 300})[1:]...)
	for filter, want := range map[string][]string{
		"":                                  {"", "moves.example", "second.example"},
		"port 443":                          {"moves.example"},
		"port 853":                          {"second.example"},
		"net 192.0.2.0/31":                  {"moves.example"},
		"host 192.0.2.3":                    {""},
		"name *.example":                    {"moves.example", "second.example"},
		"name second.*":                     {"second.example"},
		"not name second.*":                 {"", "moves.example"},
		"name second.* and port 443":        nil,
		"name second.* or port 443":         {"moves.example", "second.example"},
		"not name * or port 853":            {"", "second.example"},
		"host 192.0.2.9 and name *.example": nil,
	} {
		tracker := filtered(t, filter, all...)
		if got := names(tracker); !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", filter, got, want)
		}
		began := map[uint64]bool{}
		for _, e := range tracker.take() {
			if e.Kind == EventNew {
				began[e.Connection.Number] = true
			} else if !began[e.Connection.Number] {
				t.Errorf("%s: got the event %v before that of the new connection", filter, e.Kind)
			}
		}
		if len(began) != len(want) {
			t.Errorf("%s: got the events of %d connections, want %d", filter, len(began), len(want))
		}
	}
}

// TestFilterKeepsNothing checks that nothing is kept of packets that the filter excludes, and that
// they are counted.
func TestFilterKeepsNothing(t *testing.T) {
	all := append(establishedConn(t), noise(200)...)
	all = append(all, play(t, nil, true, func(s *scene) { s.exchange(s.dial(nil), 20000) })...)
	tracker := filtered(t, "host 203.0.113.1", all...)
	s := tracker.Stats()
	for name, table := range s.Tables {
		if table.Entries > 0 {
			t.Errorf("there are %d %s", table.Entries, name)
		}
	}
	if n := uint64(len(all)); s.Filtered != n || s.Other != n || s.Datagrams != n {
		t.Errorf("%d datagrams were filtered of %d others and %d, want %d", s.Filtered, s.Other, s.Datagrams, n)
	}
}

// TestFilterKeepsMoving checks that a connection which the filter has selected stays, wherever it
// moves, and has all its packets.
func TestFilterKeepsMoving(t *testing.T) {
	for name, all := range map[string][]sent{
		"rebinding": addShorts(establishedConn(t), 20, shortHeaders{"203.0.113.9:50001", serverAddr, oldID, 300}, shortHeaders{serverAddr, "203.0.113.9:50001", cliID, 300}),
		"migration": play(t, nil, false, func(s *scene) { s.migrate("203.0.113.9:50002") }),
	} {
		want := newTracker(t, nil)
		track(want, all)
		tracker := filtered(t, "host 192.0.2.1", all...)
		got, whole := only(t, tracker), only(t, want)
		if got.FromClient != whole.FromClient || got.FromServer != whole.FromServer || !slices.Equal(kinds(got), kinds(whole)) {
			t.Errorf("%s: got %v and %v with %v, want %v and %v with %v", name,
				got.FromClient, got.FromServer, kinds(got), whole.FromClient, whole.FromServer, kinds(whole))
		}
		if s := tracker.Stats(); s.Filtered > s.Other {
			t.Errorf("%s: %d datagrams were filtered of %d others", name, s.Filtered, s.Other)
		}
		// A filter by the new address selects it once it is there.
		if got := only(t, filtered(t, "host 203.0.113.9 or name none.example", all...)); len(got.Paths) != len(whole.Paths) {
			t.Errorf("%s: got %d paths, want %d", name, len(got.Paths), len(whole.Paths))
		}
	}
}

// TestFilterShuns checks that a connection which the filter excludes is not taken for the new path
// of another one at the same server, though both its ends send full datagrams first.
func TestFilterShuns(t *testing.T) {
	const other = "203.0.113.7:40000"
	begins := establishedBy(t, other, []byte("other-id"), []byte("oth1"))[:2]
	begins[1].data = append(begins[1].data, make([]byte, 1200)...)
	for i := range begins {
		begins[i].at = begins[i].at.Add(time.Second)
	}
	all := addShorts(append(establishedConn(t), begins...), 5,
		shortHeaders{other, serverAddr, []byte("other-id"), 1200}, shortHeaders{serverAddr, other, []byte("oth1"), 1200})
	tracker := filtered(t, "host 192.0.2.1", all...)
	if c := only(t, tracker); len(c.Paths) != 1 || len(c.PathChanges) != 0 {
		t.Errorf("got the paths %v", c.Paths)
	}
}

// TestFilterDoesNotAllocate checks that packets which a filter excludes do not allocate.
func TestFilterDoesNotAllocate(t *testing.T) {
	tracker := filtered(t, "not (port 443 or net 2001:db8::/32) and name *.example or host 192.0.2.1")
	var frames []*Packet
	for _, s := range append(shorts(t, tracker, 20), noise(50)...) {
		frames = append(frames, frame(s))
	}
	if n := testing.AllocsPerRun(100, func() {
		for _, p := range frames {
			tracker.Packet(p)
		}
	}); n != 0 {
		t.Errorf("%v allocations for %d packets", n, len(frames))
	}
}

// TestFilterOfNoName checks that a connection whose ClientHello has not come is one without a name
// once none can come: when it is closed, or all packets were read.
func TestFilterOfNoName(t *testing.T) {
	half := at(0, clientAddr, serverAddr, initialOf(t, []byte("original"), cliID, 0, cryptoFrame(0, helloOf("half.example")[:20])))
	const filter = "not name *.example"
	tracker := newTracker(t, &Config{Filter: mustFilter(t, filter), MaxConnections: 1})
	track(tracker, []sent{half})
	if got := names(tracker); len(got) > 0 {
		t.Errorf("got %q while the name may come", got)
	}
	track(tracker, establishedBy(t, "192.0.2.7:50000", []byte("other-id"), []byte("oth1")))
	var events []EventKind
	for _, e := range tracker.take() {
		events = append(events, e.Kind)
	}
	if !slices.Equal(events, []EventKind{EventNew, EventClosed}) {
		t.Errorf("got %v, want that it was new and that it was closed", events)
	}

	source, err := NewReader(bytes.NewReader(pcapOf(t, decap.LinkRaw, half)))
	if err != nil {
		t.Fatal(err)
	}
	m, err := New(source, &Config{Filter: mustFilter(t, filter)})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := names(m.Tracker()); !slices.Equal(got, []string{""}) {
		t.Errorf("got %q when all was read, want the connection without a name", got)
	}
}

// TestFilterBalance checks that tables keep their bounds and counters agree for all kinds of packets,
// whatever a filter selects.
func TestFilterBalance(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	scenes := append(establishedConn(t), noise(100)...)
	scenes = append(scenes, play(t, nil, true, func(s *scene) { s.migrate("203.0.113.9:50002") })...)
	scenes = append(scenes, establishedBy(t, "192.0.2.9:50003", []byte("other-id"), []byte("oth1"))...)
	for _, filter := range []string{"host 192.0.2.1", "port 50002", "not port 443", "name *.example and not host 192.0.2.9", "host 203.0.113.9 or name moves.*"} {
		for range 5 {
			all := slices.Clone(scenes)
			for range len(all) / 4 {
				i, j := rng.IntN(len(all)), rng.IntN(len(all))
				all[i].data, all[j].data = all[j].data, all[i].data
			}
			tracker := newTracker(t, &Config{Filter: mustFilter(t, filter), MaxConnections: 4, Idle: time.Second})
			track(tracker, all)
			bounded(t, tracker)
			if s := tracker.Stats(); s.Filtered > s.Other || s.Tracked+s.Other != s.Datagrams {
				t.Errorf("%s: %d filtered of %d other and %d tracked, of %d", filter, s.Filtered, s.Other, s.Tracked, s.Datagrams)
			}
		}
	}
}
