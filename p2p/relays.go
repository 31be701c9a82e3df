package p2p

import (
	"slices"
	"sync"
	"time"

	"github.com/quicway/quicway/internal/control"
)

// maxRelays bounds the relays that an endpoint knows.
const maxRelays = control.MaxMembers

// Relays returns what the endpoint knows of its relays, in the order of
// [Config.RelayOrder]. Without further relays that is only [Config.Relay]. The endpoint does
// not connect to a single relay before it is needed.
func (e *Endpoint) Relays() []RelayStatus { return e.list.order() }

// relayList holds the relays that an endpoint may use, and measures them. A single relay is
// not measured.
type relayList struct {
	endpoint *Endpoint

	mu      sync.Mutex    // guards the following
	fixed   []Relay       // Config.Relay and Config.Relays
	entries []*relayEntry // fixed, then those of Config.RelaySource and of relays that drain
	loaded  error         // why Config.RelaySource has given nothing
	running bool          // run is
	loading bool          // load is
	wanted  time.Time     // when a connection last looked for a relay and found none
	dialed  time.Time     // when a dial last looked for a relay
	first   relayKey      // of the last order
	changed chan struct{} // closed and replaced when a relay has been measured

	look chan struct{} // holds a token when run should look for what is due
}

// relayEntry is a relay of the list.
type relayEntry struct {
	relay    Relay
	learned  time.Time    // when another relay has named it, or its last use since; zero: it is configured
	burned   bool         // it is learned, and has turned out to be another relay than the one named
	failures int          // measurements that failed, one after the other
	kept     *relayClient // nil: no control connection is kept
	measured time.Time    // zero: never
	busy     bool         // it is being measured
	rtt      time.Duration
	err      error
	since    time.Time
	refused  error // why the relay has refused this endpoint
	until    time.Time
}

func newRelayList(e *Endpoint) *relayList {
	s := &relayList{endpoint: e, changed: make(chan struct{}), look: make(chan struct{}, 1)}
	for _, r := range append([]Relay{e.conf.Relay}, e.conf.Relays...) {
		if r.Addr != "" && len(s.fixed) < maxRelays && !slices.ContainsFunc(s.fixed, r.same) {
			s.fixed = append(s.fixed, r)
		}
	}
	s.setLocked(nil)
	return s
}

// same says whether two values are the same relay.
func (r Relay) same(o Relay) bool { return r.key() == o.key() }

// setLocked sets the relays that are not configured.
func (s *relayList) setLocked(more []Relay) (gone []*relayClient) {
	old := s.entries
	s.entries = nil
	for _, r := range append(slices.Clone(s.fixed), more...) {
		if len(s.entries) == maxRelays || slices.ContainsFunc(s.entries, func(e *relayEntry) bool { return e.relay.same(r) }) {
			continue
		}
		entry := &relayEntry{relay: r}
		if i := slices.IndexFunc(old, func(e *relayEntry) bool { return e.relay.same(r) }); i >= 0 {
			entry, old = old[i], slices.Delete(old, i, i+1)
			entry.relay, entry.learned, entry.burned = r, time.Time{}, false
		}
		s.entries = append(s.entries, entry)
	}
	for _, e := range old {
		if !e.learned.IsZero() && len(s.entries) < maxRelays {
			s.entries = append(s.entries, e)
		} else if e.kept != nil {
			gone = append(gone, e.kept)
		}
	}
	return gone
}

// hasSeveral says whether there are, or may be, several relays.
func (s *relayList) hasSeveral() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.entries) > 1 || s.endpoint.conf.RelaySource != nil
}

// has says whether an address is that of one of the relays, without those that other relays
// have named.
func (s *relayList) has(addr string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.entries, func(e *relayEntry) bool { return e.learned.IsZero() && e.relay.Addr == addr })
}

// isOwn says whether a relay is one of the configured ones.
func (s *relayList) isOwn(r Relay) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.findLocked(r)
	return e != nil && e.learned.IsZero()
}

// vouchesFor says whether a relay is one of the list, or has the key of one of them.
func (s *relayList) vouchesFor(r Relay) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.entries, func(e *relayEntry) bool {
		return !e.burned && (e.relay.same(r) || e.relay.isOfOperator(r))
	})
}

// configured returns the relay of the list with the same address and pin, which may have a
// token, or r itself.
func (s *relayList) configured(r Relay) Relay {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.findLocked(r); e != nil {
		return e.relay
	}
	return r
}

func (s *relayList) findLocked(r Relay) *relayEntry {
	for _, e := range s.entries {
		if e.relay.same(r) {
			return e
		}
	}
	return nil
}

// onlyRelay is the relay if there is only one.
func (c *Config) onlyRelay() Relay {
	if c.Relay.Addr == "" && len(c.Relays) > 0 {
		return c.Relays[0]
	}
	return c.Relay
}
