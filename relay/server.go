package relay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"sync"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/datapath"
	"github.com/quicway/quicway/internal/udp"
)

// Server is a relay. Make one with [Listen] or [New], then call [Server.Run], and
// close it with [Server.Close] or [Server.Shutdown]. All methods may be called
// concurrently.
type Server struct {
	*env
	secrets   *secrets
	pin       string
	shards    []*shard
	sessions  *table
	registrar *registrar
	mailbox   *mailbox
	control   *controlServer
	tunnels   *tunnels

	subscribers *subscribers
	authorizes  bool // Config.Authorize was set, and the Token is not used

	closing   context.Context // done when Close begins
	close     context.CancelFunc
	failed    chan error // the first error of a socket
	starting  sync.Mutex // guards started, and the call of close
	started   bool
	running   sync.WaitGroup // the goroutines except those of control
	closeOnce sync.Once
	closeErr  error
}

// Listen opens cfg.Shards UDP sockets and makes a Server of them. The caller closes the
// Server. Network is "udp", "udp4" or "udp6", and address is host:port, as in
// [net.ListenPacket]. cfg may be nil. An error about a field of cfg wraps ErrConfig;
// other errors come from the system.
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

// New makes a Server that uses open conns. The Server owns them and closes them, also
// if New returns an error. On a *net.UDPConn the Server sends and receives many packets
// with one system call where the system can do that; on any other net.PacketConn it
// handles packets one by one. On Linux it uses a duplicate of the socket of a *net.UDPConn,
// which New closes, and a thread waits for each. Conns with the same address (SO_REUSEPORT)
// share the load of that address. cfg may be nil. An error about a field of cfg wraps ErrConfig.
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
		return nil, fmt.Errorf("relay: %w", errors.Join(err, groupSockets(sockets, conf.Logger).close()))
	}
	return newServer(conf, sockets)
}

func newServer(conf *Config, all []*udp.Socket) (*Server, error) {
	s := &Server{
		env:    &env{conf: conf, log: conf.Logger, sockets: groupSockets(all, conf.Logger), offload: noOffload{}},
		failed: make(chan error, 1),
	}
	s.closing, s.close = context.WithCancel(context.Background())
	if err := s.setup(); err != nil {
		s.close()
		if s.sessions != nil {
			s.sessions.close() // those that were taken over
		}
		return nil, fmt.Errorf("relay: %w", errors.Join(err, s.sockets.close(), s.sockets.local.close()))
	}
	return s, nil
}

// setup makes the parts of the server.
func (s *Server) setup() error {
	s.sockets.openLocal()
	s.tunnels = newTunnels(s)
	s.sockets.tunnels = s.tunnels
	var err error
	if s.secrets, err = deriveSecrets(s.conf.Secret, s.conf.OldSecrets...); err != nil {
		return err
	}
	if s.conf.NextSecret != nil {
		if _, err := s.secrets.accept(s.conf.NextSecret); err != nil {
			return err
		}
	}
	s.setupAuthorize()
	s.members = newMembers(s.conf)
	if err := s.members.set(s.conf.Members); err != nil {
		return err
	}
	if s.conf.Store == nil {
		s.conf.Store = cid.NewMemoryStore(&cid.MemoryConfig{MaxEntries: s.conf.MaxSessions * idsPerSession})
	}
	s.store = newStore(s.env)
	s.slider = newSlider(s.store, maxHits)
	s.sessions = newTable(s.env, s.conf.MaxSessions, s.conf.MaxSessionsPerAccount)
	s.mailbox = newMailbox(s.conf)
	auth := &authority{decide: s.conf.Authorize, tokens: &s.secrets.tokens}
	s.registrar = &registrar{env: s.env, auth: auth, tokens: auth.tokens, sessions: s.sessions, mailbox: s.mailbox}
	s.mailbox.evicted = s.sessions.noteEvicted
	if err := s.setupOffload(); err != nil {
		return err
	}
	for _, socket := range s.sockets.all {
		s.shards = append(s.shards, newShard(s, socket))
	}
	s.subscribers = newSubscribers(s.members)
	api := &api{
		env:         s.env,
		registrar:   s.registrar,
		subscribers: s.subscribers,
		offers:      &offerAPI{maxSize: s.conf.MaxOfferSize, auth: auth, mailbox: s.mailbox, registrar: s.registrar, closing: s.closing},
		closing:     s.closing,
	}
	s.control, err = newControlServer(s.closing, s.env, s.secrets, api.handler())
	if err != nil {
		return err
	}
	s.pin = pinOf(s.control.http.TLSConfig)
	s.members.pin = s.pin
	return nil
}

// setupAuthorize makes the default of Config.Authorize. The token that is derived from
// Secret has predecessors, which are derived from OldSecrets.
func (s *Server) setupAuthorize() {
	s.authorizes = s.conf.Authorize != nil
	var old []string
	if s.conf.Token == "" {
		s.conf.Token, old = s.secrets.token, s.secrets.oldTokens
	}
	if s.conf.Authorize == nil {
		s.conf.Authorize = authorizeToken(s.conf.Token, old, &s.secrets.tokens.oldUses)
	}
}

// setupOffload makes the XDP program forward packets, unless the kernel has refused the
// program's relay stage.
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
	s.offload = &kernelOffload{stage: stage, log: s.log}
	return s.registrar.takeOver(stage)
}

// Run forwards packets and answers requests on the server's own sockets, until ctx is
// done or the server is closed. It closes the server before it returns. It may be called
// once.
//
// It returns nil when ctx is done, ErrClosed after [Server.Close] or [Server.Shutdown],
// and another error if a socket fails.
func (s *Server) Run(ctx context.Context) error {
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
	case err = <-s.failed:
		s.log.Error("a socket has failed", "err", err)
	case <-ctx.Done():
	}
	if closeErr := s.Close(); closeErr != nil {
		return errors.Join(err, closeErr)
	}
	return err
}

// fail makes Run return an error.
func (s *Server) fail(err error) {
	select {
	case s.failed <- err:
	default: // another error came first
	}
}

// start starts the server's goroutines. It returns ErrClosed if they were started
// before, or the server is closed.
func (s *Server) start() error {
	s.starting.Lock()
	defer s.starting.Unlock()
	if s.closing.Err() != nil || s.started {
		return ErrClosed
	}
	s.started = true
	if err := s.openPorts(); err != nil {
		return err
	}
	if err := s.control.start(); err != nil {
		return errors.Join(fmt.Errorf("relay: listen for control connections: %w", err), s.closePorts())
	}
	for _, sh := range s.shards {
		s.running.Go(sh.run)
	}
	s.running.Go(func() { s.sweepLoop(s.closing) })
	s.running.Go(func() { s.sockets.watchLocal(s.closing) })
	s.running.Go(func() { s.members.watch(s.closing) })
	s.running.Go(func() { s.slider.run(s.closing) })
	s.running.Go(func() { s.sessions.followEvents(s.closing) })
	s.log.Info("relay serves", "addr", s.Addr(), "shards", len(s.shards))
	return nil
}

// openPorts makes the offload forward packets to the relay's ports.
func (s *Server) openPorts() error {
	for i := range s.sockets.groups {
		if err := s.offload.openPort(s.sockets.groups[i].addr.Port()); err != nil {
			return fmt.Errorf("relay: %w", err)
		}
	}
	return nil
}

// withdraw removes the sessions and ports of the server from the offload, unless the
// offload is pinned, and goes on to forward.
func (s *Server) withdraw() error {
	pinned := s.offload.pinned()
	for _, ses := range s.sessions.snapshot() {
		ses.withdraw(pinned)
	}
	if pinned {
		return nil
	}
	return s.closePorts()
}

// closePorts makes the offload forward no more packets to the relay's ports.
func (s *Server) closePorts() error {
	var errs []error
	for i := range s.sockets.groups {
		errs = append(errs, s.offload.closePort(s.sockets.groups[i].addr.Port()))
	}
	return errors.Join(errs...)
}

// Close stops the server at once: it no longer forwards packets, and its sessions end
// without notice to the peers. Close waits for the server's goroutines, except for a
// call of Run. It may be called more than once.
func (s *Server) Close() error {
	s.starting.Lock()
	s.close()
	s.starting.Unlock()
	s.closeOnce.Do(func() {
		// The tunnels and sockets close last, so that the control connections still
		// send their CONNECTION_CLOSE.
		err := s.control.close()
		s.tunnels.close()
		err = errors.Join(err, s.sockets.close())
		s.running.Wait()
		err = errors.Join(err, s.withdraw(), s.sockets.local.close())
		s.sessions.close()
		if err != nil {
			s.closeErr = fmt.Errorf("relay: close: %w", err)
		}
	})
	return s.closeErr
}

// Addr returns the local address of the first socket.
func (s *Server) Addr() netip.AddrPort { return s.sockets.all[0].LocalAddr() }

// Token returns the access token: Config.Token, or the one derived from Config.Secret. The
// relay also accepts those derived from OldSecrets and NextSecret, if Config.Token is empty.
// It is not used if Config.Authorize is set.
func (s *Server) Token() string { return s.conf.Token }

// Pin returns the hash of the relay's public key, in the text form that p2p.ParsePeerID
// reads. [Server.URL] has it together with the rest that a peer needs. It returns "" if
// Config.TLS does not have exactly one certificate, as with tls.Config.GetCertificate. Without
// Config.TLS, peers that have the Pin that belongs to one of Config.OldSecrets accept the relay
// as well.
func (s *Server) Pin() string { return s.pin }
