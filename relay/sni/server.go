package sni

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Server is a relay of TLS over TCP. Make one with [Listen] or [New], then call
// [Server.Run], and close it with [Server.Close] or [Server.Shutdown]. All methods may be
// called concurrently.
type Server struct {
	conf     *Config
	log      *slog.Logger
	listener *net.TCPListener
	table    atomic.Pointer[table]
	dialer   *dialer
	conns    *connSet
	counters counters
	room     chan struct{} // has an element for each connection

	closing   context.Context // done when Close begins
	close     context.CancelFunc
	draining  context.Context // done when Shutdown or Close begins
	drain     context.CancelFunc
	starting  sync.Mutex // guards started, and the calls of close and drain
	started   bool
	running   sync.WaitGroup // the goroutines
	closeOnce sync.Once
	closeErr  error
}

// Listen opens a TCP socket and makes a Server of it. The caller closes the Server.
// Network is "tcp", "tcp4" or "tcp6", and address is host:port, as in [net.Listen]. cfg
// may be nil. An error about cfg wraps ErrConfig; other errors come from the system.
func Listen(ctx context.Context, network, address string, cfg *Config) (*Server, error) {
	lc := net.ListenConfig{}
	lc.SetMultipathTCP(false) // splice(2) and TCP_INFO are about plain TCP
	l, err := lc.Listen(ctx, network, address)
	if err != nil {
		return nil, fmt.Errorf("sni: %w", err)
	}
	tcp, ok := l.(*net.TCPListener)
	if !ok {
		return nil, errors.Join(fmt.Errorf("sni: %w: network %q, want tcp, tcp4 or tcp6", ErrConfig, network), l.Close())
	}
	return New(cfg, tcp)
}

// New makes a Server that uses an open listener. The Server owns the listener and closes
// it, also if New returns an error. cfg may be nil. The error wraps ErrConfig.
func New(cfg *Config, listener *net.TCPListener) (*Server, error) {
	if listener == nil {
		return nil, fmt.Errorf("sni: %w: no listener", ErrConfig)
	}
	conf := cfg.withDefaults()
	table, err := newTable(conf.Routes)
	if err = errors.Join(conf.validate(), err); err != nil {
		return nil, fmt.Errorf("sni: %w", errors.Join(err, listener.Close()))
	}
	s := &Server{
		conf: conf, log: conf.Logger, listener: listener,
		dialer: newDialer(conf, listener.Addr().(*net.TCPAddr)),
		conns:  newConnSet(conf),
		room:   make(chan struct{}, conf.MaxConnections),
	}
	s.table.Store(table)
	s.closing, s.close = context.WithCancel(context.Background())
	s.draining, s.drain = context.WithCancel(s.closing)
	return s, nil
}

// Addr returns the address of the listener.
func (s *Server) Addr() netip.AddrPort { return addrPort(s.listener.Addr()) }

// SetRoutes replaces all routes at once, for connections whose ClientHello is not
// complete. Others keep their upstreams. If the error, which wraps ErrConfig, is not nil
// the server keeps the routes that it has.
func (s *Server) SetRoutes(routes []*Route) error {
	t, err := newTable(routes)
	if err != nil {
		return fmt.Errorf("sni: %w", err)
	}
	s.table.Store(t)
	return nil
}

// Routes returns the routes in use.
func (s *Server) Routes() []*Route { return append([]*Route(nil), s.table.Load().all...) }

// route returns the route of a hello, or nil.
func (s *Server) route(ctx context.Context, h *Hello) (*Route, error) {
	if s.conf.Router != nil {
		own := *h
		route, err := s.conf.Router(ctx, &own)
		if err != nil || route != nil {
			if err == nil {
				err = route.compile()
			}
			return route, err
		}
	}
	return s.table.Load().find(h), nil
}

// isBalancer reports whether the connections from an address begin with a PROXY protocol
// header.
func (s *Server) isBalancer(addr netip.Addr) bool {
	for _, p := range s.conf.ProxyFrom {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

// Run accepts and relays connections, until ctx is done or the server is closed. It closes
// the server before it returns. It may be called once.
//
// It returns nil when ctx is done, ErrClosed after [Server.Close] or [Server.Shutdown],
// and another error if the listener fails.
func (s *Server) Run(ctx context.Context) error {
	s.starting.Lock()
	if s.started || s.draining.Err() != nil {
		s.starting.Unlock()
		return ErrClosed
	}
	s.started = true
	failed := make(chan error, 1)
	s.running.Go(func() { failed <- s.accept() })
	s.running.Go(func() { s.sweep(s.closing) })
	s.starting.Unlock()
	var err error
	select {
	case <-s.closing.Done():
		err = ErrClosed
	case err = <-failed:
		if s.draining.Err() != nil {
			<-s.closing.Done() // Shutdown lets the connections end
			err = ErrClosed
		}
	case <-ctx.Done():
	}
	return errors.Join(err, s.Close())
}

// acceptPause is the time that the server waits after an error of the listener.
const acceptPause = 50 * time.Millisecond

// accept accepts connections until the listener fails.
func (s *Server) accept() error {
	for {
		select {
		case s.room <- struct{}{}:
		case <-s.draining.Done():
			return ErrClosed
		}
		client, err := s.listener.AcceptTCP()
		if err == nil {
			s.begin(client)
			continue
		}
		<-s.room
		if s.draining.Err() != nil || !passing(err) {
			return err
		}
		s.counters.acceptErrors.Add(1)
		s.log.Warn("a connection was not accepted", "err", err)
		select {
		case <-time.After(acceptPause):
		case <-s.draining.Done():
		}
	}
}

// passing reports whether the listener may work again after an error: there may be too
// many open files for the moment.
func passing(err error) bool { return !errors.Is(err, net.ErrClosed) }

// begin serves a connection on a goroutine of its own.
func (s *Server) begin(client *net.TCPConn) {
	s.counters.accepted.Add(1)
	c := &conn{server: s, client: client, began: time.Now()}
	if evicted := s.conns.add(c); evicted != nil {
		evicted.abort(&refusal{WaitingFull, errEvicted})
	}
	if s.closing.Err() != nil { // Close may not have seen the connection
		c.abort(&refusal{ServerClosed, net.ErrClosed})
	}
	s.running.Go(func() {
		defer func() { <-s.room }()
		defer c.finish()
		c.serve(s.closing)
	})
}

// ended counts a connection that has ended.
func (s *Server) ended(c *conn) {
	s.conns.remove(c)
	if !c.opened {
		return
	}
	up, down, why := c.fromClient.Load(), c.fromUpstream.Load(), c.why()
	s.counters.fromClients.Add(up)
	s.counters.fromUpstreams.Add(down)
	switch {
	case errors.Is(why, errIdle):
		s.counters.idle.Add(1)
	case why != nil:
		s.counters.reset.Add(1)
	}
	s.log.Debug("ended", "client", c.hello.Client, "name", c.hello.ServerName, "route", c.route, "upstream", c.to.address,
		"from_client", up, "from_upstream", down, "duration", time.Since(c.began), "err", why)
}

// Close resets all connections and closes the listener. It waits until all goroutines
// have ended. It may be called more than once.
func (s *Server) Close() error {
	s.closeOnce.Do(func() {
		s.starting.Lock()
		s.close()
		s.closeErr = s.stop()
		s.starting.Unlock()
		for _, c := range s.conns.all() {
			c.abort(&refusal{ServerClosed, net.ErrClosed})
		}
	})
	s.running.Wait()
	return s.closeErr
}

// stop closes the listener, once.
func (s *Server) stop() error {
	s.drain()
	if err := s.listener.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// Shutdown accepts no more connections and waits until those that exist have ended or ctx
// is done. Then it closes the server. It returns the error of ctx if connections were
// reset.
func (s *Server) Shutdown(ctx context.Context) error {
	s.starting.Lock()
	err := s.stop()
	s.starting.Unlock()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for {
		if n, _ := s.conns.count(); n == 0 {
			return errors.Join(err, s.Close())
		}
		select {
		case <-ticker.C:
		case <-s.closing.Done():
			return errors.Join(err, s.Close())
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err, s.Close())
		}
	}
}
