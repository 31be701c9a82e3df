package p2p

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

const (
	// refusedFor is how long a relay that has refused this endpoint is the last choice.
	refusedFor = time.Minute
	// A relay becomes the first of the order only if its round-trip time is shorter than
	// the present one's by nearerBy and by a quarter.
	nearerBy = 10 * time.Millisecond
)

// RelayStatus is what an endpoint knows of one of its relays.
type RelayStatus struct {
	// Relay is the relay, with its token.
	Relay Relay
	// RTT is the round-trip time between this host and the relay. 0: not measured yet.
	RTT time.Duration
	// Draining says that the relay is about to stop.
	Draining bool
	// Since is when the relay last began to answer, or ceased to. It is zero until the
	// first answer, or the first attempt that failed.
	Since time.Time
	// Err says why the relay cannot be used at present. nil: it answers, or has not been
	// tried yet.
	Err error
}

// usable says whether the relay may carry packets.
func (s *RelayStatus) usable() bool { return s.Err == nil && s.RTT > 0 && !s.Draining }

// unfit is greater for relays that are worse to use.
func (s *RelayStatus) unfit() int {
	switch {
	case s.Err != nil:
		return 2
	case s.Draining:
		return 1
	}
	return 0
}

// refuse takes note that a relay has refused this endpoint, or has died during a dial.
func (s *relayList) refuse(r Relay, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.findLocked(r); e != nil {
		e.refused, e.until = err, time.Now().Add(refusedFor)
	}
}

// order returns the relays, the first choice first.
func (s *relayList) order() []RelayStatus {
	s.mu.Lock()
	now := time.Now()
	all := make([]RelayStatus, 0, len(s.entries))
	for _, e := range s.entries {
		if !e.burned {
			all = append(all, s.statusLocked(e, now))
		}
	}
	first := s.first
	s.mu.Unlock()
	if order := s.endpoint.conf.RelayOrder; order != nil {
		all = order(all)
	} else {
		all = nearestFirst(all, first)
	}
	if len(all) > 0 && all[0].usable() {
		s.mu.Lock()
		s.first = all[0].Relay.key()
		s.mu.Unlock()
	}
	return all
}

// statusLocked returns what is known of a relay: by its control connection, if there is
// one, or else by the last measurement.
func (s *relayList) statusLocked(e *relayEntry, now time.Time) RelayStatus {
	rtt, err, draining := e.rtt, e.err, false
	if c := s.endpoint.relays.find(e.relay); c != nil {
		conn, fault := c.state()
		switch {
		case conn != nil && c.unanswered(now) < standbyPatience:
			err, draining = nil, conn.isDraining.Load()
			rtt = max(conn.quic.ConnectionStats().SmoothedRTT, 1)
		case conn != nil || fault == nil && c.hasWorked():
			err = fmt.Errorf("%w: %s", ErrRelayUnreachable, e.relay.Addr)
		case fault != nil:
			err = fault
		}
	}
	if (rtt > 0 || err != nil) && (e.since.IsZero() || (err == nil) != (e.err == nil)) {
		e.since = now
	}
	e.rtt, e.err = rtt, err
	if e.refused != nil && e.until.After(now) && err == nil {
		err = e.refused
	}
	return RelayStatus{Relay: e.relay, RTT: rtt, Draining: draining, Since: e.since, Err: err}
}

// nearestFirst is the order without [Config.RelayOrder]: the nearest relay first, those that
// have not been measured after them, then those that drain, and last those that cannot be
// used. The relay that has been the first stays it, unless another one is much nearer.
func nearestFirst(all []RelayStatus, first relayKey) []RelayStatus {
	unmeasured := func(s *RelayStatus) int {
		if s.RTT == 0 {
			return 1
		}
		return 0
	}
	slices.SortStableFunc(all, func(a, b RelayStatus) int {
		return cmp.Or(cmp.Compare(a.unfit(), b.unfit()), cmp.Compare(unmeasured(&a), unmeasured(&b)), cmp.Compare(a.RTT, b.RTT))
	})
	i := slices.IndexFunc(all, func(s RelayStatus) bool { return s.Relay.key() == first })
	if i > 0 && all[i].usable() {
		nearest, present := all[0].RTT, all[i].RTT
		if present-nearest <= nearerBy || 4*nearest > 3*present {
			present := all[i]
			all = slices.Insert(slices.Delete(all, i, i+1), 0, present)
		}
	}
	return all
}

// best returns the first relay of the order that has not been tried. It waits until one
// has answered, or none is left to wait for.
func (s *relayList) best(ctx context.Context, tried map[relayKey]bool) (Relay, error) {
	if !s.hasSeveral() {
		return s.endpoint.conf.onlyRelay(), nil
	}
	for {
		s.mu.Lock()
		changed, waiting := s.changed, false
		s.dialed = time.Now()
		for _, e := range s.entries {
			waiting = waiting || e.measured.IsZero() && !tried[e.relay.key()]
		}
		waiting = waiting || len(s.entries) == 0 && s.loaded == nil
		loaded := s.loaded
		s.mu.Unlock()
		var last *Relay
		for _, st := range s.order() {
			if tried[st.Relay.key()] {
				continue
			}
			if st.usable() {
				return st.Relay, nil
			}
			if last == nil {
				last = &st.Relay
			}
		}
		switch {
		case !waiting && last != nil:
			return *last, nil // its error says more
		case !waiting:
			return Relay{}, errors.Join(errNoRelayLeft, loaded)
		}
		notify(s.look)
		select {
		case <-changed:
		case <-ctx.Done():
			return Relay{}, context.Cause(ctx)
		}
	}
}

// errNoRelayLeft: all relays have been tried.
var errNoRelayLeft = fmt.Errorf("%w: no relay is left", ErrRelayUnreachable)
