package p2p

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/quicway/quicway/internal/control"
)

// Timing of the legs.
const (
	// watchPeriod is how often the legs are checked for silence.
	watchPeriod = 250 * time.Millisecond
	// suspicion is how long packets may stay unanswered before the relay is asked
	// about the leg: the NAT may have given this host another address, which the
	// relay learns from the request, or the relay may have been restarted.
	suspicion = time.Second
	// patience is how long the relay has to answer such a request.
	patience = 2 * time.Second
	// maxRefresh is the longest time between two refreshes of a leg.
	maxRefresh = time.Minute
	// refreshAtOnce is the number of legs that are refreshed at the same time.
	refreshAtOnce = 16
	// requestTimeout bounds a request that does not wait for a peer.
	requestTimeout = 10 * time.Second
)

// legs keeps the legs of an endpoint's links registered at one relay.
type legs struct {
	client *relayClient
	hurry  chan struct{} // holds a token when there are urgent legs

	mu     sync.Mutex // guards the following
	legs   map[control.SessionID]*leg
	urgent map[*leg]struct{} // those that the relay is to be asked about at once
	asked  time.Time         // when the relay was last asked
}

func newLegs(c *relayClient) legs {
	return legs{
		client: c,
		legs:   make(map[control.SessionID]*leg),
		urgent: make(map[*leg]struct{}),
		hurry:  make(chan struct{}, 1),
	}
}

// serve refreshes the legs, regularly and after silence, until the control connection
// dies or ctx is done. lost says that there was another control connection before.
func (g *legs) serve(ctx context.Context, conn *controlConn, lost bool) {
	events := make(chan struct{})
	go func() {
		defer close(events)
		conn.events(func(e control.Event) { g.client.handleEvent(conn, e) })
	}()
	defer func() { conn.close(); <-events }()
	log := g.client.endpoint.log
	var refreshed time.Time
	ticker := time.NewTicker(watchPeriod)
	defer ticker.Stop()
	for {
		now := time.Now()
		silent, suspects := g.suspects(now)
		regular := now.Sub(refreshed) >= g.refreshPeriod() // of the legs that there are by now
		if silent || regular {
			legs, timeout := suspects, patience
			if regular {
				legs, timeout = g.all(), requestTimeout
			}
			if err := g.refresh(ctx, conn, legs, timeout); err != nil {
				log.Info("relay lost", "relay", g.client.relay.Addr, "err", err)
				return
			}
			if lost {
				g.relayAnswers(true)
				lost = false
			}
			if regular {
				refreshed = time.Now()
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-conn.dead():
			log.Info("relay lost", "relay", g.client.relay.Addr, "err", context.Cause(conn.quic.Context()))
			return
		case <-ticker.C:
		case <-g.hurry:
		}
	}
}

// hasten has the relay asked about legs at once: packets go through it again, and the
// NAT may have given this host another address meanwhile. It ignores legs that are not kept
// registered.
func (g *legs) hasten(legs ...*leg) {
	g.mu.Lock()
	for _, l := range legs {
		if g.keepsLocked(l) {
			g.urgent[l] = struct{}{}
		}
	}
	g.mu.Unlock()
	notify(g.hurry)
}

// suspects says whether packets to the relay have been unanswered for so long that it
// should be asked, and about which legs. The longer the silence, the more rarely the
// relay is asked.
func (g *legs) suspects(now time.Time) (silent bool, legs []*leg) {
	g.mu.Lock()
	defer g.mu.Unlock()
	longest := g.client.activity.overdue(now)
	for _, l := range g.legs {
		silence := l.overdue(now)
		longest = max(longest, silence)
		if silence >= suspicion {
			legs = append(legs, l)
		}
	}
	if len(g.urgent) > 0 {
		urgent := slices.Collect(maps.Keys(g.urgent))
		clear(g.urgent)
		return true, urgent
	}
	if longest < suspicion || now.Sub(g.asked) < max(suspicion, longest/2) {
		return false, nil
	}
	return true, legs
}

// refresh registers legs again, some at a time, or only asks whether the relay answers
// if there are none. An error means that the relay has not answered in time, and that
// the control connection is of no use any more. A leg that the relay refuses is no
// error.
func (g *legs) refresh(ctx context.Context, conn *controlConn, legs []*leg, timeout time.Duration) error {
	g.mu.Lock()
	g.asked = time.Now()
	g.mu.Unlock()
	if len(legs) == 0 {
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		return conn.ping(ctx)
	}
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	room := make(chan struct{}, refreshAtOnce)
	var requests sync.WaitGroup
	for _, l := range legs {
		room <- struct{}{}
		if ctx.Err() != nil {
			break
		}
		requests.Go(func() {
			defer func() { <-room }()
			ctx, cancel := context.WithTimeout(ctx, timeout)
			defer cancel()
			if err := g.refreshLeg(ctx, conn, l); err != nil {
				fail(err)
			}
		})
	}
	requests.Wait()
	return context.Cause(ctx)
}

// refreshLeg registers one leg again, which may be given back meanwhile.
func (g *legs) refreshLeg(ctx context.Context, conn *controlConn, l *leg) error {
	_, err := l.register(ctx, conn)
	if errors.Is(err, ErrRelayRefused) {
		if !g.keeps(l) {
			return nil
		}
		g.client.endpoint.log.Warn("relay refuses the leg", "relay", g.client.relay.Addr, "session", l.link.session, "err", err)
		return nil
	}
	return err
}

// refreshPeriod is the time between two refreshes. It lets two of them get lost before
// the first leg expires.
func (g *legs) refreshPeriod() time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	period := maxRefresh
	for _, l := range g.legs {
		period = min(period, l.granted()/3)
	}
	return max(period, time.Second)
}

// register registers a leg, and keeps it registered from then on. It tries until the
// relay has answered or ctx is done.
func (g *legs) register(ctx context.Context, l *leg) (*control.Registered, error) {
	for {
		conn, err := g.client.current(ctx)
		if err != nil {
			return nil, err
		}
		reply, err := l.register(ctx, conn)
		if err == nil {
			g.add(l)
			l.observe(conn) // an event before add has missed the link
			return reply, nil
		}
		if errors.Is(err, ErrRelayRefused) || ctx.Err() != nil {
			return nil, err
		}
		if err := g.client.replaced(ctx, conn); err != nil {
			return nil, err
		}
	}
}

func (g *legs) add(l *leg) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.legs[l.link.session] = l
}

// keeps says whether a leg is kept registered.
func (g *legs) keeps(l *leg) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.keepsLocked(l)
}

func (g *legs) keepsLocked(l *leg) bool { return g.legs[l.link.session] == l }

// forget ceases to keep a leg registered.
func (g *legs) forget(l *leg) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.forgetLocked(l)
}

// forgetLocked is forget. It returns false if the leg was not kept registered.
func (g *legs) forgetLocked(l *leg) bool {
	if !g.keepsLocked(l) {
		return false
	}
	delete(g.legs, l.link.session)
	delete(g.urgent, l)
	return true
}

// end gives a leg back to the relay, if there is a control connection. Otherwise the leg
// expires.
func (g *legs) end(ctx context.Context, l *leg) {
	g.mu.Lock()
	kept := g.forgetLocked(l)
	g.mu.Unlock()
	conn := g.client.present()
	if !kept || conn == nil {
		return // not registered, given back before, or the leg expires
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := conn.endLeg(ctx, l.link.session, l.link.role, l.link.key); err != nil {
		g.client.endpoint.log.Debug("cannot give leg back", "session", l.link.session, "err", err)
	}
}

// relayAnswers tells all connections whether the relay answers.
func (g *legs) relayAnswers(yes bool) {
	for _, l := range g.all() {
		l.relayAnswers(yes)
	}
}

// all returns the legs that are kept registered.
func (g *legs) all() []*leg {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Collect(maps.Values(g.legs))
}

// find returns the leg of a session, or nil.
func (g *legs) find(session control.SessionID) *leg {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.legs[session]
}
