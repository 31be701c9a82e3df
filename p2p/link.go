package p2p

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/control"
	"github.com/quicway/quicway/internal/udp"
)

// registerSize is more than a registration needs besides the offer, in bytes.
const registerSize = 512

// keptIDs is how many of its latest connection IDs a link receives packets for. quic-go
// uses at most six at a time. The others are for late packets.
const keptIDs = 64

// link is the lower layer of one connection between peers: its legs at relays, its
// connection IDs, and a QUIC transport of its own, because quic-go does not tell the
// generator of IDs for which connection an ID is.
type link struct {
	mux     *mux
	relay   netip.AddrPort // quic-go's address of the relay, whichever relay carries
	routes  atomic.Pointer[routes]
	session control.SessionID
	role    control.Role
	key     cid.Key
	ids     *cid.Generator

	transport *quic.Transport
	virtual   udp.Conn
	flight    *firstFlight  // of a dialer, nil otherwise
	answer    answerFlight  // of an accepter
	admitted  atomic.Bool   // the relay has registered the leg
	unoffered chan struct{} // of a dialer: holds a token when a mailbox may have lost the offer
	hellos    atomic.Pointer[earlyHellos]
	activity  activity // of the path over the relay that carries
	elsewhere elsewhere
	direct    directLink
	size      pathSize    // of the path over the relay
	joined    atomic.Bool // a relay has seen the peer's leg

	envelopes          atomic.Pointer[envelopes]     // nil until there is a connection
	peerID             atomic.Pointer[[cid.Len]byte] // the peer's connection ID that quic-go has used last
	peerReadsEnvelopes atomic.Bool
	pieces             pieces

	mu      sync.Mutex // guards the following
	initial cid.ID     // of the offer, at the accepter
	known   []cid.ID   // the latest keptIDs, oldest first
	owner   *Conn      // once there is one
}

// newLink makes a link. It sends nothing.
func newLink(c *relayClient, session control.SessionID, role control.Role, token string) (*link, error) {
	l := &link{
		mux:     c.endpoint.mux,
		relay:   c.address(),
		session: session,
		role:    role,
		key:     cid.NewKey(),
	}
	l.routes.Store(&routes{carrier: &leg{link: l, client: c, token: token}})
	initial := int(c.endpoint.conf.quicConfig().InitialPacketSize)
	l.size.restart(baseSize, initial)
	l.direct.size.restart(baseSize, initial)
	l.ids = cid.NewGenerator(l.key, cid.Peer, l.generated)
	conn, err := udp.NewVirtual(&udp.VirtualConfig{Socket: l.mux.toward(l.relay.Addr()), Send: l.send})
	if err != nil {
		return nil, err
	}
	l.virtual = conn
	l.transport = &quic.Transport{Conn: conn, ConnectionIDGenerator: l.ids, DisableVersionNegotiationPackets: true}
	return l, nil
}

// generated is called with each ID before quic-go uses it.
func (l *link) generated(id cid.ID, _ uint64) {
	l.mux.add(id, l)
	l.mu.Lock()
	l.known = append(l.known, id)
	var old cid.ID
	if len(l.known) > keptIDs {
		old, l.known = l.known[0], l.known[1:]
	}
	l.mu.Unlock()
	if !old.IsZero() {
		l.mux.remove(old, l)
	}
}

// routeInitial routes the random ID of an offer's first flight to the link. It returns
// ErrMalformedOffer if the ID belongs to another link.
func (l *link) routeInitial(id cid.ID) error {
	if !l.mux.addInitial(id, l) {
		return fmt.Errorf("%w: its connection ID is in use", ErrMalformedOffer)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.initial = id
	return nil
}

// receive takes packets that carry one of the link's IDs.
func (l *link) receive(m *udp.Message) {
	if h := l.hellos.Load(); h != nil && l.isRelay(m.Remote) {
		h.catch(m)
	}
	if e := l.envelopes.Load(); e != nil && e.anyOwn(m) {
		l.openEnvelopes(m, e)
		return
	}
	l.accept(m)
}

// accept takes packets for quic-go.
func (l *link) accept(m *udp.Message) {
	from := m.Remote
	switch r := l.routes.Load(); {
	case from == r.carrier.client.address():
		l.activity.received()
	case len(r.others) > 0 && r.find(from) != nil:
		l.heardElsewhere(r.find(from))
	case from != l.relay:
		l.receiveDirect(m)
		return
	}
	m.Remote = l.relay
	l.virtual.Deliver(m)
	m.Remote = from
}

// inject hands datagrams to quic-go as if they came from the relay.
func (l *link) inject(datagrams [][]byte) {
	for _, d := range datagrams {
		l.virtual.Deliver(&udp.Message{Data: d, Remote: l.relay})
	}
}

// send sends what quic-go writes, except for the first flight, which goes into the offer.
// The packets of a dialer go to the relay: its direct paths have transports of their own.
// The packets of an accepter go to the relay or to the peer, since a server follows its
// client.
func (l *link) send(m *udp.Message) error {
	if l.flight != nil && (l.flight.catch(m.Data) || !l.admitted.Load()) {
		return nil // quic-go repeats its first flight, which the relay would take for its own
	}
	out := *m
	if l.role == control.Accepter && m.Remote != l.relay {
		return l.sendDirect(&out)
	}
	if l.activity.sent(m.Count()) >= followAfter {
		l.sendElsewhere(out)
	}
	out.Remote = l.remote()
	l.answer.keep(&out)
	return l.carry(&out, &l.size)
}

// leave has the next registration at the relay that carries leave an offer for a peer in
// the mailbox, unless the request would be too large for a relay.
func (l *link) leave(peer PeerID, offer []byte) {
	if len(offer) > control.MaxBody-registerSize {
		return
	}
	g := l.leg()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.leaving = &control.LeftOffer{Name: peer.String(), Text: string(offer), Relay: g.client.relay.Addr}
}

// attach sets the link's connection.
func (l *link) attach(c *Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.owner = c
}

func (l *link) conn() *Conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.owner
}

// idle is how long nothing has been sent or received on any path, apart from packets of
// relays that do not carry: nobody but the peer may keep this side from sending keepalives.
func (l *link) idle(now time.Time) time.Duration {
	return min(l.activity.idle(now), l.direct.activity.idle(now))
}

// heardSince says whether a packet has been received after t.
func (l *link) heardSince(t time.Time) bool {
	return l.activity.heardSince(t) || l.direct.activity.heardSince(t) || isSince(l.elsewhere.heard.Load(), t)
}

// observed is this host's address, as the relay that carries sees it.
func (l *link) observed() netip.AddrPort { return l.leg().observed() }

// observedUDP is observed, or the zero AddrPort if the relay does not see UDP.
func (l *link) observedUDP() netip.AddrPort { return l.leg().observedUDP() }

// close closes the transports and removes the routes. It waits for quic-go.
func (l *link) close() error {
	err := errors.Join(l.transport.Close(), l.closeDirect())
	l.virtual.Close()
	l.mu.Lock()
	known, initial := l.known, l.initial
	l.known = nil
	l.mu.Unlock()
	l.mux.removeInitial(initial, l)
	for _, id := range known {
		l.mux.remove(id, l)
	}
	return err
}

// relayAddr is the address that a dialer's quic-go connects to.
func (l *link) relayAddr() net.Addr { return net.UDPAddrFromAddrPort(l.relay) }

// openLink makes a link of a session at a relay. Its leg is not registered yet. The
// caller discards the link.
func (e *Endpoint) openLink(ctx context.Context, r Relay, session control.SessionID, role control.Role, token string) (*link, error) {
	client, err := e.relays.acquire(r)
	if err != nil {
		return nil, err
	}
	var l *link
	if _, err = client.current(ctx); err == nil { // the relay's address is known
		l, err = newLink(client, session, role, token)
	}
	if err != nil {
		e.relays.release(client)
		return nil, err
	}
	return l, nil
}

// endLink gives the legs of a link back to the relays, which still forward late packets for
// a while.
func (e *Endpoint) endLink(l *link) {
	var ends sync.WaitGroup
	for _, g := range l.legs() {
		ends.Go(func() { g.client.legs.end(context.WithoutCancel(e.ctx), g) })
	}
	ends.Wait()
}

// discard closes a link and gives its legs back.
func (e *Endpoint) discard(l *link) {
	e.endLink(l)
	if err := l.close(); err != nil {
		e.log.Debug("cannot close transport", "err", err)
	}
	for _, g := range l.legs() {
		e.relays.release(g.client)
	}
}
