package p2p

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/quicway/quicway/internal/control"
	"github.com/quicway/quicway/internal/udp"
)

// maxUsed bounds the offers that are remembered so as not to take them twice.
const maxUsed = 1 << 16

// homeLinger is how long a relay's control connection is kept when nothing
// needs it: the next connection is then quick.
const homeLinger = 30 * time.Second

// Endpoint is a place from which connections are dialed, and at which they are
// accepted: many at a time, over one UDP socket for each address family. All
// methods may be called concurrently.
type Endpoint struct {
	conf     *Config
	log      *slog.Logger
	identity *Identity
	mux      *mux
	listen   func() ([]net.PacketConn, error) // makes sockets anew; nil: they are the user's
	renewing sync.Mutex                       // held while that is done
	accepted chan *Conn
	handling chan struct{} // holds one token for each offer being answered

	ctx    context.Context // done when Close begins
	cancel context.CancelFunc
	tasks  sync.WaitGroup // what answers offers, and what tends connections

	mu     sync.Mutex // guards the following
	closed bool
	homes  map[relayKey]*home
	locals *localAddresses // nil until a connection has asked
	conns  map[*Conn]struct{}
	used   map[control.SessionID]time.Time // offers taken, until they expire
	forgot time.Time                       // when used was last looked through
	// senders counts the offers being answered by who has left them.
	senders map[string]int
	// Those who wait for a connection from the mailbox hear there why none
	// can come. collecting says that somebody looks into it for them.
	wanting    map[chan error]struct{}
	collecting bool
	pace       pace // of collect alone

	closeOnce sync.Once
	closeErr  error
}

// NewEndpoint makes an endpoint of open conns, which it owns from then on,
// also if it returns an error; without any it opens a UDP socket for each
// address family, and others when the old ones are of no use any more
// ([Endpoint.NetworkChanged]). With *net.UDPConns it uses what the system has to move many
// packets at once; any other net.PacketConn works, packet by packet. cfg may be
// nil. An error wraps ErrConfig if it cannot work.
func NewEndpoint(cfg *Config, conns ...net.PacketConn) (*Endpoint, error) {
	conf, err := cfg.withDefaults()
	listen := conf.listener(conns)
	if err == nil && listen != nil {
		conns, err = listen()
	}
	if err != nil {
		for _, c := range conns {
			err = errors.Join(err, c.Close())
		}
		return nil, err
	}
	m, err := newMux(conns, &udp.Config{DisableGRO: conf.DisableOffload, DisableGSO: conf.DisableOffload})
	if err != nil {
		return nil, err
	}
	e := &Endpoint{
		conf:     conf,
		log:      conf.Logger,
		identity: conf.Identity,
		mux:      m,
		listen:   listen,
		accepted: make(chan *Conn, acceptQueue),
		handling: make(chan struct{}, maxHandling),
		senders:  make(map[string]int),
		homes:    make(map[relayKey]*home),
		conns:    make(map[*Conn]struct{}),
		used:     make(map[control.SessionID]time.Time),
		wanting:  make(map[chan error]struct{}),
	}
	e.ctx, e.cancel = context.WithCancel(context.Background())
	return e, nil
}

// ID returns what peers know this endpoint by.
func (e *Endpoint) ID() PeerID { return e.identity.ID() }

// LocalAddr returns the address of the first socket. It changes when the endpoint
// makes its sockets anew: see [Endpoint.NetworkChanged].
func (e *Endpoint) LocalAddr() netip.AddrPort { return e.mux.all()[0].LocalAddr() }

// acquire returns the home at a relay, which the caller releases.
func (e *Endpoint) acquire(r Relay) (*home, error) {
	if r.Addr == "" {
		return nil, fmt.Errorf("%w: no address: Config.Relay is not set", ErrRelay)
	}
	if _, _, err := r.split(); err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil, ErrClosed
	}
	h := e.homes[r.key()]
	if h == nil {
		var err error
		if h, err = newHome(e, r); err != nil {
			return nil, err
		}
		e.homes[r.key()] = h
	}
	h.users++
	return h, nil
}

// release lets go of a home, which is closed if nobody needs it for a while,
// or at once if it never worked.
func (e *Endpoint) release(h *home) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if h.users--; h.users > 0 || e.closed {
		return
	}
	if !h.worked() {
		e.retireLocked(h)
		return
	}
	e.tasks.Go(func() {
		sleep(e.ctx, homeLinger)
		e.mu.Lock()
		defer e.mu.Unlock()
		if h.users == 0 && !e.closed {
			e.retireLocked(h)
		}
	})
}

// retireLocked makes room for another home at the same relay, which may be
// wanted at once, and closes this one.
func (e *Endpoint) retireLocked(h *home) {
	if e.homes[h.relay.key()] != h {
		return
	}
	delete(e.homes, h.relay.key())
	e.tasks.Go(func() { _ = h.close() })
}

// claim takes an offer for this endpoint, once.
func (e *Endpoint) claim(o *Offer) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.used) >= maxUsed {
		e.forgetUsedLocked(time.Now())
	}
	_, taken := e.used[o.session]
	switch {
	case taken:
		return errClaimed
	case len(e.used) >= maxUsed:
		return fmt.Errorf("%w: too many that have not expired have been", ErrOfferUsed)
	}
	e.used[o.session] = o.expires
	return nil
}

// unclaim gives up an offer that has come to nothing.
func (e *Endpoint) unclaim(o *Offer) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.used, o.session)
}

func (e *Endpoint) forgetUsedLocked(now time.Time) {
	if now.Sub(e.forgot) < time.Second {
		return
	}
	e.forgot = now
	for session, expires := range e.used {
		if now.After(expires) {
			delete(e.used, session)
		}
	}
}

// add makes a connection the endpoint's to tend, unless that is closed.
func (e *Endpoint) add(c *Conn) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return ErrClosed
	}
	e.conns[c] = struct{}{}
	e.tasks.Go(c.run)
	return nil
}

func (e *Endpoint) remove(c *Conn) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.conns, c)
}

// Close ends all connections with the application error code 0, lets the
// relays know, and closes the sockets. It waits until nothing of the endpoint
// is left. Calls that wait return ErrClosed.
func (e *Endpoint) Close() error {
	e.closeOnce.Do(func() {
		e.mu.Lock()
		e.closed = true
		homes := e.homes
		e.homes = nil
		e.mu.Unlock()
		e.cancel()
		e.tasks.Wait()
		var errs []error
		for _, h := range homes {
			errs = append(errs, h.close())
		}
		errs = append(errs, e.mux.close())
		if err := errors.Join(errs...); err != nil {
			e.closeErr = fmt.Errorf("p2p: close: %w", err)
		}
	})
	return e.closeErr
}

// bound ties ctx to the endpoint's life: it is done with ErrClosed when Close
// begins. The caller calls stop in the end, or with an error to end it before.
func (e *Endpoint) bound(ctx context.Context) (_ context.Context, stop context.CancelCauseFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	unhook := context.AfterFunc(e.ctx, func() { cancel(ErrClosed) })
	return ctx, func(err error) {
		unhook()
		cancel(err)
	}
}

// enter makes a call part of what Close waits for. The caller leaves it with
// e.tasks.Done.
func (e *Endpoint) enter() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return ErrClosed
	}
	e.tasks.Add(1)
	return nil
}
