package p2p

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/control"
	"github.com/quicway/quicway/internal/udp"
)

// Timing of the connection with a relay.
const (
	// watchPeriod is how often silence is looked for.
	watchPeriod = 250 * time.Millisecond
	// suspicion is how long packets may stay unanswered before the relay is
	// asked whether it still knows us: our NAT may have given us another
	// address, which the relay learns from the question, or the relay may
	// have been restarted.
	suspicion = time.Second
	// patience is how long the relay has to answer such a question.
	patience = 2 * time.Second
	// Connecting anew is tried after minBackoff, then ever less often.
	minBackoff = 200 * time.Millisecond
	maxBackoff = 5 * time.Second
	// connectTimeout bounds one attempt to connect.
	connectTimeout = 5 * time.Second
	// steady is how long a connection must last so that it is made anew at once.
	steady = 10 * time.Second
	// maxRefresh is how long legs go without refresh at the most.
	maxRefresh = time.Minute
	// refreshAtOnce is how many legs are refreshed at a time.
	refreshAtOnce = 16
	// requestTimeout bounds one request that does not wait for a peer.
	requestTimeout = 10 * time.Second
)

// home is this endpoint's side of one relay: a control connection that is kept
// up, and the legs that are kept registered over it.
type home struct {
	endpoint  *Endpoint
	relay     Relay
	at        atomic.Pointer[netip.AddrPort] // where the relay is, once it has answered
	known     []netip.AddrPort               // its addresses at the last lookup; of run alone
	tried     bool                           // some were, at the last attempt; of run alone
	conn      udp.Conn
	transport *quic.Transport
	activity  activity
	hidden    atomic.Bool   // it has been said that the relay does not see who sends
	hurry     chan struct{} // holds a token when there are links in haste
	stop      context.CancelFunc
	stopped   chan struct{}

	mu    sync.Mutex // guards the following
	users int        // who holds the home open
	links map[control.SessionID]*link
	asked time.Time     // when the relay was last asked about the legs
	haste []*link       // those that it should be asked about at once
	line  *line         // the present connection, or nil
	first bool          // there has been a connection
	err   error         // why there is none
	news  chan struct{} // closed and replaced when line or err changes
	// refused are the addresses that the system sends nothing to, and why.
	refused map[netip.AddrPort]error
}

// newHome starts to connect to a relay.
func newHome(e *Endpoint, r Relay) (*home, error) {
	h := &home{
		endpoint: e,
		relay:    r,
		stopped:  make(chan struct{}),
		links:    make(map[control.SessionID]*link),
		hurry:    make(chan struct{}, 1),
		news:     make(chan struct{}),
		refused:  make(map[netip.AddrPort]error),
	}
	conn, err := udp.NewVirtual(&udp.VirtualConfig{Socket: e.mux.all()[0], Send: h.send})
	if err != nil {
		return nil, err
	}
	h.conn = conn
	h.transport = &quic.Transport{Conn: conn, ConnectionIDGenerator: cid.NewGenerator(cid.NewKey(), cid.Relay, nil)}
	ctx, stop := context.WithCancel(context.Background())
	h.stop = stop
	go h.run(ctx)
	return h, nil
}

// receive takes packets of the control connection.
func (h *home) receive(m *udp.Message) {
	h.activity.received()
	h.conn.Deliver(m)
}

func (h *home) send(m *udp.Message) error {
	h.activity.sent(m.Count())
	err := h.endpoint.mux.push(m)
	if err == nil || udp.IsMessageTooLong(err) {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.refused) < maxRelayAddrs {
		h.refused[m.Remote] = err
	}
	return nil // quic-go ends a connection at any error
}

// address is where the relay is, as far as is known: the zero AddrPort before it
// has answered for the first time.
func (h *home) address() netip.AddrPort {
	if at := h.at.Load(); at != nil {
		return *at
	}
	return netip.AddrPort{}
}

// moved takes note of where the relay has answered.
func (h *home) moved(to netip.AddrPort) {
	if old := h.address(); old.IsValid() && old != to {
		h.endpoint.mux.removeControl(old, h)
		h.endpoint.log.Info("relay is at another address", "relay", h.relay.Addr, "from", old, "to", to)
	}
	h.at.Store(&to)
}

// run keeps a connection up until ctx is done.
func (h *home) run(ctx context.Context) {
	defer close(h.stopped)
	backoff, lost := minBackoff, false
	var failures failures
	for ctx.Err() == nil {
		began := time.Now()
		line, err := h.race(ctx, failures.timeout(lost))
		h.publish(line, err)
		if err == nil {
			failures.over()
			began = time.Now()
			h.serve(ctx, line, lost)
			line.close()
			h.publish(nil, nil)
			h.tell(false)
			lost = true
			if time.Since(began) >= steady {
				backoff = minBackoff
				continue
			}
		} else {
			h.endpoint.log.Warn("relay unreachable", "relay", h.relay.Addr, "err", err)
			if h.tried && ctx.Err() == nil && failures.add(began) {
				h.endpoint.renewIfSilent(failures.since)
			}
		}
		sleep(ctx, backoff)
		backoff = min(2*backoff, maxBackoff)
	}
}

// connectTo connects to one address of the relay.
func (h *home) connectTo(ctx context.Context, addr netip.AddrPort, timeout time.Duration) (*line, error) {
	h.mu.Lock()
	delete(h.refused, addr)
	h.mu.Unlock()
	within, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return dialLine(within, h, addr)
}

// mayReach says why an address of the relay may not be sent anything, if so. That of
// [Config.Relay] may. One that an offer names is judged as an address is that a peer
// names: whoever made the offer shall not have us knock at doors within our network.
func (h *home) mayReach(a netip.AddrPort) error {
	conf := h.endpoint.conf
	switch {
	case h.relay.Addr == conf.Relay.Addr:
		return nil
	case conf.OfferRelays != nil && conf.OfferRelays(a), conf.OfferRelays == nil && h.endpoint.mayVisit(a):
		return nil
	}
	return fmt.Errorf("%w: %s", ErrRelayNotAllowed, h.place(a))
}

// mayVisit says whether an address that a stranger names may be sent something.
func (e *Endpoint) mayVisit(a netip.AddrPort) bool {
	if !isUnicast(a) {
		return false
	}
	return realmOf(a.Addr()) < 0 || mayProbe(a, e.hostAddrs())
}

// publish tells those who wait for the connection how it is.
func (h *home) publish(l *line, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.line, h.err = l, err
	h.first = h.first || l != nil
	close(h.news)
	h.news = make(chan struct{})
}

// worked says whether there has ever been a connection.
func (h *home) worked() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.first
}

// current returns the connection. If there is none it waits for one, but fails
// as soon as connecting has failed: whoever asks wants to know.
func (h *home) current(ctx context.Context) (*line, error) {
	for {
		h.mu.Lock()
		line, err, news := h.line, h.err, h.news
		h.mu.Unlock()
		switch {
		case line != nil:
			return line, nil
		case err != nil:
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-h.stopped:
			return nil, ErrClosed
		case <-news:
		}
	}
}

// serve registers the legs, and then watches over them and the connection,
// until that dies. lost says that there was another connection before.
func (h *home) serve(ctx context.Context, l *line, lost bool) {
	events := make(chan struct{})
	go func() {
		defer close(events)
		l.events(func(e control.Event) { h.event(l, e) })
	}()
	defer func() { l.close(); <-events }()
	var refreshed time.Time
	ticker := time.NewTicker(watchPeriod)
	defer ticker.Stop()
	for {
		now := time.Now()
		silent, suspects := h.suspects(now)
		regular := now.Sub(refreshed) >= h.refreshPeriod() // of the legs that there are by now
		if silent || regular {
			links, timeout := suspects, patience
			if regular {
				links, timeout = h.kept(), requestTimeout
			}
			if err := h.refresh(ctx, l, links, timeout); err != nil {
				h.endpoint.log.Info("relay lost", "relay", h.relay.Addr, "err", err)
				return
			}
			if lost {
				h.tell(true)
				lost = false
			}
			if regular {
				refreshed = time.Now()
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-l.dead():
			h.endpoint.log.Info("relay lost", "relay", h.relay.Addr, "err", context.Cause(l.conn.Context()))
			return
		case <-ticker.C:
		case <-h.hurry:
		}
	}
}

// hasten has the relay asked about a link at once: packets go by it again, and our
// NAT may have given us another address meanwhile.
func (h *home) hasten(l *link) {
	h.mu.Lock()
	h.haste = append(h.haste, l)
	h.mu.Unlock()
	poke(h.hurry)
}

// suspects says whether a path through the relay has been silent for so long
// that the relay should be asked, and which links' were. The longer the silence,
// the less often.
func (h *home) suspects(now time.Time) (silent bool, links []*link) {
	h.mu.Lock()
	defer h.mu.Unlock()
	longest := h.activity.overdue(now)
	for _, l := range h.links {
		silence := l.activity.overdue(now)
		longest = max(longest, silence)
		if silence >= suspicion {
			links = append(links, l)
		}
	}
	if haste := h.haste; len(haste) > 0 {
		h.haste = nil
		return true, haste
	}
	if longest < suspicion || now.Sub(h.asked) < max(suspicion, longest/2) {
		return false, nil
	}
	return true, links
}

// refresh registers legs again, some at a time, or just asks whether the relay
// is there. An error means that a request was not answered in time: the
// connection is no use any more. What the relay refuses ends the leg, not the
// connection.
func (h *home) refresh(ctx context.Context, ln *line, links []*link, timeout time.Duration) error {
	h.mu.Lock()
	h.asked = time.Now()
	h.mu.Unlock()
	if len(links) == 0 {
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		return ln.ping(ctx)
	}
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	room := make(chan struct{}, refreshAtOnce)
	var requests sync.WaitGroup
	for _, l := range links {
		room <- struct{}{}
		if ctx.Err() != nil {
			break
		}
		requests.Go(func() {
			defer func() { <-room }()
			ctx, cancel := context.WithTimeout(ctx, timeout)
			defer cancel()
			if err := h.refreshLeg(ctx, ln, l); err != nil {
				fail(err)
			}
		})
	}
	requests.Wait()
	return context.Cause(ctx)
}

// refreshLeg registers one leg again.
func (h *home) refreshLeg(ctx context.Context, ln *line, l *link) error {
	err := h.registerOn(ctx, ln, l)
	if errors.Is(err, ErrRelayRefused) {
		h.endpoint.log.Warn("relay refuses the leg", "relay", h.relay.Addr, "session", l.session, "err", err)
		return nil
	}
	return err
}

// refreshPeriod lets two refreshes get lost before the first leg expires.
func (h *home) refreshPeriod() time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	period := maxRefresh
	for _, l := range h.links {
		period = min(period, l.granted()/3)
	}
	return max(period, time.Second)
}

// register makes the relay know a link's leg, and keeps it known from then on.
// It tries until the relay has answered or ctx is done.
func (h *home) register(ctx context.Context, l *link) (*control.Registered, error) {
	for {
		ln, err := h.current(ctx)
		if err != nil {
			return nil, err
		}
		req, token := l.request()
		reply, err := ln.register(ctx, l.session, req, token)
		if err == nil {
			l.registered(ln, reply)
			h.keep(l)
			l.observe(ln) // an event between the two has missed it
			return reply, nil
		}
		if errors.Is(err, ErrRelayRefused) || ctx.Err() != nil {
			return nil, err
		}
		if err := h.await(ctx, ln); err != nil {
			return nil, err
		}
	}
}

// registerOn is register for a link that is kept already.
func (h *home) registerOn(ctx context.Context, ln *line, l *link) error {
	req, token := l.request()
	reply, err := ln.register(ctx, l.session, req, token)
	if err == nil {
		l.registered(ln, reply)
	}
	return err
}

// await waits until the connection is another one than ln, which has failed.
func (h *home) await(ctx context.Context, ln *line) error {
	for {
		h.mu.Lock()
		same, news := h.line == ln, h.news
		h.mu.Unlock()
		if !same {
			return nil
		}
		ln.close()
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-h.stopped:
			return ErrClosed
		case <-news:
		}
	}
}

func (h *home) keep(l *link) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.links[l.session] = l
}

// end gives a link's leg back, if the relay can be told soon.
func (h *home) end(ctx context.Context, l *link) {
	h.mu.Lock()
	if h.links[l.session] != l {
		h.mu.Unlock()
		return // not registered, or given back before
	}
	delete(h.links, l.session)
	ln := h.line
	h.mu.Unlock()
	if ln == nil {
		return // the leg expires
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := ln.end(ctx, l.session, l.role, l.key); err != nil {
		h.endpoint.log.Debug("end leg", "session", l.session, "err", err)
	}
}

// tell tells all connections whether the relay answers.
func (h *home) tell(answers bool) {
	for _, l := range h.kept() {
		l.relayAnswers(answers)
	}
}

// kept returns the links that are kept registered.
func (h *home) kept() []*link {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Collect(maps.Values(h.links))
}

// event acts on what the relay tells by itself.
func (h *home) event(ln *line, e control.Event) {
	switch e.Type {
	case control.EventObserved:
		for _, l := range h.kept() {
			l.observe(ln)
		}
	case control.EventJoined:
		h.mu.Lock()
		l := h.links[e.Session]
		h.mu.Unlock()
		if l != nil {
			l.joined.Store(true)
			// The resume token that we have does not say that the session is
			// joined: after a restart of the relay the join token would be
			// good again.
			h.hasten(l)
		}
	case control.EventGone:
		h.mu.Lock()
		l := h.links[e.Session]
		h.mu.Unlock()
		if l != nil {
			l.peerGone()
		}
	case control.EventShutdown:
		h.endpoint.log.Warn("relay is about to stop", "relay", h.relay.Addr)
	}
}

// close ends the connection and waits for what belongs to it.
func (h *home) close() error {
	h.stop()
	<-h.stopped
	err := h.transport.Close()
	h.conn.Close()
	h.endpoint.mux.removeControl(h.address(), h)
	return err
}

// sleep waits for d or until ctx is done.
func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
