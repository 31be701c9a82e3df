package relay

import (
	"crypto/sha256"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/control"
	"github.com/quicway/quicway/internal/datapath"
	"github.com/quicway/quicway/internal/monotime"
)

// linger is how long an ended leg still gets packets, so that the last ones
// of a connection arrive: quic-go repeats CONNECTION_CLOSE for three PTOs.
const linger = 10 * time.Second

// rebindBudget is how many packets from another address than the leg's are forwarded
// in each rebindPeriod. The leg's NAT may have rebound it, and its control connection
// has not validated the new address yet.
const (
	rebindBudget = 32
	rebindPeriod = 10 * time.Second
)

// noCounter is the Counter in the Association of an Initial's ID, which the
// dialer drew at random.
const noCounter = ^uint64(0)

// leg is one end of a session: the address of a peer, and its connection IDs.
// Methods whose names end in Locked need the session's mu.
type leg struct {
	session *session
	role    control.Role

	// Read by the forwarding loops.
	addr        atomic.Pointer[legAddr]   // nil: no address
	routedOwner atomic.Pointer[cid.Owner] // owner, once its IDs are routed; nil: none are
	due         atomic.Uint64             // a packet with this counter or a higher one slides the window
	hitQueued   atomic.Bool               // a hit of the leg waits for the slider
	offloadLow  atomic.Uint64             // the offload does not know the IDs below this counter
	latePackets atomic.Uint32             // packets with counters below offloadLow
	lastPacket  atomic.Int64              // time of the last packet from the leg, of package monotime; 0: none
	rebinding   rebindLimit
	overheld    atomic.Bool // a packet to the leg was dropped that should have been held

	// Guarded by session.mu.
	present       bool
	claim         claim
	key           cid.Key
	owner         cid.Owner
	window        cid.Window       // which IDs the store should know
	inStore       knownIDs         // the IDs that the store knows
	inOffload     knownIDs         // the IDs that the offload knows, a part of those
	offloaded     datapath.Traffic // what the offload has sent to the leg, as counted so far
	initial       cid.ID           // the ID of the dialer's first flight; zero: none
	initialUntil  time.Time        // when the route of initial expires
	client        *client          // the control connection that refreshed the leg last
	ttl           time.Duration
	lastRefreshed time.Time
	storedUntil   time.Time // when the store forgets the leg's IDs
	ended         time.Time // zero: not ended
}

// legAddr is the address of a leg, and the relay's address that the leg uses. A
// legAddr is never changed: a leg that moves gets a new one.
type legAddr struct {
	remote netip.AddrPort
	local  netip.Addr    // invalid: the system chooses
	group  int           // the socket group that sends to the leg
	tunnel *clientTunnel // what leads to the leg in place of a socket; nil: a socket does
	member bool          // remote is another relay
}

// shown is the address for logs and operators: the client's, also if there is a tunnel.
func (a *legAddr) shown() netip.AddrPort {
	if a.tunnel != nil {
		return a.tunnel.client
	}
	return a.remote
}

func (l *leg) init(ses *session, role control.Role) {
	l.session, l.role = ses, role
	l.inStore.table, l.inOffload.table = ses.env.store, ses.env.offload
	l.inOffload.putFirst = true
}

func (l *leg) env() *env { return l.session.env }

// peer is the other leg of the session.
func (l *leg) peer() *leg { return &l.session.legs[l.role.Peer()] }

// remote returns the address of the leg, or the zero AddrPort if it has none.
func (l *leg) remote() netip.AddrPort {
	if a := l.addr.Load(); a != nil {
		return a.remote
	}
	return netip.AddrPort{}
}

// heardAt takes note of a packet from the leg.
func (l *leg) heardAt(now time.Time) { l.lastPacket.Store(monotime.Of(now)) }

// liveLocked says whether the leg is registered, and has not ended.
func (l *leg) liveLocked() bool { return l.present && l.ended.IsZero() }

// connected says whether the control connection that refreshed the leg last is alive.
func (l *leg) connected() bool { return l.present && l.client != nil && l.client.connected() }

// expiresLocked returns when the leg expires: its TTL after the last refresh or the
// last packet. A packet shows that somebody sends from the leg's address, but not that
// the leg's owner is still there. So packets count without limit only while the leg's
// own control connection is alive. If only the other leg's is alive, packets count for
// resumeTTLs TTLs after the last refresh; if none is, they do not count.
func (l *leg) expiresLocked() time.Time {
	last, packet := l.lastRefreshed, monotime.Time(l.lastPacket.Load())
	switch {
	case l.connected():
	case l.peer().connected():
		if limit := l.lastRefreshed.Add(resumeTTLs * l.ttl); packet.After(limit) {
			packet = limit
		}
	default:
		return last.Add(l.ttl)
	}
	if packet.After(last) {
		last = packet
	}
	return last.Add(l.ttl)
}

// followLocked moves the leg to the address that its control connection has validated
// last.
func (l *leg) followLocked() {
	if addr, err := l.env().locate(l.client); err == nil && !l.loopsLocked(addr) {
		l.moveLocked(addr)
	}
}

// loopsLocked says whether both legs would have the address of another relay, between
// which packets could circulate.
func (l *leg) loopsLocked(addr legAddr) bool {
	peer := l.peer().addr.Load()
	return addr.member && peer != nil && peer.member
}

// moveLocked sets the address of the leg. That is one write, however many IDs the leg
// has.
func (l *leg) moveLocked(addr legAddr) {
	old := l.addr.Load()
	if old != nil && *old == addr {
		return
	}
	e := l.env()
	moved := addr // so that only a leg that moves allocates
	l.addr.Store(&moved)
	e.offload.putSession(l.session.num, l.session.offloadLegs())
	if old == nil {
		return
	}
	e.counters.moved.Add(1)
	e.log.Info("leg moved", "session", l.session.id, "role", l.role, "from", old.shown(), "to", addr.shown())
	l.client.observe()
}

// origin says whether a packet comes from a leg.
type origin uint8

const (
	notFromLeg   origin = iota
	maybeFromLeg        // from another address: the leg's NAT may have rebound it
	fromLeg
)

// originOf classifies packets that are addressed to the other leg but come from
// another address than this leg's. If this leg's control connection has moved to that
// address, the leg moves there. If not, a few packets may pass, because a NAT may have
// rebound the leg a moment ago. Those do not keep the leg alive, because anybody may
// have sent them.
func (l *leg) originOf(from netip.AddrPort, packets int, now time.Time) origin {
	// Who holds the lock may need it for longer than packets can wait.
	if !l.session.mu.TryLock() {
		return l.maybe(now, packets)
	}
	defer l.session.mu.Unlock()
	if !l.present {
		return notFromLeg
	}
	l.followLocked()
	if l.remote() == from {
		return fromLeg
	}
	return l.maybe(now, packets)
}

// maybe classifies packets from an address that is not known to be the leg's. Another relay
// is behind no NAT.
func (l *leg) maybe(now time.Time, packets int) origin {
	if addr := l.addr.Load(); addr != nil && addr.member {
		return notFromLeg
	}
	if l.rebinding.take(now, packets) {
		return maybeFromLeg
	}
	return notFromLeg
}

// rebindLimit lets rebindBudget packets pass in each rebindPeriod.
type rebindLimit struct {
	mu    sync.Mutex
	since time.Time
	spent int
}

func (l *rebindLimit) take(now time.Time, packets int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Sub(l.since) >= rebindPeriod {
		l.since, l.spent = now, 0
	}
	if l.spent+packets > rebindBudget {
		return false
	}
	l.spent += packets
	return true
}

// claimLocked gives a free leg to the key of a request. A leg that has a key is only
// refreshed, and only for that key. resumed is the content of the request's resume
// token; ok says whether it has one.
func (l *leg) claimLocked(req *control.Register, resumed content, ok bool) error {
	switch {
	case l.session.over:
		return errNoSession
	case l.present && !l.key.Equal(req.Key):
		return errLegTaken
	case l.present && !l.ended.IsZero():
		return errLegEnded
	case l.present:
		if ok && resumed.resumed().strength() > l.claim.strength() {
			l.claim = resumed.resumed()
		}
		l.window.Extend(req.Next)
		l.syncStoreLocked()
		l.offloadNextLocked(req.Next)
		return nil
	}
	joins := req.Role == control.Accepter
	if joins && !ok && l.session.joined {
		return errJoinUsed
	}
	l.present, l.ended = true, time.Time{}
	l.claim = l.newClaimLocked(resumed, ok)
	l.setKeyLocked(req.Key)
	l.window = cid.NewWindow(req.Next)
	l.session.joined = l.session.joined || resumed.joined || joins
	return nil
}

// newClaimLocked returns the claim of a client to the leg, which is free.
func (l *leg) newClaimLocked(resumed content, ok bool) claim {
	first := l.session.here && (l.role == control.Accepter || !l.session.dialed)
	l.session.dialed = l.session.dialed || l.role == control.Dialer
	switch {
	case ok:
		return resumed.resumed()
	case first:
		return claimFirst
	}
	return claimDoubtful
}

func (l *leg) setKeyLocked(key cid.Key) {
	l.key = key
	l.owner = ownerOf(l.session.id, l.role, key)
}

// arrivedLocked routes the IDs of a new leg, and notifies both clients if the other
// leg is there.
func (l *leg) arrivedLocked(next uint64, now time.Time) {
	e := l.env()
	l.lastPacket.Store(0)
	l.renewLocked(now)
	l.offloadNextLocked(next)
	e.counters.registered.Add(1)
	e.log.Info("leg registered", "session", l.session.id, "role", l.role, "addr", l.client.remote())
	if !l.peer().present {
		return
	}
	for r := range l.session.legs {
		l.session.legs[r].client.notify(control.Event{Type: control.EventJoined, Session: l.session.id})
	}
}

// endLocked ends the leg for the holder of its key. It lingers, so that the last
// packets are still forwarded.
func (l *leg) endLocked(now time.Time) {
	l.ended = now
	l.env().log.Info("leg ended", "session", l.session.id, "role", l.role)
	l.session.noteLocked()
	l.notifyGoneLocked()
}

// notifyGoneLocked tells the other leg that this one has ended or expired.
func (l *leg) notifyGoneLocked() {
	if peer := l.peer(); peer.present {
		peer.client.notify(control.Event{Type: control.EventGone, Session: l.session.id})
	}
}

// sweepLocked drops, moves or renews the leg if that is due, and returns whether it is
// present afterwards.
func (l *leg) sweepLocked(now time.Time) bool {
	if !l.present {
		return false
	}
	e := l.env()
	if l.client.conn != nil && !l.connected() {
		l.client = new(client) // the leg may outlive the connection, and must not keep its memory
	}
	if !l.ended.IsZero() {
		if now.Sub(l.ended) >= linger {
			l.dropLocked()
		}
		return l.present
	}
	if now.After(l.expiresLocked()) {
		e.counters.expired.Add(1)
		e.log.Info("leg expired", "session", l.session.id, "role", l.role)
		l.notifyGoneLocked()
		l.dropLocked()
		return false
	}
	l.followLocked()
	if !l.initial.IsZero() && now.After(l.initialUntil) {
		l.forgetInitialLocked()
	}
	if l.storedUntil.Sub(now) < e.conf.TTL {
		l.renewLocked(now)
	}
	return true
}

// dropLocked removes the leg: its routes, its address and its key.
func (l *leg) dropLocked() {
	l.forgetInitialLocked()
	l.leaveOffloadLocked()
	l.inStore.clear(l)
	l.addr.Store(nil)
	l.routedOwner.Store(nil)
	l.present, l.client = false, nil
	l.env().offload.putSession(l.session.num, l.session.offloadLegs())
	l.session.noteLocked()
}

// infoLocked describes the leg for the operator.
func (l *leg) infoLocked() Leg {
	out := Leg{Connected: l.connected(), Expires: l.expiresLocked()}
	if a := l.addr.Load(); a != nil {
		out.Remote, out.Tunneled = a.shown(), a.tunnel != nil
	}
	if last := l.lastPacket.Load(); last > 0 {
		out.Heard = monotime.Time(last)
	}
	if !l.ended.IsZero() {
		out.Expires = l.ended.Add(linger)
	}
	return out
}

// ownerOf derives the owner of a leg's routes in the store. It is the same after a
// restart, and does not reveal the key.
func ownerOf(id control.SessionID, role control.Role, key cid.Key) cid.Owner {
	h := sha256.New()
	h.Write([]byte("quicway leg"))
	h.Write(id[:])
	h.Write([]byte{byte(role)})
	h.Write(key[:])
	return cid.Owner(h.Sum(nil)[:len(cid.Owner{})])
}
