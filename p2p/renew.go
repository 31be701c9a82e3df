package p2p

import (
	"net/netip"
	"time"

	"github.com/quicway/quicway/internal/portmap"
)

// A router may forget us, or lead our packets nowhere, for as long as they come from
// the same port: its table knows a way that is gone. Packets from another port find
// the new one.
const (
	// silentAttempts is how many attempts to reach a relay must be without answer
	// before the sockets are made anew, and twice as many each time after that, up
	// to maxSilentAttempts.
	silentAttempts    = 2
	maxSilentAttempts = 16
	// reconnectTimeout bounds the first attempts to reach a relay that was there.
	reconnectTimeout = 2 * time.Second
	// peerAnswer is how long a peer on a direct path has to show that it is there.
	peerAnswer = time.Second
	// oldSockets is how long sockets that have been replaced are still read.
	oldSockets = 3 * time.Second
)

// failures are the attempts to reach a relay since it was there last. The zero value
// has none.
type failures struct {
	n, bound int
	since    time.Time // when the first of them began
}

// timeout is how long the next attempt may take.
func (f *failures) timeout(lost bool) time.Duration {
	if lost && f.bound == 0 && f.n < silentAttempts {
		return reconnectTimeout
	}
	return connectTimeout
}

// add counts an attempt that began at a time. It returns true if it is time for other
// sockets.
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

// clear forgets them.
func (f *failures) clear() { *f = failures{} }

// heardSince says whether any relay or peer has been heard after t.
func (e *Endpoint) heardSince(t time.Time) bool {
	for _, c := range e.relays.all() {
		if c.activity.heardSince(t) {
			return true
		}
		for _, l := range c.legs.all() {
			if l.heardSince(t) {
				return true
			}
		}
	}
	return false
}

// NetworkChanged tells the endpoint that the host's network is another one, as
// operating systems tell applications. The endpoint opens other sockets, from which
// all connections go on, asks the relays whether they know it, and looks for direct
// paths. It finds out by itself as well, but later. Sockets that were given to
// [NewEndpoint] stay.
//
// It does not wait, and may be called at any time.
func (e *Endpoint) NetworkChanged() {
	if e.enter() != nil {
		return
	}
	go func() {
		defer e.tasks.Done()
		e.renew("the network has changed")
	}()
}

// renewIfSilent makes the sockets anew if nothing at all has been heard after t, and
// no peer on a direct path answers.
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
	e.renew("nothing is heard any more")
}

// askDirectPeers has those say something who may have been silent for want of news. It
// returns whether there are any.
func (e *Endpoint) askDirectPeers() (any bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for c := range e.conns {
		if c.paths.kind() != Relayed {
			c.wake()
			any = true
		}
	}
	return any
}

// renew makes the sockets anew, if they are the endpoint's own, and has everything
// looked at that stands on them. The caller is one of the endpoint's tasks.
func (e *Endpoint) renew(why string) {
	e.renewing.Lock()
	defer e.renewing.Unlock()
	if e.ctx.Err() != nil {
		return
	}
	if e.listen != nil {
		if err := e.replaceSockets(); err != nil {
			e.log.Warn("no other sockets", "err", err)
			return
		}
		e.log.Info("other sockets", "why", why, "addr", e.LocalAddr())
	}
	for _, c := range e.relays.all() {
		c.legs.hasten(c.legs.all()...)
	}
	e.mu.Lock()
	locals := e.locals
	e.mu.Unlock()
	if locals != nil {
		locals.renewed(e.listen != nil)
	}
}

// replaceSockets opens sockets in the place of those in use.
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

// remap asks the gateway for the port of the present socket.
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

// renewed looks at the host's addresses after the network has changed. sockets says
// that there are others.
func (l *localAddresses) renewed(sockets bool) {
	if sockets {
		l.remap()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.waiting {
		notify(c)
	}
}
