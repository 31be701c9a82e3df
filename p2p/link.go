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

// keptIDs is how many of its latest connection IDs a link receives packets for. quic-go
// uses at most six at a time. The others are for late packets.
const keptIDs = 64

// link is the lower layer of one connection between peers: its leg at the relay, its
// connection IDs, and a QUIC transport of its own, because quic-go does not tell the
// generator of IDs for which connection an ID is.
type link struct {
	mux     *mux
	client  *relayClient   // of the relay
	relay   netip.AddrPort // quic-go's address of the relay, which may have moved since
	session control.SessionID
	role    control.Role
	key     cid.Key
	ids     *cid.Generator

	transport *quic.Transport
	virtual   udp.Conn
	flight    *firstFlight // of a dialer, nil otherwise
	activity  activity     // of the path over the relay
	direct    directLink
	size      pathSize    // of the path over the relay
	joined    atomic.Bool // the relay has seen the peer's leg

	envelopes          atomic.Pointer[envelopes]     // nil until there is a connection
	peerID             atomic.Pointer[[cid.Len]byte] // the peer's connection ID that quic-go has used last
	peerReadsEnvelopes atomic.Bool
	pieces             pieces

	mu      sync.Mutex     // guards the following
	initial cid.ID         // of the offer, at the accepter
	known   []cid.ID       // the latest keptIDs, oldest first
	token   string         // what admits the leg next time
	ttl     time.Duration  // what the relay has granted
	seen    netip.AddrPort // this host's address, as the relay sees it
	owner   *Conn          // once there is one
}

// newLink makes a link. It sends nothing.
func newLink(c *relayClient, session control.SessionID, role control.Role, token string) (*link, error) {
	l := &link{
		mux:     c.endpoint.mux,
		client:  c,
		relay:   c.address(),
		session: session,
		role:    role,
		key:     cid.NewKey(),
		token:   token,
	}
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
	if e := l.envelopes.Load(); e != nil && e.anyOwn(m) {
		l.openEnvelopes(m, e)
		return
	}
	l.accept(m)
}

// accept takes packets for quic-go.
func (l *link) accept(m *udp.Message) {
	from := m.Remote
	if !l.isRelay(from) {
		l.receiveDirect(m)
		return
	}
	l.activity.received()
	m.Remote = l.relay
	l.virtual.Deliver(m)
	m.Remote = from
}

// isRelay says whether an address is the relay's, now or when the link was made.
func (l *link) isRelay(a netip.AddrPort) bool { return a == l.relay || a == l.remote() }

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
	if l.flight != nil && l.flight.catch(m.Data) {
		return nil
	}
	out := *m
	if l.role == control.Accepter && m.Remote != l.relay {
		return l.sendDirect(&out)
	}
	l.activity.sent(m.Count())
	out.Remote = l.remote()
	return l.carry(&out, &l.size)
}

// register registers the leg at the relay, or refreshes it.
func (l *link) register(ctx context.Context, conn *controlConn) (*control.Registered, error) {
	request, token := l.registration()
	reply, err := conn.register(ctx, l.session, request, token)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	l.token = reply.Resume
	l.ttl = time.Duration(reply.TTL) * time.Second
	l.mu.Unlock()
	l.observe(conn)
	return reply, nil
}

// registration returns the request that registers or refreshes the leg, and its token.
func (l *link) registration() (*control.Register, string) {
	next := l.ids.Next() // before l.mu: the generator calls generated with its own lock held
	l.mu.Lock()
	defer l.mu.Unlock()
	return &control.Register{Role: l.role, Key: l.key, Next: next, InitialID: l.initial}, l.token
}

// granted is how long the relay keeps the leg without a refresh.
func (l *link) granted() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ttl
}

// observe takes note of this host's address, as the relay sees it.
func (l *link) observe(conn *controlConn) {
	l.mu.Lock()
	addr := conn.address() // under the lock, so that the latest is written last
	owner, changed := l.owner, l.seen != addr
	l.seen = addr
	l.mu.Unlock()
	l.client.checkObserved(addr)
	if owner != nil && changed {
		owner.observed(addr)
	}
}

// relayAnswers tells the link's connection whether the relay answers.
func (l *link) relayAnswers(yes bool) {
	if owner := l.conn(); owner != nil {
		owner.relayAnswers(yes)
	}
}

// peerGone tells the link's connection that the relay reports its peer as gone.
func (l *link) peerGone() {
	if owner := l.conn(); owner != nil {
		owner.peerGone()
	}
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

// idle is how long nothing has been sent or received on any path.
func (l *link) idle(now time.Time) time.Duration {
	return min(l.activity.idle(now), l.direct.activity.idle(now))
}

// heardSince says whether a packet has been received after t.
func (l *link) heardSince(t time.Time) bool {
	return l.activity.heardSince(t) || l.direct.activity.heardSince(t)
}

// observed is this host's address, as the relay sees it.
func (l *link) observed() netip.AddrPort {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.seen
}

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

// remote is the relay's present address.
func (l *link) remote() netip.AddrPort { return l.client.address() }

// openLink makes a link and registers its leg at a relay. initial is the random ID of the
// offer's first flight, and nil at the dialer.
func (e *Endpoint) openLink(ctx context.Context, r Relay, session control.SessionID, role control.Role, token string, initial *cid.ID) (*link, *control.Registered, error) {
	client, err := e.relays.acquire(r)
	if err != nil {
		return nil, nil, err
	}
	var l *link
	if _, err = client.current(ctx); err == nil { // the relay's address is known
		l, err = newLink(client, session, role, token)
	}
	if err != nil {
		e.relays.release(client)
		return nil, nil, err
	}
	var reply *control.Registered
	if initial != nil {
		err = l.routeInitial(*initial)
	}
	if err == nil {
		reply, err = client.legs.register(ctx, l)
	}
	if err != nil {
		_ = l.close()
		e.relays.release(client)
		return nil, nil, err
	}
	return l, reply, nil
}

// endLink gives the leg of a link back to the relay, which still forwards late packets for
// a while.
func (e *Endpoint) endLink(l *link) { l.client.legs.end(context.WithoutCancel(e.ctx), l) }

// discard closes a link and gives its leg back.
func (e *Endpoint) discard(l *link) {
	e.endLink(l)
	if err := l.close(); err != nil {
		e.log.Debug("cannot close transport", "err", err)
	}
	e.relays.release(l.client)
}
