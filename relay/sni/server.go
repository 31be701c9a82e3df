package sni

import (
	"bufio"
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

// Server is a relay of TLS over TCP, of QUIC, or of both. Make one with [Listen] or [New], then call
// [Server.Run], and close it with [Server.Close] or [Server.Shutdown]. All methods may be
// called concurrently.
type Server struct {
	conf     *Config
	log      *slog.Logger
	listener *net.TCPListener // nil: there is none
	quic     *quicRelay       // without shards if there are no UDP sockets
	table    atomic.Pointer[table]
	dialer   *dialer
	conns    *connSet
	counters counters
	room     chan struct{} // has an element for each connection
	short    shortLimits
	loops    []*loop // that accept connections; none: goroutines do

	acceptLog atomic.Bool // an error of the listener is being logged

	splicer   *splicer // nil: all connections stay in userspace
	spliceOff string   // why, if they should not

	closing    context.Context // done when Close begins
	close      context.CancelFunc
	draining   context.Context // done when Shutdown or Close begins
	drain      context.CancelFunc
	starting   sync.Mutex // guards started, and the calls of close and drain
	started    bool
	running    *workers // all goroutines
	closeOnce  sync.Once
	unloadOnce sync.Once // when no connections are left
	closeErr   error
}

// New makes a Server that uses an open listener, open UDP sockets, or both. The Server owns
// them and closes them, also if New returns an error. listener is nil for QUIC alone. Several
// conns may have the same address (SO_REUSEPORT), or others. cfg may be nil. An error about cfg
// wraps ErrConfig; other errors come from the system.
//
// On Linux the connections have Go's default keep-alive probes when they have lasted a second,
// whatever the listener says.
//
// With Config.Splice the listener should not use Multipath TCP
// ([net.ListenConfig.SetMultipathTCP]): the kernel cannot relay such connections.
func New(cfg *Config, listener *net.TCPListener, conns ...net.PacketConn) (*Server, error) {
	return newWithKernel(cfg, listener, conns, openKernel)
}

// newWithKernel is New with a function that opens the kernel path.
func newWithKernel(cfg *Config, listener *net.TCPListener, conns []net.PacketConn, open openFunc) (*Server, error) {
	s, err := makeServer(cfg, listener, conns, open)
	if err != nil {
		return nil, fmt.Errorf("sni: %w", errors.Join(err, closeAll(listener, conns)))
	}
	return s, nil
}

func makeServer(cfg *Config, listener *net.TCPListener, conns []net.PacketConn, open openFunc) (*Server, error) {
	if listener == nil && len(conns) == 0 {
		return nil, fmt.Errorf("%w: no listener", ErrConfig)
	}
	conf := cfg.withDefaults()
	table, err := newTable(conf.Routes)
	if err = errors.Join(conf.validate(), err); err != nil {
		return nil, err
	}
	s := &Server{
		conf: conf, log: conf.Logger, listener: listener,
		conns: newConnSet(conf),
		room:  make(chan struct{}, conf.MaxConnections), short: shortLimitsOf(conf), running: newWorkers(),
	}
	if listener != nil {
		s.dialer = newDialer(conf, listener.Addr().(*net.TCPAddr))
	}
	s.table.Store(table)
	s.closing, s.close = context.WithCancel(context.Background())
	s.draining, s.drain = context.WithCancel(s.closing)
	if s.quic, err = newQUICRelay(s, conns); err != nil {
		s.close()
		return nil, err
	}
	if err := s.openSplicer(open); err != nil {
		s.close()
		return nil, errors.Join(err, s.quic.close())
	}
	return s, nil
}

// Addr returns the address of the listener, or of the first UDP socket if there is none.
func (s *Server) Addr() netip.AddrPort {
	if s.listener == nil {
		return s.QUICAddr()
	}
	return addrPort(s.listener.Addr())
}

// QUICAddr returns the address of the first UDP socket, or the zero AddrPort if there is none.
func (s *Server) QUICAddr() netip.AddrPort {
	if len(s.quic.shards) == 0 {
		return netip.AddrPort{}
	}
	return s.quic.shards[0].socket.LocalAddr()
}

// SetRoutes replaces all routes at once, for connections of TCP and QUIC whose ClientHello is
// not complete. Others keep their upstreams. If the error, which wraps ErrConfig, is not nil
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

// route returns the route of a hello, or nil. A Router has to answer before the deadline.
func (s *Server) route(ctx context.Context, h *Hello, deadline time.Time) (*Route, error) {
	if s.conf.Router != nil {
		ctx, cancel := context.WithDeadline(ctx, deadline)
		defer cancel()
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
	failed := make(chan error, 1) // of the first
	fail := func(err error) {
		select {
		case failed <- err:
		default:
		}
	}
	if s.listener != nil {
		if !s.startLoops(fail) {
			s.running.Go(func() { fail(s.accept()) })
		}
		s.running.Go(func() { s.sweep(s.closing) })
	}
	if s.splicer != nil {
		s.running.Go(func() { s.splicer.run(s.closing, s.running.Go) })
	}
	s.quic.start(s.running, fail)
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
		s.acceptFailed(err)
		s.pauseAccepting()
	}
}

// acceptFailed counts an error of the listener that may pass.
func (s *Server) acceptFailed(err error) {
	s.counters.acceptErrors.Add(1)
	s.logBeside(&s.acceptLog, func() { s.log.Warn("a connection was not accepted", "err", err) })
}

// logBeside calls a function that logs on a goroutine of its own, because a log may block. While
// that goroutine runs, further calls with its flag do nothing.
func (s *Server) logBeside(busy *atomic.Bool, log func()) {
	if busy.Swap(true) {
		return
	}
	s.running.Go(func() {
		log()
		busy.Store(false)
	})
}

// pauseAccepting waits after an error of the listener.
func (s *Server) pauseAccepting() {
	select {
	case <-time.After(acceptPause):
	case <-s.draining.Done():
	}
}

// passing reports whether the listener may work again after an error: there may be too
// many open files for the moment.
func passing(err error) bool { return !errors.Is(err, net.ErrClosed) }

// begin serves a connection on a goroutine of its own.
func (s *Server) begin(client *net.TCPConn) {
	c := s.newConn(addrPort(client.RemoteAddr()))
	c.client = client
	s.enter(c)
	s.running.Go(func() {
		defer func() { <-s.room }()
		defer c.finish()
		c.serve(nil, func(r *bufio.Reader) error { return c.open(s.closing, r) })
	})
}

// newConn makes a connection that was accepted.
func (s *Server) newConn(from netip.AddrPort) *conn {
	s.counters.accepted.Add(1)
	c := &conn{server: s, from: from, began: time.Now()}
	if s.splicer != nil {
		c.fromClient.conn, c.fromUpstream.conn = c, c
	}
	return c
}

// enter counts a connection among those that exist.
func (s *Server) enter(c *conn) {
	if evicted := s.conns.add(c); evicted != nil {
		evicted.abort(&refusal{WaitingFull, errEvicted})
	}
	if s.closing.Err() != nil { // Close may not have seen the connection
		c.abort(&refusal{ServerClosed, net.ErrClosed})
	}
}

// ended counts a connection that has ended.
func (s *Server) ended(c *conn) {
	defer s.conns.remove(c) // who sees no connections sees their counters
	s.splicer.forget(c)
	if !c.opened {
		return
	}
	up, down, why := c.fromClient.Load(), c.fromUpstream.Load(), c.why()
	s.counters.fromClients.Add(up)
	s.counters.fromUpstreams.Add(down)
	switch {
	case errors.Is(why, errLeft):
	case errors.Is(why, errIdle):
		s.counters.idle.Add(1)
	case why != nil:
		s.counters.reset.Add(1)
	}
	if !s.log.Enabled(context.Background(), slog.LevelDebug) {
		return
	}
	s.log.Debug("ended", "client", c.hello.Client, "name", c.hello.ServerName, "route", c.route, "upstream", c.to.name(),
		"from_client", up, "from_upstream", down, "takeovers", c.takeovers, "duration", time.Since(c.began), "err", why)
}

// Close resets all connections and closes the listener. It waits until all goroutines
// have ended. It may be called more than once. With Splice.Pin the connections in the
// kernel go on.
func (s *Server) Close() error {
	s.closeOnce.Do(func() {
		s.starting.Lock()
		s.close()
		s.closeErr = errors.Join(s.stop(), s.quic.close())
		s.starting.Unlock()
		for _, c := range s.conns.all() {
			c.part()
		}
	})
	s.running.Wait()
	s.unloadOnce.Do(func() { s.closeErr = errors.Join(s.closeErr, s.splicer.close()) })
	return s.closeErr
}

// stop closes the listener, once.
func (s *Server) stop() error {
	s.drain()
	if s.listener == nil {
		return nil
	}
	for _, l := range s.loops {
		l.stopAccepting()
	}
	if err := s.listener.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// Shutdown accepts no more connections and waits until those that exist have ended or ctx
// is done. Then it closes the server. A QUIC connection ends for the relay when it has had no
// datagrams for Config.QUICIdleTimeout, so ctx should have a deadline. Shutdown returns the
// error of ctx if connections were reset.
func (s *Server) Shutdown(ctx context.Context) error {
	s.starting.Lock()
	err := s.stop()
	s.starting.Unlock()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for {
		n, _ := s.conns.count()
		if flows, _ := s.quic.table.count(); n+flows == 0 {
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
