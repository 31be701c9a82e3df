package relay

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/amplify"
	"github.com/quicway/quicway/internal/control"
	"github.com/quicway/quicway/internal/datapath"
	"github.com/quicway/quicway/internal/udp"
)

// Server is a relay. Make one with [Listen] or [New], then call
// [Server.Serve]. All methods may be called concurrently.
type Server struct {
	conf     *Config
	log      *slog.Logger
	secrets  *secrets
	pin      string
	sockets  *sockets
	addrs    ownAddrs
	shards   []*shard
	sessions *table
	mailbox  *mailbox
	offload  offload
	kernel   *datapath.Relay // nil: the kernel does not forward
	hits     chan route      // windows that slideLoop is to slide
	counters serverCounters
	// storeSwept is when the store was last expired. For the sweep alone.
	storeSwept time.Time

	control   udp.Conn // what the shards hand to the relay's own QUIC
	transport *quic.Transport
	http      *http3.Server
	gate      gate
	proven    proven
	ended     endings
	amplify   *amplify.Limit // of what the relay's own QUIC sends
	lobby     *lobby         // strangers
	listeners *lobby         // that wait for offers of their own keys
	serving   sync.WaitGroup // of control connections

	closing   context.Context // done when Close begins
	close     context.CancelFunc
	broken    chan error // why a socket works no more
	draining  atomic.Bool
	starting  sync.Mutex // guards started, and closing's beginning
	started   bool
	running   sync.WaitGroup
	closeOnce sync.Once
	closeErr  error
	same      sameSource // whether clients can be told apart
}

// Listen opens cfg.Shards UDP sockets at address (host:port, as in
// [net.ListenPacket]) and makes a Server of them, which the caller closes. cfg may
// be nil. Network is "udp", "udp4" or "udp6". An error wraps ErrConfig if cfg
// cannot work, or is the system's.
func Listen(ctx context.Context, network, address string, cfg *Config) (*Server, error) {
	conf := cfg.withDefaults()
	if err := conf.validate(); err != nil {
		return nil, fmt.Errorf("relay: %w", err)
	}
	shards := conf.Shards
	if shards == 0 {
		shards = 1
		if udp.CanShard {
			shards = runtime.GOMAXPROCS(0)
		}
	}
	sockets, err := udp.Listen(ctx, network, address, shards, conf.socketConfig())
	if err != nil {
		return nil, fmt.Errorf("relay: %w", err)
	}
	return newServer(conf, sockets)
}

// New makes a Server of open conns, which it owns from then on, also if it
// returns an error. With *net.UDPConns it uses what the system has to move
// many packets at once; any other net.PacketConn works, packet by packet. Conns
// that share one address (SO_REUSEPORT) are shards of it.
func New(cfg *Config, conns ...net.PacketConn) (*Server, error) {
	conf := cfg.withDefaults()
	var sockets []*udp.Socket
	err := conf.validate()
	if len(conns) == 0 {
		err = errors.Join(err, fmt.Errorf("%w: no conns", ErrConfig))
	}
	for _, conn := range conns {
		socket, openErr := udp.New(conn, conf.socketConfig())
		if openErr != nil {
			err = errors.Join(err, openErr, conn.Close())
			continue
		}
		sockets = append(sockets, socket)
	}
	if err != nil {
		return nil, fmt.Errorf("relay: %w", errors.Join(err, groupSockets(sockets).close()))
	}
	return newServer(conf, sockets)
}

func newServer(conf *Config, all []*udp.Socket) (*Server, error) {
	s := &Server{
		conf:      conf,
		log:       conf.Logger,
		sockets:   groupSockets(all),
		addrs:     ownAddrs{log: conf.Logger},
		sessions:  newTable(conf.MaxSessions, conf.MaxSessionsPerAccount),
		mailbox:   newMailbox(conf),
		offload:   noOffload{},
		hits:      make(chan route, maxHits),
		amplify:   amplify.New(amplify.Config{IDLen: cid.Len}),
		broken:    make(chan error, 1),
		lobby:     newLobby(maxStrangers),
		listeners: newLobby(conf.MaxListeners),
		gate:      gate{max: 2*conf.MaxSessions + spareConnections, maxEach: conf.MaxConnectionsPerSource},
	}
	s.closing, s.close = context.WithCancel(context.Background())
	if err := s.setup(); err != nil {
		return nil, fmt.Errorf("relay: %w", errors.Join(err, s.sockets.close(), s.addrs.close()))
	}
	return s, nil
}

// setup makes everything that can fail.
func (s *Server) setup() error {
	if s.sockets.hearsAll() {
		if err := s.addrs.open(); err != nil {
			s.addrs.fail(err)
		}
	}
	var err error
	if s.secrets, err = deriveSecrets(s.conf.Secret); err != nil {
		return err
	}
	setDefault(&s.conf.Token, s.secrets.token)
	if s.conf.Authorize == nil {
		s.conf.Authorize = s.authorizeStatic
	}
	if s.conf.Store == nil {
		s.conf.Store = cid.NewMemoryStore(&cid.MemoryConfig{MaxEntries: s.conf.MaxSessions * idsPerSession})
	}
	if err := s.setupOffload(); err != nil {
		return err
	}
	for _, socket := range s.sockets.all {
		s.shards = append(s.shards, newShard(s, socket))
	}
	s.control, err = udp.NewVirtual(&udp.VirtualConfig{Socket: s.sockets.all[0], Send: s.sendControl})
	if err != nil {
		return err
	}
	return s.setupControl()
}

// setupOffload lets the XDP program forward, unless the kernel has refused its relay
// stage.
func (s *Server) setupOffload() error {
	if s.conf.XDP == nil {
		return nil
	}
	stage, err := s.conf.XDP.Datapath().Relay()
	switch {
	case errors.Is(err, datapath.ErrUnsupported):
		s.log.Warn("the kernel does not forward; the server forwards all packets", "err", err)
		return nil
	case err != nil:
		return fmt.Errorf("%w: XDP: %w", ErrConfig, err)
	}
	s.kernel = stage
	s.offload = &kernelOffload{stage: stage, log: s.log}
	return s.takeOver(stage)
}

// setupControl makes the relay's own QUIC and HTTP/3.
func (s *Server) setupControl() error {
	tlsConf, err := s.secrets.tlsConfig(s.conf.TLS)
	if err != nil {
		return err
	}
	s.pin = pinOf(tlsConf)
	reset, err := s.secrets.resetKey(s.sockets.instance())
	if err != nil {
		return err
	}
	s.transport = &quic.Transport{
		Conn:                  s.control,
		ConnectionIDGenerator: cid.NewGenerator(cid.NewKey(), cid.Relay, nil),
		StatelessResetKey:     reset,
		TokenGeneratorKey:     &s.secrets.validation,
		MaxTokenAge:           noTokens,
		VerifySourceAddress:   func(addr net.Addr) bool { return s.gate.crowded(addrPort(addr).Addr()) },
		ConnContext:           s.enterQUIC,
	}
	handler := s.handler()
	if s.conf.Quota != nil {
		if err := s.conf.Quota.Protect(s.transport); err != nil {
			return err
		}
		handler = s.conf.Quota.Handler(handler)
	}
	s.http = &http3.Server{
		Handler:        handler,
		TLSConfig:      http3.ConfigureTLSConfig(tlsConf),
		ConnContext:    s.enterHTTP,
		MaxHeaderBytes: maxHeaderBytes,
	}
	return nil
}

// sendControl sends what the relay's own QUIC writes, as far as it may go where it is
// sent.
func (s *Server) sendControl(m *udp.Message) error {
	if !s.proven.maySend(m) {
		s.counters.unproven.Add(uint64(m.Count()))
		return nil
	}
	if !s.amplify.MaySend(m.Remote, m.Data) {
		return nil
	}
	group := s.sockets.toward(m.Local, m.Remote.Addr())
	return s.sockets.groups[group].sockets[0].Write(m)
}

// Serve forwards packets and answers requests until ctx is done, and returns nil then,
// or until [Server.Close] or [Server.Shutdown] is called, and returns ErrClosed then;
// or until a socket works no more, whose error it returns. It closes the server when
// it returns. It may be called once.
func (s *Server) Serve(ctx context.Context) error {
	switch err := s.start(); {
	case errors.Is(err, ErrClosed):
		return ErrClosed
	case err != nil:
		return errors.Join(err, s.Close())
	}
	var err error
	select {
	case <-s.closing.Done():
		err = ErrClosed
	case err = <-s.broken:
		s.log.Error("a socket works no more", "err", err)
	case <-ctx.Done():
	}
	if closeErr := s.Close(); closeErr != nil {
		return errors.Join(err, closeErr)
	}
	return err
}

// fail ends Serve with an error.
func (s *Server) fail(err error) {
	select {
	case s.broken <- err:
	default: // another was first
	}
}

// start starts the server's goroutines, once.
func (s *Server) start() error {
	s.starting.Lock()
	defer s.starting.Unlock()
	if s.closing.Err() != nil || s.started {
		return ErrClosed
	}
	s.started = true
	listener, err := s.transport.Listen(s.http.TLSConfig, controlConfig())
	if err != nil {
		return fmt.Errorf("relay: listen for control connections: %w", err)
	}
	if err := s.openPorts(); err != nil {
		return err
	}
	for _, sh := range s.shards {
		s.running.Go(sh.run)
	}
	s.running.Go(func() { s.sweepLoop(s.closing) })
	if s.sockets.hearsAll() {
		s.running.Go(func() { s.addrs.watch(s.closing) })
	}
	s.running.Go(func() { s.slideLoop(s.closing) })
	if s.kernel != nil {
		s.running.Go(func() { s.followEvents(s.kernel) })
	}
	var accepting http3.QUICListener = listener
	if s.conf.Quota != nil {
		accepting = s.conf.Quota.Listener(listener)
	}
	s.serving.Go(func() { s.serveConnections(accepting) })
	s.log.Info("relay serves", "addr", s.Addr(), "shards", len(s.shards))
	return nil
}

// openPorts makes our packets known to the kernel's program.
func (s *Server) openPorts() error {
	if s.kernel == nil {
		return nil
	}
	for i := range s.sockets.groups {
		if err := s.kernel.OpenPort(s.sockets.groups[i].addr.Port()); err != nil {
			return fmt.Errorf("relay: %w", err)
		}
	}
	return nil
}

// withdraw leaves the kernel's program without anything of ours, unless it is
// there to go on.
func (s *Server) withdraw() error {
	if s.kernel == nil {
		return nil
	}
	for _, ses := range s.sessions.snapshot() {
		ses.mu.Lock()
		s.accountLocked(ses)
		if !s.kernel.Pinned() {
			s.withdrawLocked(ses)
		}
		ses.mu.Unlock()
	}
	if s.kernel.Pinned() {
		return nil
	}
	var errs []error
	for i := range s.sockets.groups {
		err := s.kernel.ClosePort(s.sockets.groups[i].addr.Port())
		if !errors.Is(err, datapath.ErrClosed) { // its owner was quicker
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (s *Server) withdrawLocked(ses *session) {
	for r := range ses.legs {
		if ses.legs[r].present {
			s.departLocked(&ses.legs[r])
		}
	}
	s.offload.deleteSession(ses.num)
}

// Close stops at once: packets are no longer forwarded, and sessions end
// without notice. It waits for the server's goroutines, except that of Serve.
// It may be called more than once.
func (s *Server) Close() error {
	s.starting.Lock()
	s.close()
	s.starting.Unlock()
	s.closeOnce.Do(func() {
		// In this order control connections still say goodbye.
		s.serving.Wait()
		err := s.transport.Close()
		err = errors.Join(err, s.control.Close(), s.sockets.close())
		s.running.Wait()
		err = errors.Join(err, s.withdraw(), s.addrs.close())
		s.sessions.close()
		if err != nil {
			s.closeErr = fmt.Errorf("relay: close: %w", err)
		}
	})
	return s.closeErr
}

// Shutdown stops gracefully: no session is opened any more, the peers are
// told, and packets are forwarded until the last session has ended or ctx is
// done. Then it closes the server. It returns ctx's error if sessions were
// left.
func (s *Server) Shutdown(ctx context.Context) error {
	s.draining.Store(true)
	for _, ses := range s.sessions.snapshot() {
		ses.notify(control.Event{Type: control.EventShutdown})
	}
	ticker := time.NewTicker(sweepPeriod)
	defer ticker.Stop()
	for {
		if sessions, _ := s.sessions.count(); sessions == 0 {
			return s.Close()
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), s.Close())
		case <-s.closing.Done():
			return s.Close()
		case <-ticker.C:
		}
	}
}

// Addr returns the address of the first socket.
func (s *Server) Addr() netip.AddrPort { return s.sockets.all[0].LocalAddr() }

// Token returns the access token: the configured one, or the one derived from
// the secret. It means nothing if Config.Authorize is set.
func (s *Server) Token() string { return s.conf.Token }

// Pin returns the hash of the relay's public key in the text form that package
// p2p takes, or "" if the certificate is chosen for each connection
// (tls.Config.GetCertificate).
func (s *Server) Pin() string { return s.pin }

// authorizeStatic is the default of [Config.Authorize].
func (s *Server) authorizeStatic(_ context.Context, req AuthRequest) (string, error) {
	if subtle.ConstantTimeCompare([]byte(req.Token), []byte(s.conf.Token)) != 1 {
		return "", ErrUnauthorized
	}
	return "", nil
}
