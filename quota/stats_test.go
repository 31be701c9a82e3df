package quota

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quicway/quicway/internal/test/quotatest"
)

func TestTop(t *testing.T) {
	c := mustNew(t, &Config{Now: newFakeClock().now, Source: Limits{Connections: 2}})
	for i := range 2 {
		wantAdmit(t, c, fmt.Sprintf("192.0.2.1:%d", i), true, PassNew)
		wantAdmit(t, c, fmt.Sprintf("192.0.2.2:%d", i), true, PassNew)
	}
	wantAdmit(t, c, "192.0.2.3:1", true, PassNew)
	if err := c.Deny(netip.MustParsePrefix("192.0.2.4/32"), 0, ""); err != nil {
		t.Fatal(err)
	}
	wantAdmit(t, c, "192.0.2.4:1", true, Denied)
	var got []string
	for _, s := range c.Top(3) {
		got = append(got, s.Source.Addr().String())
	}
	if want := "[192.0.2.4 192.0.2.1 192.0.2.2]"; fmt.Sprint(got) != want {
		t.Errorf("got %v, want %v", got, want)
	}
}

// TestTopOfMany checks Top with many sources in all shards, and with many values of n.
func TestTopOfMany(t *testing.T) {
	c := mustNew(t, nil)
	rng := rand.New(rand.NewPCG(1, 0))
	var want []SourceStats
	for i := range uint32(3000) {
		from := nth(i)
		at := c.sources.place(from.Addr())
		s := c.sources.lookupLocked(&at, c.clock.now())
		s.refused, s.admitted = uint64(rng.IntN(50)), uint64(rng.IntN(3))
		want = append(want, c.sources.statsOf(s))
	}
	slices.SortFunc(want, before)
	for _, n := range []int{-1, 0, 1, 10, 100, 2999, 3000, 3001, math.MaxInt} {
		if got := c.Top(n); !reflect.DeepEqual(got, want[:min(max(n, 0), len(want))]) && n > 0 || n <= 0 && len(got) > 0 {
			t.Errorf("the top %d of %d are %d, and not those", n, len(want), len(got))
		}
	}
}

// TestStatsAreCheap checks that Stats counts the entries of the lists, but does not ask the
// kernel for the packets of each entry.
func TestStatsAreCheap(t *testing.T) {
	clock := newFakeClock()
	c := mustNew(t, &Config{Now: clock.now})
	r := newRecorder(clock)
	c.enforcement.enforcer = r
	for i := range 10 {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), 32)
		if err := c.Add(Entry{List: List(i % 2), Prefix: p, Expires: clock.now().Add(time.Duration(i/2) * time.Minute)}); err != nil {
			t.Fatal(err)
		}
	}
	clock.advance(time.Minute)
	if s := c.Stats(); s.Denied != 3 || s.Allowed != 3 || r.asked != 0 {
		t.Errorf("%d are denied, %d allowed, and the kernel was asked %d times, want 3, 3, and 0", s.Denied, s.Allowed, r.asked)
	}
	for range c.Entries() {
	}
	if r.asked != 6 {
		t.Errorf("the kernel was asked %d times for the packets of 6 entries", r.asked)
	}
}

// TestJSON checks the JSON names, which stay, and that what is encoded can be decoded.
func TestJSON(t *testing.T) {
	at := time.Unix(1e9, 0).UTC()
	for _, tc := range []struct {
		value any
		want  string
	}{
		{
			&Stats{
				Passed: map[Reason]uint64{PassNew: 1}, Dropped: map[Reason]uint64{Denied: 2}, Kernel: map[Reason]uint64{PacketRate: 3},
				KernelErrors: 4, Admitted: 5, Retried: 6, Refused: map[Reason]uint64{RouteRate: 7}, Routes: map[string]RouteStats{"GET /": {8, 9}},
				Connections: 10, HalfOpen: 11, Sources: 12, Sites: 13, Denied: 14, Allowed: 15, LostEvents: 16, Withheld: 17,
				SendErrors: 18, DryRun: true, Limits: StatsLimits{Connections: 19, HalfOpen: 20, Sources: 21, Entries: 22},
			},
			`{"passed":{"new":1},"dropped":{"denied":2},"kernel":{"packet_rate":3},"kernel_errors":4,"admitted":5,"retried":6,` +
				`"refused":{"route_rate":7},"routes":{"GET /":{"passed":8,"refused":9}},"connections":10,"half_open":11,"sources":12,` +
				`"sites":13,"denied":14,"allowed":15,"lost_events":16,"withheld":17,"send_errors":18,"dry_run":true,` +
				`"limits":{"connections":19,"half_open":20,"sources":21,"entries":22}}`,
		},
		{
			&SourceStats{netip.MustParsePrefix("192.0.2.1/32"), 1, 2, 3, 4, 5},
			`{"source":"192.0.2.1/32","connections":1,"half_open":2,"admitted":3,"refused":4,"dropped":5}`,
		},
		{
			&Event{at, netip.MustParsePrefix("2001:db8::/64"), Drop, AttemptRate, 1, 2, 3, 4},
			`{"time":"2001-09-09T01:46:40Z","source":"2001:db8::/64","action":"drop","reason":"attempt_rate",` +
				`"connections":1,"half_open":2,"refused":3,"dropped":4}`,
		},
		{
			&Entry{AllowList, netip.MustParsePrefix("192.0.2.0/24"), "office", at, true, "list", 1},
			`{"list":"allow","prefix":"192.0.2.0/24","reason":"office","expires":"2001-09-09T01:46:40Z","end":true,"file":"list","packets":1}`,
		},
		{&Entry{Prefix: netip.MustParsePrefix("192.0.2.0/24")}, `{"list":"deny","prefix":"192.0.2.0/24","packets":0}`},
	} {
		text, err := json.Marshal(tc.value)
		if err != nil || string(text) != tc.want {
			t.Errorf("got  %s, %v\nwant %s", text, err, tc.want)
		}
		back := reflect.New(reflect.TypeOf(tc.value).Elem())
		if err := json.Unmarshal(text, back.Interface()); err != nil || !reflect.DeepEqual(back.Interface(), tc.value) {
			t.Errorf("decoded %+v, %v, want %+v", back.Elem(), err, tc.value)
		}
		for field, value := range reflect.ValueOf(tc.value).Elem().Fields() {
			if value.IsZero() && !strings.HasSuffix(field.Tag.Get("json"), "omitempty") && !strings.HasSuffix(field.Tag.Get("json"), "omitzero") && field.Name != "List" && field.Name != "Packets" {
				t.Errorf("this test does not set %s", field.Name)
			}
		}
	}
}

// TestNames checks that names of reasons, actions and lists are read as they are written.
func TestNames(t *testing.T) {
	for why := range numReasons {
		var back Reason
		if text, err := why.MarshalText(); err != nil || back.UnmarshalText(text) != nil || back != why {
			t.Errorf("%v is read as %v, %v", why, back, err)
		}
	}
	for a := range numActions {
		var back Action
		if text, err := a.MarshalText(); err != nil || back.UnmarshalText(text) != nil || back != a {
			t.Errorf("%v is read as %v, %v", a, back, err)
		}
	}
	for l := range numLists {
		var back List
		if text, err := l.MarshalText(); err != nil || back.UnmarshalText(text) != nil || back != l {
			t.Errorf("%v is read as %v, %v", l, back, err)
		}
	}
	for _, v := range []interface{ UnmarshalText([]byte) error }{new(Reason), new(Action), new(List)} {
		if err := v.UnmarshalText([]byte("reason 99")); err == nil {
			t.Errorf("%T: decoded an unknown name", v)
		}
	}
}

// TestSeriesFromTheStart checks that Stats has an entry for each reason before something
// happens, and that these are all reasons that the package uses there.
func TestSeriesFromTheStart(t *testing.T) {
	c := mustNew(t, nil)
	mustRoute(t, c, "a", RouteLimits{Total: RequestLimit{Rate: 1}})
	s := c.Stats()
	want := map[string]string{
		"passed": "allowed connection_rate connections continuing flow new other total_connection_rate total_connections",
		"dropped": "attempt_rate connection_rate connections denied packet_rate repeated short_initial total_connection_rate " +
			"total_connections",
		"kernel":  "attempt_rate connections denied packet_rate short_initial",
		"refused": "connection_rate connections denied half_open repeated request_rate route_rate total_connection_rate total_connections",
	}
	for name, all := range map[string]map[Reason]uint64{"passed": s.Passed, "dropped": s.Dropped, "kernel": s.Kernel, "refused": s.Refused} {
		var got []string
		for why, n := range all {
			got = append(got, why.String())
			if n != 0 {
				t.Errorf("%s: %v is %d at the start", name, why, n)
			}
		}
		slices.Sort(got)
		if strings.Join(got, " ") != want[name] {
			t.Errorf("%s has %q, want %q", name, got, want[name])
		}
	}
	if _, ok := s.Routes["a"]; !ok {
		t.Error("the route is missing")
	}
	for _, tc := range quotatest.Cases {
		var why Reason
		if err := why.UnmarshalText([]byte(tc.Reason)); err != nil {
			t.Fatal(err)
		}
		all := s.Dropped
		if tc.Pass {
			all = s.Passed
		}
		if _, ok := all[why]; !ok {
			t.Errorf("%s: %v is missing", tc.Name, why)
		}
	}
}
