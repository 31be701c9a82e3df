package p2p

import (
	"bytes"
	"net/netip"
	"time"

	"github.com/quicway/quicway/internal/control"
)

// probeQueue is the number of probes that wait for the pathfinder. Further ones are
// dropped.
const probeQueue = 32

// pathfinder finds the best path for a connection, and leaves a path that has died. It
// is the loop that owns the following, and hands them what arrives:
//
//   - the addresses of this host (ownAddresses) and of the peer (peerAddresses),
//   - the search for a direct path, which is resting, probing or moving,
//   - the carrier of the packets, which is the relay, or a direct path; the relay path
//     stays validated,
//   - the failover to another relay.
//
// docs/design/p2p.md draws the states ("The direct path").
type pathfinder struct {
	conn   *Conn
	locals *localAddresses // nil: RelayOnly

	// What other goroutines hand to run.
	frames  chan frame
	probes  chan receivedProbe
	changed chan struct{} // addresses of this host, or the state of the relay
	sized   chan struct{} // large packets are being sent

	// Used only by the run goroutine.
	pinger   *pinger
	own      ownAddresses
	peer     peerAddresses
	search   search
	carrier  carrier
	sizes    pathSizes
	relay    relayWatch
	failover failover
}

// receivedProbe is a datagram that looks like a probe.
type receivedProbe struct {
	data []byte
	from netip.AddrPort // the zero AddrPort: in an envelope, from the relay
}

// newPathfinder makes the pathfinder of a connection.
func newPathfinder(c *Conn) (*pathfinder, error) {
	prober, err := newProber(c.ConnectionState().TLS, c.link.role)
	if err != nil {
		return nil, err
	}
	f := &pathfinder{
		conn:    c,
		frames:  make(chan frame),
		probes:  make(chan receivedProbe, probeQueue),
		changed: make(chan struct{}, 1),
		sized:   make(chan struct{}, 1),
	}
	list := newChecklist()
	f.pinger = newPinger(prober, c.link, list)
	f.sizes = newPathSizes(c, f.pinger)
	f.relay = relayWatch{conn: c, link: c.link, pinger: f.pinger}
	f.failover = newFailover(c)
	f.carrier = newCarrier(c, list, f.pinger, &f.sizes)
	f.search = newSearch(c, list, f.pinger, &f.carrier)
	f.peer = newPeerAddresses(c, list)
	if c.link.relay.Addr().IsLoopback() {
		f.search.policy = RelayOnly // no path is shorter than the one within this host
	}
	c.link.envelopes.Store(&envelopes{own: prober.own, peer: prober.peer, finder: f})
	if f.search.policy != RelayOnly {
		f.locals = c.endpoint.openLocals()
		f.own = ownAddresses{conn: c, locals: f.locals}
		c.endpoint.mux.addProbed(prober.own, f)
	}
	return f, nil
}

// receive takes a probe from the network. It returns false if there is no room.
func (f *pathfinder) receive(data []byte, from netip.AddrPort) bool {
	select {
	case f.probes <- receivedProbe{bytes.Clone(data), from}:
		return true
	default:
		return false
	}
}

// receiveFrame takes a frame that the peer has sent.
func (f *pathfinder) receiveFrame(fr frame) {
	fr.payload = bytes.Clone(fr.payload)
	select {
	case f.frames <- fr:
	case <-f.conn.Context().Done():
	}
}

// run finds paths until the connection ends.
func (f *pathfinder) run() {
	f.sizes.relay.restart(baseSize, time.Now())
	f.search.announcePolicy()
	if f.locals == nil {
		f.runRelayOnly()
		return
	}
	defer f.conn.endpoint.mux.removeProbed(f.pinger.own, f)
	f.locals.subscribe(f.conn, f.changed)
	defer f.locals.unsubscribe(f.conn)
	f.search.started = time.Now()
	f.announce()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-f.conn.Context().Done():
			return
		case fr := <-f.frames:
			f.handleFrame(fr)
		case a := <-f.probes:
			f.handleProbe(a)
		case <-f.changed:
			f.announce()
			f.search.relayChanged(time.Now())
		case m := <-f.carrier.migrations:
			f.search.migrated(m, time.Now())
		case r := <-f.carrier.relayPath.results:
			f.carrier.relayPathReady(r)
		case o := <-f.failover.opened:
			f.failover.registered(o, time.Now())
		case o := <-f.failover.resort.found:
			f.failover.foundRelay(o, time.Now())
		case <-f.failover.news:
		case <-f.sized:
		case <-timer.C:
		}
		timer.Reset(time.Until(f.advance(time.Now())))
	}
}

// runRelayOnly is run for a side whose policy is RelayOnly. It neither names addresses
// nor probes any.
func (f *pathfinder) runRelayOnly() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-f.conn.Context().Done():
			return
		case fr := <-f.frames:
			f.handleRelayFrame(fr)
		case o := <-f.failover.opened:
			f.failover.registered(o, time.Now())
		case o := <-f.failover.resort.found:
			f.failover.foundRelay(o, time.Now())
		case <-f.failover.news:
		case <-f.changed:
		case a := <-f.probes:
			f.handleProbe(a)
		case <-f.sized:
		case <-timer.C:
		}
		now := time.Now()
		timer.Reset(time.Until(earliest(now, f.sizes.measure(nil, now), f.watchRelay(now))))
	}
}

// advance does what is due, and returns when it should be called again.
func (f *pathfinder) advance(now time.Time) time.Time {
	if f.conn.link.role == control.Accepter {
		f.follow(now)
	}
	next := earliest(now,
		f.watchPath(now),
		f.search.begin(now),
		f.search.sendProbes(now),
		f.search.choose(now),
		f.search.end(now),
		f.carrier.retryRelayPath(now),
		f.search.returnToRelay(now),
		f.carrier.enforceDirectOnly(now))
	// The path may be another one than before.
	return earliest(now, next, f.sizes.measure(f.carrier.path, now), f.watchRelay(now))
}

// earliest returns the first of the times that are not zero, in an hour at most.
func earliest(now time.Time, times ...time.Time) time.Time {
	next := now.Add(time.Hour)
	for _, at := range times {
		if !at.IsZero() && at.Before(next) {
			next = at
		}
	}
	return next
}

// announce tells the peer the addresses of this host. If they are other ones than
// before, all addresses of the peer are tried again.
func (f *pathfinder) announce() {
	if f.own.announce() {
		f.search.restart(time.Now())
	}
}

// follow notices that quic-go has followed the dialer to another path.
func (f *pathfinder) follow(now time.Time) {
	if f.carrier.follow(now) {
		f.search.pause = 0
	}
}

// watchPath checks the direct path in use, if there is one, and begins to search when
// it has died.
func (f *pathfinder) watchPath(now time.Time) time.Time {
	next, died := f.carrier.watch(now)
	if died {
		f.search.restart(now)
	}
	return next
}

// watchRelay checks whether the relay works, and turns to another one or begins to search
// when it does not.
func (f *pathfinder) watchRelay(now time.Time) time.Time {
	at, why := f.failover.watch(f.carrier.isDirect(), now)
	f.relayTurned(why, now)
	return earliest(now, at, f.watchForwarding(now))
}

// relayTurned takes note that packets go through another relay, unless why is
// WhyEstablished.
func (f *pathfinder) relayTurned(why PathReason, now time.Time) {
	if why == WhyEstablished {
		return
	}
	f.relay.reset()
	f.sizes.relay.recheck(now)
	f.carrier.report(why)
}

// watchForwarding checks whether the relay forwards, and begins to search when it does not.
func (f *pathfinder) watchForwarding(now time.Time) time.Time {
	next, lost := f.relay.watch(f.carrier.isDirect(), f.search.policy, now)
	if lost && f.locals != nil {
		f.search.startIfResting(now)
	}
	return next
}

// handleFrame acts on a frame of the peer's.
func (f *pathfinder) handleFrame(fr frame) {
	now := time.Now()
	var err error
	switch fr.kind {
	case frameAddAddress:
		var added bool
		if added, err = f.peer.add(fr.payload, f.own.named, now); added {
			f.search.startIfResting(now)
		}
	case frameRemoveAddress:
		err = f.peer.remove(fr.payload)
	case framePunchMeNow:
		if _, _, err = cutVarint(fr.payload); err == nil {
			f.search.join(now)
		}
	case frameWish:
		var theirs uint64
		if theirs, _, err = cutVarint(fr.payload); err == nil {
			f.search.peerPolicy(PathPolicy(min(theirs, 0xff)))
		}
	default:
		f.handleRelayFrame(fr)
	}
	if err != nil {
		_ = f.conn.CloseWithError(CodeHandshake, err.Error())
	}
}

// handleRelayFrame acts on a frame of the peer's that is about relays.
func (f *pathfinder) handleRelayFrame(fr frame) {
	now := time.Now()
	why, err := f.failover.handleFrame(fr, now)
	if err != nil {
		_ = f.conn.CloseWithError(CodeHandshake, err.Error())
		return
	}
	f.relayTurned(why, now)
}

// handleProbe acts on a datagram that may be a probe of the peer's.
func (f *pathfinder) handleProbe(r receivedProbe) {
	link := f.conn.link
	p, err := f.pinger.parse(r.data)
	if err != nil || link.isRelay(r.from) {
		link.mux.unsorted.Add(1)
		return
	}
	now := time.Now()
	switch {
	case !r.from.IsValid():
		f.handleRelayedProbe(p, now)
	case p.kind == probePing:
		f.handlePing(p, r.from, now)
	case p.kind == probePong:
		f.handlePong(p, r.from, now)
	}
}

// handleRelayedProbe acts on a probe that has come through the relay.
func (f *pathfinder) handleRelayedProbe(p probe, now time.Time) {
	f.conn.link.peerReadsEnvelopes.Store(true)
	switch p.kind {
	case probePing:
		f.pinger.pongByRelay(p.sequence)
	case probePong:
		f.relay.answered(now)
		f.failover.trial.answered(p.answers)
		f.sizes.relay.answer(p.answers, now)
	}
}

// handlePing answers a ping. Packets from the address that it comes from are the
// peer's. The peer itself may be elsewhere, if somebody passes its packets on: only
// its answer to a ping of ours proves the address.
func (f *pathfinder) handlePing(p probe, from netip.AddrPort, now time.Time) {
	if f.search.policy == RelayOnly || !isUnicast(from) {
		return
	}
	f.conn.link.direct.prove(from, f.carrier.remote())
	f.pinger.pong(p.sequence, from)
	if f.search.policy == PreferRelay && !f.carrier.isDirect() {
		f.relay.doubt(now) // the peer prefers the relay, and yet it looks for a direct path
	}
	f.search.pinged(from, now)
}

// handlePong takes the answer to a ping.
func (f *pathfinder) handlePong(p probe, from netip.AddrPort, now time.Time) {
	ping, ok := f.pinger.match(p.answers, from)
	if !ok {
		return
	}
	f.conn.link.direct.prove(from, f.carrier.remote())
	if f.carrier.answered(p.answers, ping, f.search.phase == moving, now) {
		f.search.pause = 0
	}
	f.search.answered(p, ping, now)
}
