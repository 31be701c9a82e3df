package p2p

import (
	"net/netip"
	"time"

	"github.com/quicway/quicway/internal/portmap"
)

// A NAT or router may drop all packets from one port, because its table holds a path that
// does not exist any more. Packets from another port get through. So an endpoint replaces
// its sockets when it does not hear anything.
const (
	// silentAttempts is how many attempts to reach a relay must be unanswered before
	// the sockets are replaced. The number doubles each time, up to maxSilentAttempts.
	silentAttempts    = 2
	maxSilentAttempts = 16
	// reconnectTimeout bounds the first attempts to reach a relay that has worked.
	reconnectTimeout = 2 * time.Second
	// peerAnswer is how long a peer on a direct path has to answer.
	peerAnswer = time.Second
	// oldSockets is how long replaced sockets are still read.
	oldSockets = 3 * time.Second
)

// failures counts the failed attempts to reach a relay since it last worked, or since the
// sockets were last replaced. The zero value is ready to use.
type failures struct {
	n     int
	bound int       // how many replace the sockets; 0: silentAttempts
	since time.Time // when the first of them began
}

// timeout is how long the next attempt may take.
func (f *failures) timeout(lost bool) time.Duration {
	if lost && f.bound == 0 && f.n < silentAttempts {
		return reconnectTimeout
	}
	return connectTimeout
}

// add counts an attempt that began at a time. It returns true if the sockets should be
// replaced.
func (f *failures) add(began time.Time) bool {
	if f.n == 0 {
		f.since = began
	}
	if f.n++; f.n < max(f.bound, silentAttempts) {
		return false
	}
	f.bound = min(2*max(f.bound, silentAttempts), maxSilentAttempts)
	f.n = 0
	return true
}

// clear starts again from zero.
func (f *failures) clear() { *f = failures{} }

// heardSince says whether anything has been received by UDP, from a relay or peer, after t.
func (e *Endpoint) heardSince(t time.Time) bool {
	for _, c := range e.relays.all() {
		tunneled := c.tunneled()
		if !tunneled && c.activity.heardSince(t) {
			return true
		}
		for _, l := range c.legs.all() {
			if !tunneled && l.link.activity.heardSince(t) || l.link.direct.activity.heardSince(t) {
				return true
			}
		}
	}
	return false
}

// NetworkChanged tells the endpoint that the host's network has changed. Applications on
// systems that report such changes should call it. The endpoint replaces its sockets,
// except those that were given to [NewEndpoint], refreshes its legs at the relays, and
// searches for direct paths. Connections continue. Without the call the endpoint notices
// a change later.
//
// It does not block, and may be called at any time, also after Close.
func (e *Endpoint) NetworkChanged() {
	if e.enter() != nil {
		return
	}
	go func() {
		defer e.tasks.Done()
		e.renew("the network has changed")
	}()
}

// renewIfSilent replaces the sockets if nothing has been received after t, and no peer on
// a direct path answers.
func (e *Endpoint) renewIfSilent(t time.Time) {
	if e.heardSince(t) || e.enter() != nil {
		return
	}
	defer e.tasks.Done()
	if e.askDirectPeers() {
		if sleep(e.ctx, peerAnswer); e.heardSince(t) {
			return
		}
	}
	e.renew("nothing is received any more")
}

// askDirectPeers sends a keepalive to each peer on a direct path, which may have had
// nothing to send. It returns whether there are any.
func (e *Endpoint) askDirectPeers() (any bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for c := range e.conns {
		if c.paths.kind().isDirect() {
			c.wake()
			any = true
		}
	}
	return any
}

// renew replaces the sockets if the endpoint has opened them, and has the legs and the
// local addresses checked. The caller is one of the endpoint's tasks.
func (e *Endpoint) renew(why string) {
	e.renewing.Lock()
	defer e.renewing.Unlock()
	if e.ctx.Err() != nil {
		return
	}
	if e.listen != nil {
		if err := e.replaceSockets(); err != nil {
			e.log.Warn("cannot replace sockets", "err", err)
			return
		}
		e.log.Info("sockets replaced", "why", why, "addr", e.LocalAddr())
	}
	for _, c := range e.relays.all() {
		c.legs.hasten(c.legs.all()...)
		notify(c.retryUDP)
	}
	e.mu.Lock()
	locals := e.locals
	e.mu.Unlock()
	if locals != nil {
		locals.renewed(e.listen != nil)
	}
}

// replaceSockets replaces the sockets in use.
func (e *Endpoint) replaceSockets() error {
	conns, err := e.listen()
	if err != nil {
		return err
	}
	old, err := e.mux.replace(conns)
	if err != nil {
		return err
	}
	e.tasks.Go(func() {
		sleep(e.ctx, oldSockets)
		for _, s := range old {
			_ = s.Close()
		}
	})
	return nil
}

// remap asks the gateway to forward the port of the present IPv4 socket.
func (l *localAddresses) remap() {
	e := l.endpoint
	s := e.mux.toward(netip.IPv4Unspecified())
	if s == nil || !isUDP(s) || e.conf.DisablePortMapping {
		return
	}
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return
	}
	old, mapper := l.mapper, portmap.New(s.LocalAddr().Port(), nil)
	l.mapper = mapper
	l.mu.Unlock()
	if old != nil {
		_ = old.Close()
	}
	e.tasks.Go(func() { l.follow(mapper.Changes(), false) })
}

// renewed notifies the connections after the network has changed. sockets says that the
// sockets have been replaced.
func (l *localAddresses) renewed(sockets bool) {
	if sockets {
		l.remap()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.subscribers {
		notify(c)
	}
}
