package quota

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"
)

// defaultRouteSources is the default of RouteLimits.MaxSources.
const defaultRouteSources = 1 << 16

// RequestLimit is a number of requests in a time.
type RequestLimit struct {
	// Rate is the number of requests per second, which may be a fraction: 0.1 is one
	// in ten seconds. The slowest rate is one a day. 0 or less means no limit.
	Rate float64
	// Burst is the number of requests that may come at once. 0 means the number of
	// requests of one second, and at least 1.
	Burst int
}

// RouteLimits are the limits of a [Route]. At least one of them must have a Rate.
type RouteLimits struct {
	// Source is the limit of each source, as in [Config].Source.
	Source RequestLimit
	// Site is the limit of all sources of one site together. A Rate of 0 means eight
	// times Source, and a negative one no limit.
	Site RequestLimit
	// Connection is the limit of each connection of a [Transport].
	Connection RequestLimit
	// Total is the limit of all sources together.
	Total RequestLimit
	// MaxSources is the maximum number of sources and sites that are remembered for the
	// route, in sum, as [Config].MaxSources is for the controller. 0 means 65 536.
	MaxSources int
}

// Route limits the requests for a part of a server that costs more than others, or that
// nobody needs often, such as a login. Its limits hold beside those of the controller. Make
// one with [Controller.Route]. All methods may be called concurrently.
type Route struct {
	c       *Controller
	name    string
	number  int // index in Slot.ofRoutes; -1: no limit of connections
	rates   *rates
	refused atomic.Uint64
	passed  atomic.Uint64
}

// RouteStats are the counters of one route.
type RouteStats struct {
	// Passed counts requests that the route let through.
	Passed uint64 `json:"passed"`
	// Refused counts requests that were beyond the route's limits.
	Refused uint64 `json:"refused"`
}

// Route makes a route. Its name, which [Stats].Routes has, is valid UTF-8, and must differ
// from those of the controller's other routes. The pattern for the [http.ServeMux] is a good one:
//
//	login, err := controller.Route("POST /login", quota.RouteLimits{Source: quota.RequestLimit{Rate: 0.1, Burst: 5}})
//	mux.Handle("POST /login", login.Handler(handler))
//
// Several handlers may share a route, and so its limits. Addresses on the allow list and
// those of an [Override] that is Exempt are held to no limit of a route, and those of one
// that is Shared to no limit of a source or a site. Other limits of an Override do not
// change those of a route. An error wraps [ErrConfig].
func (c *Controller) Route(name string, l RouteLimits) (*Route, error) {
	if name == "" || !utf8.ValidString(name) {
		return nil, fmt.Errorf("%w: a route needs a name, which is valid UTF-8: got %q", ErrConfig, name)
	}
	if err := l.validate(); err != nil {
		return nil, fmt.Errorf("%w: route %q: %w", ErrConfig, name, err)
	}
	r := &Route{c: c, name: name, number: -1, rates: c.routeRates(&l)}
	if err := c.routes.add(r); err != nil {
		return nil, err
	}
	return r, nil
}

// Name returns the name that the route was made with.
func (r *Route) Name() string { return r.name }

// Handler passes requests to next at the rates of the route, and answers others as
// [Controller.Handler] does. The latter is used as well, around the [http.ServeMux]: it
// limits all requests, before this one is asked, and a request that the route refuses has
// used up the rates there.
func (r *Route) Handler(next http.Handler) http.Handler { return &handler{r.c, r.take, next} }

// Request charges a request to the route and to the source of an address. It is for
// protocols other than HTTP, in addition to [Controller.Request]. It returns 0 if the
// request may be made, or else how long to wait.
func (r *Route) Request(addr netip.Addr) time.Duration { return r.take(plain(addr), nil) }

// take charges a request to the route. It returns how long to wait if the request may not
// be made.
func (r *Route) take(client netip.Addr, slot *Slot) time.Duration {
	wait := r.charge(client, slot)
	if wait <= 0 {
		r.passed.Add(1)
		return 0
	}
	r.refused.Add(1)
	r.c.refuseRequest(client, RouteRate)
	if r.c.conf.DryRun {
		r.passed.Add(1)
		return 0
	}
	return time.Duration(wait)
}

// charge charges a request to the connection and to all levels of the route, if there is
// room everywhere.
func (r *Route) charge(client netip.Addr, slot *Slot) instant {
	if slot == nil || r.number < 0 {
		return r.rates.takeRequest(client, nil)
	}
	slot.shard.mu.Lock()
	defer slot.shard.mu.Unlock()
	return r.rates.takeRequest(client, slot.ofRouteLocked(r.number))
}

// ofRouteLocked returns the slot's bucket of a route.
func (s *Slot) ofRouteLocked(number int) *bucket {
	if number >= len(s.ofRoutes) {
		s.ofRoutes = append(s.ofRoutes, make([]bucket, number+1-len(s.ofRoutes))...)
	}
	return &s.ofRoutes[number]
}

// routeRates makes the rates of a route, with sources of its own.
func (c *Controller) routeRates(l *RouteLimits) *rates {
	conf := *c.conf
	conf.MaxSources = l.MaxSources
	setDefault(&conf.MaxSources, defaultRouteSources)
	conf.Source, conf.Site, conf.Total = l.Source.limits(), l.Site.limits(), l.Total.limits()
	if l.Site.Rate == 0 {
		conf.Site = conf.Source.times(siteFactor)
	}
	conf.Overrides = slices.Clone(conf.Overrides)
	for i := range conf.Overrides {
		conf.Overrides[i].Limits = Limits{}
	}
	return &rates{
		clock: c.clock, lists: c.lists, sources: newSourceTable(&conf),
		total:         &total{level: level{limits: compile(conf.Total, -1)}},
		perConnection: newRate(l.Connection.Rate, l.Connection.Burst),
	}
}

// limits returns Limits of which only the rate of requests is one.
func (l RequestLimit) limits() Limits {
	out := noLimits
	if l.Rate > 0 {
		out.RequestRate, out.RequestBurst = l.Rate, l.Burst
	}
	return out
}

// validate returns an error about a limit that is invalid.
func (l *RouteLimits) validate() error {
	limited := false
	for _, f := range []struct {
		name string
		RequestLimit
	}{{"Source", l.Source}, {"Site", l.Site}, {"Connection", l.Connection}, {"Total", l.Total}} {
		switch {
		case math.IsNaN(f.Rate):
			return fmt.Errorf("%s.Rate is not a number", f.name)
		case f.Burst < 0:
			return fmt.Errorf("%s.Burst is %d, want 0 or more", f.name, f.Burst)
		case f.Burst > 0 && f.Rate <= 0:
			return fmt.Errorf("%[1]s.Burst is %[2]d, but there is no %[1]s.Rate", f.name, f.Burst)
		}
		limited = limited || f.Rate > 0
	}
	switch {
	case l.MaxSources < 0:
		return fmt.Errorf("MaxSources is %d, want 0 or more", l.MaxSources)
	case !limited:
		return errors.New("it has no Rate, so that it would limit nothing")
	}
	return nil
}

// routeSet has the routes of a controller.
type routeSet struct {
	mu      sync.Mutex // guards the following
	all     []*Route
	numbers int // of routes that limit connections
}

// add adds a route, and gives it its number.
func (s *routeSet) add(r *Route) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, other := range s.all {
		if other.name == r.name {
			return fmt.Errorf("%w: there is a route %q already: handlers may share it", ErrConfig, r.name)
		}
	}
	if r.rates.perConnection.limited() {
		r.number = s.numbers
		s.numbers++
	}
	s.all = append(s.all, r)
	return nil
}

// stats returns the counters of all routes, by name.
func (s *routeSet) stats() map[string]RouteStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[string]RouteStats, len(s.all))
	for _, r := range s.all {
		out[r.name] = RouteStats{Passed: r.passed.Load(), Refused: r.refused.Load()}
	}
	return out
}
