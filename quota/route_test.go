package quota

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go/http3"

	"github.com/quicway/quicway/internal/test/nettest"
)

func mustRoute(t *testing.T, c *Controller, name string, l RouteLimits) *Route {
	t.Helper()
	r, err := c.Route(name, l)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestRouteLimits checks each limit of a route: how many of ten requests pass, and how long
// the others have to wait.
func TestRouteLimits(t *testing.T) {
	one := RequestLimit{Rate: 0.5, Burst: 2}
	same := func(int) string { return "192.0.2.1" }
	others := func(i int) string { return fmt.Sprintf("192.0.2.%d", i) }
	neighbours := func(i int) string { return fmt.Sprintf("2001:db8:0:%x::1", i) }
	for _, tc := range []struct {
		name   string
		conf   Config
		limits RouteLimits
		from   func(int) string
		want   int // requests that pass
		wait   time.Duration
	}{
		{"source", Config{}, RouteLimits{Source: one}, same, 2, 0},
		{"other sources", Config{}, RouteLimits{Source: one}, others, 10, 0},
		{"site of eight sources", Config{}, RouteLimits{Source: RequestLimit{Rate: 0.5, Burst: 1}}, neighbours, 8, time.Second / 4},
		{"site by default", Config{}, RouteLimits{Source: RequestLimit{Rate: 0.5}}, neighbours, 8, time.Second / 4},
		{"site", Config{}, RouteLimits{Source: one, Site: RequestLimit{Rate: 0.5, Burst: 3}}, neighbours, 3, 0},
		{"no site", Config{}, RouteLimits{Source: one, Site: RequestLimit{Rate: -1}}, neighbours, 10, 0},
		{"total", Config{}, RouteLimits{Total: one}, others, 2, 0},
		{"dry run", Config{DryRun: true}, RouteLimits{Source: one}, same, 10, 0},
		{"override", Config{Overrides: []Override{{Prefix: netip.MustParsePrefix("192.0.2.0/24"), Limits: Limits{RequestRate: 1e6}}}}, RouteLimits{Source: one}, same, 2, 0},
		{"shared", Config{Overrides: []Override{{Prefix: netip.MustParsePrefix("192.0.2.0/24"), Shared: true}}}, RouteLimits{Source: one}, same, 10, 0},
		{"shared, total", Config{Overrides: []Override{{Prefix: netip.MustParsePrefix("192.0.2.0/24"), Shared: true}}}, RouteLimits{Source: one, Total: one}, same, 2, 0},
		{"exempt", Config{Overrides: []Override{{Prefix: netip.MustParsePrefix("192.0.2.0/24"), Exempt: true}}}, RouteLimits{Source: one, Total: one}, same, 10, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			clock := newFakeClock()
			tc.conf.Now = clock.now
			c := mustNew(t, &tc.conf)
			r := mustRoute(t, c, "a", tc.limits)
			passed := 0
			for i := range 10 {
				wait := r.Request(netip.MustParseAddr(tc.from(i)))
				if wait == 0 {
					passed++
				} else if wait != cmp.Or(tc.wait, 2*time.Second) {
					t.Errorf("request %d has to wait for %v", i, wait)
				}
			}
			if passed != tc.want {
				t.Errorf("%d requests passed, want %d", passed, tc.want)
			}
			refused := uint64(10 - tc.want)
			if tc.conf.DryRun {
				refused = 8
			}
			if s := c.Stats(); s.Routes["a"] != (RouteStats{uint64(tc.want), refused}) || s.Refused[RouteRate] != refused || s.Refused[RequestRate] != 0 {
				t.Errorf("counted %+v, %v", s.Routes, s.Refused)
			}
			clock.advance(2 * time.Second)
			if wait := r.Request(netip.MustParseAddr(tc.from(9))); wait != 0 {
				t.Errorf("after the wait it has to wait for %v", wait)
			}
		})
	}
}

// TestRouteHandler checks that a route limits its handlers only, in addition to the limits of
// the controller, and what it answers.
func TestRouteHandler(t *testing.T) {
	c := mustNew(t, &Config{Now: newFakeClock().now, Source: Limits{RequestRate: 1e-6, RequestBurst: 8}})
	login := mustRoute(t, c, "login", RouteLimits{Source: RequestLimit{Rate: 0.1, Burst: 2}})
	served := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Pattern) })
	mux := http.NewServeMux()
	mux.Handle("POST /login", login.Handler(served))
	mux.Handle("POST /signup", login.Handler(served)) // shares its limits
	mux.Handle("/", served)
	h := c.Handler(mux)
	for i, tc := range []struct {
		request, from string
		want          int
		retryAfter    string
	}{
		{"POST /login", "192.0.2.1:1", http.StatusOK, ""},
		{"POST /signup", "192.0.2.1:2", http.StatusOK, ""},
		{"POST /login", "192.0.2.1:3", http.StatusTooManyRequests, "10"},
		{"POST /signup", "192.0.2.1:3", http.StatusTooManyRequests, "10"},
		{"GET /login", "192.0.2.1:3", http.StatusOK, ""},
		{"GET /", "192.0.2.1:3", http.StatusOK, ""},
		{"POST /login", "192.0.2.2:3", http.StatusOK, ""},
		{"GET /", "192.0.2.1:3", http.StatusOK, ""},
		{"GET /", "192.0.2.1:3", http.StatusOK, ""},
		{"GET /", "192.0.2.1:3", http.StatusTooManyRequests, "86400"},
	} {
		method, path, _ := strings.Cut(tc.request, " ")
		r, w := httptest.NewRequest(method, path, nil), httptest.NewRecorder()
		r.RemoteAddr = tc.from
		h.ServeHTTP(w, r)
		if got := w.Header().Get("Retry-After"); w.Code != tc.want || got != tc.retryAfter {
			t.Errorf("request %d, %s: status %d, Retry-After %q, want %d and %q", i, tc.request, w.Code, got, tc.want, tc.retryAfter)
		}
	}
	s, top := c.Stats(), c.Top(1)
	if s.Refused[RouteRate] != 2 || s.Refused[RequestRate] != 1 || top[0].Refused != 3 {
		t.Errorf("counted %+v, %+v", s.Refused, top)
	}
	if err := c.Deny(netip.MustParsePrefix("192.0.2.9/32"), 0, ""); err != nil {
		t.Fatal(err)
	}
	r, w := httptest.NewRequest("POST", "/login", nil), httptest.NewRecorder()
	r.RemoteAddr = "192.0.2.9:1"
	if mux.ServeHTTP(w, r); w.Code != http.StatusForbidden {
		t.Errorf("a denied address got status %d from the route", w.Code)
	}
}

// TestRouteConnections checks the limit of a connection on each of several routes.
func TestRouteConnections(t *testing.T) {
	runLab(t, nil, func(l *lab) {
		l.net.Set(nettest.Conditions{})
		plain := mustRoute(t, l.c, "plain", RouteLimits{Source: RequestLimit{Rate: 100}})
		first := mustRoute(t, l.c, "first", RouteLimits{Connection: RequestLimit{Rate: 1e-6, Burst: 1}})
		second := mustRoute(t, l.c, "second", RouteLimits{Connection: RequestLimit{Rate: 1e-6, Burst: 2}})
		mux := http.NewServeMux()
		mux.Handle("/plain", plain.Handler(http.HandlerFunc(l.serve)))
		mux.Handle("/first", first.Handler(http.HandlerFunc(l.serve)))
		mux.Handle("/second", second.Handler(http.HandlerFunc(l.serve)))
		l.http.Handler = l.c.Handler(mux)
		for range 2 {
			c := l.client("198.51.100.1")
			defer c.close()
			conn, err := c.dial(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			h3 := (&http3.Transport{}).NewClientConn(conn)
			for path, want := range map[string]int{"/second": 2, "/first": 1, "/plain": 4} {
				served := 0
				for range 4 {
					r, err := http.NewRequest("GET", "https://server"+path, nil)
					if err != nil {
						t.Fatal(err)
					}
					resp, err := h3.RoundTrip(r)
					if err != nil {
						t.Fatal(err)
					}
					resp.Body.Close()
					if resp.StatusCode == http.StatusOK {
						served++
					}
				}
				if served != want {
					t.Errorf("%s served %d requests of a connection, want %d", path, served, want)
				}
			}
		}
		if s := l.c.Stats().Routes; s["first"] != (RouteStats{2, 6}) || s["second"] != (RouteStats{4, 4}) || s["plain"] != (RouteStats{8, 0}) {
			t.Errorf("counted %+v", s)
		}
	})
}

// TestSlotOfAnotherController checks that a route does not use the slot of a connection that
// another controller has admitted.
func TestSlotOfAnotherController(t *testing.T) {
	limits := RouteLimits{Connection: RequestLimit{Rate: 1e-6, Burst: 1}}
	c, other := mustNew(t, nil), mustNew(t, nil)
	slot := wantAdmit(t, other, "192.0.2.1:1", true, PassNew)
	defer slot.Release()
	ok := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	for _, r := range []*Route{mustRoute(t, other, "a", limits), mustRoute(t, c, "a", limits)} {
		req, w := httptest.NewRequest("GET", "/", nil), httptest.NewRecorder()
		if r.Handler(ok).ServeHTTP(w, req.WithContext(withSlot(req.Context(), slot))); w.Code != http.StatusOK {
			t.Errorf("status %d", w.Code)
		}
	}
}

// TestRouteKeepsOverrides checks that a change of the caller's overrides does not change those
// of a route that is made afterwards.
func TestRouteKeepsOverrides(t *testing.T) {
	overrides := []Override{{Prefix: netip.MustParsePrefix("192.0.2.0/24"), Exempt: true}}
	c := mustNew(t, &Config{Overrides: overrides})
	overrides[0].Exempt = false
	r := mustRoute(t, c, "a", RouteLimits{Source: RequestLimit{Rate: 1e-6, Burst: 1}})
	for range 2 {
		if wait := r.Request(netip.MustParseAddr("192.0.2.1")); wait != 0 {
			t.Errorf("an exempt source has to wait for %v", wait)
		}
	}
}

// TestRouteSourcesAreBounded checks that a route remembers at most so many sources.
func TestRouteSourcesAreBounded(t *testing.T) {
	c := mustNew(t, nil)
	r := mustRoute(t, c, "a", RouteLimits{Source: RequestLimit{Rate: 1}, MaxSources: 100})
	for i := range uint32(10_000) {
		r.Request(nth(i).Addr())
	}
	if sources, sites := r.rates.sources.count(); sources+sites > 100 || sources == 0 {
		t.Errorf("%d sources and %d sites are remembered, want some, and at most 100", sources, sites)
	}
	if s := c.Stats(); s.Sources > 0 {
		t.Errorf("the controller remembers %d sources of requests that passed", s.Sources)
	}
}

// TestRouteErrors checks that errors name what is invalid.
func TestRouteErrors(t *testing.T) {
	c := mustNew(t, nil)
	limits := RouteLimits{Source: RequestLimit{Rate: 1}}
	mustRoute(t, c, "taken", limits)
	for want, tc := range map[string]struct {
		name   string
		limits RouteLimits
	}{
		"a route needs a name":                         {"", limits},
		`valid UTF-8: got "\xff"`:                      {"\xff", limits},
		`there is a route "taken" already`:             {"taken", limits},
		`route "a": it has no Rate`:                    {"a", RouteLimits{}},
		`route "a": Source.Rate is not a number`:       {"a", RouteLimits{Source: RequestLimit{Rate: math.NaN()}}},
		`route "a": Site.Burst is -1`:                  {"a", RouteLimits{Site: RequestLimit{Burst: -1}}},
		`Total.Burst is 5, but there is no Total.Rate`: {"a", RouteLimits{Source: limits.Source, Total: RequestLimit{Burst: 5}}},
		`route "a": MaxSources is -1`:                  {"a", RouteLimits{Source: limits.Source, MaxSources: -1}},
		`Connection.Rate is not a number`:              {"a", RouteLimits{Connection: RequestLimit{Rate: math.NaN()}}},
		`Site.Burst is 1, but there is no Site.Rate`:   {"a", RouteLimits{Source: limits.Source, Site: RequestLimit{Rate: -1, Burst: 1}}},
	} {
		if _, err := c.Route(tc.name, tc.limits); !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want ErrConfig with %q", err, want)
		}
	}
	if len(c.Stats().Routes) != 1 {
		t.Errorf("the routes are %v", c.Stats().Routes)
	}
}
