package p2p

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/quicway/quicway/internal/control"
)

// acceptQueue bounds the connections that wait for a call of Accept.
const acceptQueue = 32

// showAgain is the time after which the relay shows an offer again that has been neither
// acknowledged nor joined.
const showAgain = 10 * time.Second

// mailboxLife is how long an offer from the mailbox is remembered as used.
const mailboxLife = time.Hour

// Accept waits for a connection that a peer has dialed through the relay's mailbox. It
// takes the offers that are addressed to [Endpoint.ID] out of the mailbox of
// [Config.Relay], answers them, and returns the next connection whose handshake is complete.
// With several relays it takes them out of up to three mailboxes: with more than three
// relays, of the first one and of two that a hash of the ID chooses. Offers that lead to no
// connection are logged.
//
// It returns ErrClosed after Close, ctx's error, or the reason why the relay cannot be
// used. It waits for a relay that has been reachable and is not now. It returns
// ErrIdentityInUse when another endpoint with the same identity takes the offers; later
// calls then wait, longer each time, before this endpoint takes offers again.
//
// An offer may be on its way when Accept returns, as with a listening socket. The
// connection then waits for the next call of Accept. It returns ErrListening while there is an
// [Endpoint.Listener], which takes all connections.
func (e *Endpoint) Accept(ctx context.Context) (*Conn, error) {
	conn, err := e.accept(ctx, false)
	if err != nil {
		return nil, fmt.Errorf("p2p: accept: %w", err)
	}
	return conn, nil
}

// accept is Accept. listener says whether the endpoint's listener calls it.
func (e *Endpoint) accept(ctx context.Context, listener bool) (*Conn, error) {
	if err := e.enter(); err != nil {
		return nil, err
	}
	defer e.tasks.Done()
	ctx, stop := e.bound(ctx)
	defer stop(nil)
	failed := make(chan error, 1)
	if err := e.mailbox.addWaiter(failed, listener); err != nil {
		return nil, err
	}
	defer e.mailbox.removeWaiter(failed)
	select {
	case c := <-e.mailbox.accepted:
		return c, nil
	case err := <-failed:
		return nil, err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// mailbox takes the offers that are addressed to an endpoint out of the relay's mailbox,
// and answers them, as long as somebody waits for a connection.
type mailbox struct {
	endpoint  *Endpoint
	accepted  chan *Conn
	answering answering
	look      chan struct{} // holds a token when the list of relays has changed

	mu         sync.Mutex              // guards the following
	waiters    map[chan error]struct{} // calls of Accept, and where they take errors
	listening  bool                    // a listener takes all connections
	collecting bool                    // collect is running
	paces      map[relayKey]*pace      // each is used only by the goroutine that asks that relay
}

func newMailbox(e *Endpoint) mailbox {
	return mailbox{
		endpoint:  e,
		accepted:  make(chan *Conn, acceptQueue),
		answering: answering{senders: make(map[string]int)},
		look:      make(chan struct{}, 1),
		waiters:   make(map[chan error]struct{}),
		paces:     make(map[relayKey]*pace),
	}
}

// addWaiter makes sure that offers are taken. failed gets the reason when they cannot
// be. The caller is one of the endpoint's tasks. It returns ErrListening if the connections
// are a listener's, and that is not the caller.
func (m *mailbox) addWaiter(failed chan error, listener bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.listening && !listener {
		return ErrListening
	}
	m.waiters[failed] = struct{}{}
	if !m.collecting && m.endpoint.ctx.Err() == nil {
		m.collecting = true
		m.endpoint.tasks.Go(m.collect)
	}
	return nil
}

// listen keeps the connections for a listener, until unlisten. It returns false if another
// listener has them.
func (m *mailbox) listen() bool {
	m.mu.Lock()
	was := m.listening
	m.listening = true
	m.mu.Unlock()
	if !was {
		m.fail(ErrListening)
	}
	return !was
}

func (m *mailbox) unlisten() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.listening = false
}

func (m *mailbox) removeWaiter(failed chan error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.waiters, failed)
}

// hasWaiters says whether anybody waits for a connection.
func (m *mailbox) hasWaiters() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.waiters) > 0
}

// stopCollecting ends collect, unless somebody waits.
func (m *mailbox) stopCollecting() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.collecting = len(m.waiters) > 0
	return !m.collecting
}

// fail tells all waiters why no connection will come.
func (m *mailbox) fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for failed := range m.waiters {
		failed <- err
	}
	clear(m.waiters)
}

// collect takes offers and has them answered, as long as somebody waits. A request to
// the relay is not cancelled when the last waiter leaves: the relay may have shown an
// offer already.
func (m *mailbox) collect() {
	for !m.stopCollecting() {
		m.collectAll()
	}
}

// collectFrom takes offers from the mailbox of one relay.
func (m *mailbox) collectFrom(r Relay) error {
	err := m.collectAt(r)
	if to, ok := m.endpoint.elsewhere(r, err); ok && !m.endpoint.list.isMailbox(to) { // which is asked already
		err = m.collectAt(to)
	}
	return err
}

// collectAt takes offers from the mailbox of a relay that has not sent this endpoint
// elsewhere yet.
func (m *mailbox) collectAt(r Relay) error {
	e := m.endpoint
	pace, listed := m.paceOf(r), e.list.isMailbox(r)
	client, err := e.relays.acquire(r)
	if err != nil {
		return err
	}
	defer e.relays.release(client)
	var conn *controlConn
	defer func() { conn.stopOffers() }()
	for m.hasWaiters() && (!listed || e.list.isMailbox(r)) {
		pace.wait(e.ctx)
		current, err := client.current(e.ctx)
		if current != conn {
			conn.stopOffers()
			conn = current
		}
		if err == nil {
			err = m.takeOffer(client, conn, pace)
		}
		switch {
		case e.ctx.Err() != nil:
			return ErrClosed
		case refusedAs(err, control.CodeConflict):
			pace.yield(time.Now())
			e.log.Warn("another endpoint with this identity takes its offers", "relay", r.Addr, "again_in", time.Until(pace.next))
			return fmt.Errorf("%w: %w", ErrIdentityInUse, err)
		case err == nil:
		case errors.Is(err, ErrRelayRefused) || !client.hasWorked():
			return err
		case conn != nil:
			if err := client.replaced(e.ctx, conn); err != nil {
				return err
			}
		default:
			sleep(e.ctx, minBackoff)
		}
	}
	return nil
}

// takeOffer waits for an offer, and has it answered.
func (m *mailbox) takeOffer(client *relayClient, conn *controlConn, pace *pace) error {
	asked := time.Now()
	o, err := conn.takeOffer(m.endpoint.ctx, m.endpoint.ID().String(), client.relay.Token)
	if err != nil {
		return err
	}
	if o == nil {
		pace.empty(asked, time.Now())
		return nil
	}
	pace.brought(time.Now()) // useless offers count as well: they must not delay others
	m.answer(client.relay, o)
	return nil
}

// answer answers an offer in the background, through the relay that it names if that is one
// of the configured ones, and else through the one that it came from. If the session is not
// there, because that relay has sent the dialer elsewhere, it uses the one that the offer
// names, if that may be followed. If too many offers wait for being answered, this one stays in
// the mailbox, and the relay shows it again.
func (m *mailbox) answer(r Relay, o *mailboxOffer) {
	e := m.endpoint
	offer, err := ParseOffer(o.text)
	if err != nil {
		e.log.Warn("malformed offer in mailbox", "err", err)
		e.counters.offers.count(err)
		e.tasks.Go(func() { m.acknowledge(o) })
		return
	}
	switch named := e.list.configured(offer.relay); {
	case e.list.isOwn(named):
		r = named
	case !named.same(r):
		offer.instead = named
	}
	offer.relay = r
	// The clocks of the peers may be wrong. The relay has checked the age of the offer
	// by its own clock.
	offer.expires = time.Now().Add(mailboxLife)
	if !m.answering.add(waitingOffer{o.sender, offer.session, func() { m.begin(o, offer) }}) {
		e.counters.busy.Add(1)
	}
}

// begin answers an offer in the background, whose turn it is.
func (m *mailbox) begin(o *mailboxOffer, offer Offer) {
	m.endpoint.tasks.Go(func() {
		defer m.answering.end(o.sender)
		if isFinal(m.enqueue(offer)) {
			m.acknowledge(o)
		}
	})
}

// isFinal says whether it is useless to try an offer again that led to err. The relay
// knows about an offer that led to no error, because its session has been joined.
func isFinal(err error) bool {
	if errors.Is(err, errNamedRelay) {
		return true
	}
	return err != nil && !errors.Is(err, errClaimed) && !errors.Is(err, ErrRelayUnreachable) && !errors.Is(err, ErrClosed)
}

// acknowledge has the relay delete an offer.
func (m *mailbox) acknowledge(o *mailboxOffer) {
	if o.number == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(m.endpoint.ctx, patience)
	defer cancel()
	if err := o.conn.acknowledge(ctx, m.endpoint.ID().String(), o.number); err != nil {
		m.endpoint.log.Debug("cannot acknowledge offer", "err", err)
	}
}

// enqueue answers an offer, and keeps the connection for the next call of Accept.
func (m *mailbox) enqueue(offer Offer) error {
	e := m.endpoint
	c, err := e.acceptOffer(e.ctx, offer)
	if err == nil {
		c, err = c.awaitPolicy(e.ctx)
	}
	if err != nil {
		if !errors.Is(err, errClaimed) { // the relay has shown it again while it is being answered
			e.log.Warn("offer led to no connection", "dialer", offer.dialer, "err", err)
			e.counters.offers.count(err)
		}
		return err
	}
	if !m.keep(c) {
		e.counters.notAccepted.Add(1)
		e.log.Warn("connection refused: too many wait for Accept", "peer", c.RemoteID())
		_ = c.CloseWithError(CodeHandshake, "the application does not accept connections at the moment")
	}
	return nil
}

// keep keeps a connection for the next call of Accept, if there is room. It counts the
// connection before Accept can return it.
func (m *mailbox) keep(c *Conn) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.accepted) == cap(m.accepted) {
		return false
	}
	m.endpoint.counters.offers.count(nil)
	m.accepted <- c // does not block: nobody else sends
	return true
}
