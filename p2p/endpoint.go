package p2p

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"

	"github.com/quicway/quicway/internal/udp"
)

// Endpoint dials and accepts connections, over one UDP socket for each address family.
// All methods may be called concurrently.
type Endpoint struct {
	conf     *Config
	log      *slog.Logger
	identity *Identity
	mux      *mux
	listen   func() ([]net.PacketConn, error) // opens other sockets; nil: the caller has opened them
	renewing sync.Mutex                       // held while the sockets are replaced

	relays  relayClients
	list    *relayList
	mailbox mailbox
	used    usedOffers
	dialed  dialedConns
	turns   dialTurns

	counters endpointCounters

	ctx    context.Context // done when Close begins
	cancel context.CancelFunc
	tasks  sync.WaitGroup // calls and goroutines that Close waits for

	mu     sync.Mutex // guards the following
	closed bool
	locals *localAddresses // nil until a connection needs them
	conns  map[*Conn]struct{}

	closeOnce sync.Once
	closeErr  error
}

// NewEndpoint makes an endpoint. cfg may be nil. An error wraps ErrConfig if the
// configuration is invalid.
//
// The endpoint uses conns, and owns them also if NewEndpoint returns an error. A
// *net.UDPConn is read and written in batches, where the system supports it. Any other
// net.PacketConn works as well, packet by packet. Without conns the endpoint opens a UDP
// socket for each address family, and opens others when these do not work any more
// ([Endpoint.NetworkChanged]). With several relays ([Config.Relays]) it begins at once to
// connect to them, to find the nearest ones.
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
		used:     newUsedOffers(),
		conns:    make(map[*Conn]struct{}),
	}
	e.relays = newRelayClients(e)
	e.list = newRelayList(e)
	e.mailbox = newMailbox(e)
	e.dialed = newDialedConns(e)
	e.turns = newDialTurns()
	e.ctx, e.cancel = context.WithCancel(context.Background())
	e.list.start()
	return e, nil
}

// ID returns the ID by which peers know this endpoint.
func (e *Endpoint) ID() PeerID { return e.identity.ID() }

// LocalAddr returns the local address of the first socket. It changes when the endpoint
// replaces its sockets: see [Endpoint.NetworkChanged].
func (e *Endpoint) LocalAddr() netip.AddrPort { return e.mux.all()[0].LocalAddr() }

// add takes a connection and serves it, unless the endpoint is closed.
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

// Close closes all connections with the application error code 0, tells the relays, and
// closes the sockets. It waits until all goroutines of the endpoint have ended. Calls
// that wait return ErrClosed.
func (e *Endpoint) Close() error {
	e.closeOnce.Do(func() {
		e.mu.Lock()
		e.closed = true
		e.mu.Unlock()
		clients := e.relays.shut()
		e.cancel()
		e.tasks.Wait()
		var errs []error
		for _, c := range clients {
			errs = append(errs, c.close())
		}
		errs = append(errs, e.mux.close())
		if err := errors.Join(errs...); err != nil {
			e.closeErr = fmt.Errorf("p2p: close: %w", err)
		}
	})
	return e.closeErr
}

// bound returns a context that is done when ctx is, and with ErrClosed when Close
// begins. The caller calls stop in the end. stop with an error ends the context early.
func (e *Endpoint) bound(ctx context.Context) (_ context.Context, stop context.CancelCauseFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	unhook := context.AfterFunc(e.ctx, func() { cancel(ErrClosed) })
	return ctx, func(err error) {
		unhook()
		cancel(err)
	}
}

// enter makes a call one that Close waits for. The caller ends it with e.tasks.Done.
func (e *Endpoint) enter() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return ErrClosed
	}
	e.tasks.Add(1)
	return nil
}
