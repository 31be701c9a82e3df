package ports

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/quicway/quicway/p2p"
)

// maxStreams is how many TCP connections and UDP flows there may be in each direction.
const maxStreams = 4096

// maxListeners is at how many addresses of this host a session's peer may listen.
const maxListeners = 64

// A stream whose data the local side does not take holds streamWindow bytes of its connection's
// sessionWindow. A few of them must not stop the others.
const (
	streamWindow  = 2 << 20
	sessionWindow = 32 << 20
)

// SetQUIC sets what sessions need of their connections.
func SetQUIC(c *quic.Config) {
	c.EnableDatagrams = true
	c.MaxIncomingStreams, c.MaxIncomingUniStreams = maxStreams, -1
	c.MaxStreamReceiveWindow = streamWindow
	c.InitialConnectionReceiveWindow, c.MaxConnectionReceiveWindow = sessionWindow, sessionWindow
}

// Config says what a peer may do, and is the same for all sessions.
type Config struct {
	Targets Permits       // that a peer may connect to from this host
	Listen  Permits       // addresses of this host at which a peer may listen
	UDPIdle time.Duration // after which a UDP flow ends
	Log     *slog.Logger  // not nil
}

// Session forwards over one connection, in both directions. Its methods may be called
// concurrently.
type Session struct {
	conf    *Config
	conn    *p2p.Conn
	live    liveness
	asks    chan struct{} // holds a token when the peer is to be asked
	doubted atomic.Bool   // leaveIfSilent is running

	listeners atomic.Int32 // of the peer, at this host
	begun     atomic.Int32 // UDP flows that this side has begun

	mu    sync.RWMutex // guards flows
	flows map[quic.StreamID]*flow
}

// NewSession makes a session, which owns the connection. The caller must call Run.
func NewSession(conn *p2p.Conn, conf *Config) *Session {
	return &Session{conf: conf, conn: conn, asks: make(chan struct{}, 1), flows: map[quic.StreamID]*flow{}}
}

// context is done when the connection has ended.
func (s *Session) context() context.Context { return s.conn.Context() }

// Run serves the peer's requests until the connection ends or ctx is done, and returns why. It
// closes the connection, and returns when all that the session has begun has ended.
func (s *Session) Run(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { _ = s.conn.CloseWithError(0, "") })()
	var tasks sync.WaitGroup
	defer tasks.Wait()
	tasks.Go(s.receiveDatagrams)
	tasks.Go(s.sendAsks)
	for {
		stream, err := s.conn.AcceptStream(s.context())
		if err != nil {
			<-s.context().Done() // a little later there is a reason
			return s.conn.Err()
		}
		tasks.Go(func() { s.serve(stream) })
	}
}

// serve reads and fulfills the request of a stream.
func (s *Session) serve(stream *quic.Stream) {
	_ = stream.SetReadDeadline(time.Now().Add(requestPatience))
	line, err := readLine(stream)
	if err != nil {
		s.refuse(stream, err)
		return
	}
	_ = stream.SetReadDeadline(time.Time{})
	r, err := parseRequest(line)
	if err == nil {
		err = s.check(r)
	}
	switch {
	case err != nil:
		s.refuse(stream, err)
	case r.Listen != "":
		s.serveListen(stream, r.Spec)
	case r.Network == "udp":
		s.serveUDP(stream, r.Target)
	default:
		s.serveTCP(stream, r.Target)
	}
}

// check says whether the peer may ask that.
func (s *Session) check(r *request) error {
	if r.Listen != "" {
		return s.conf.Listen.check(r.Listen)
	}
	return s.conf.Targets.check(r.Target)
}

// refuse answers a request with an error, and ends the stream.
func (s *Session) refuse(stream *quic.Stream, err error) {
	s.conf.Log.Warn("cannot do here what the peer asks for", "peer", s.conn.RemoteID(), "reason", err)
	stream.CancelRead(aborted)
	_ = writeAnswer(stream, nil, err)
	_ = stream.Close()
}

// open opens a stream with a request.
func (s *Session) open(ctx context.Context, r *request) (*quic.Stream, error) {
	stream, err := s.conn.OpenStreamSync(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := io.WriteString(stream, r.line()); err != nil {
		stream.CancelRead(aborted)
		return nil, err
	}
	return stream, nil
}

// ListenAtPeer lets the peer listen, and connects to the target from here. It returns when ctx is
// done, or the connection or the peer's listener has ended, with the reason. It calls ready with
// the address when the peer listens.
func (s *Session) ListenAtPeer(ctx context.Context, spec Spec, ready func(addr string)) error {
	stream, err := s.open(ctx, &request{spec})
	if err != nil {
		return err
	}
	defer stream.Close()
	defer stream.CancelRead(aborted)
	defer context.AfterFunc(ctx, func() { stream.CancelRead(aborted) })()
	addr, err := awaitAnswer(stream)
	if err != nil {
		return err
	}
	ready(addr)
	if _, err = io.Copy(io.Discard, stream); err == nil {
		err = &peerError{"its listener has ended"}
	}
	return err
}

// serveListen listens for the peer until the stream ends.
func (s *Session) serveListen(stream *quic.Stream, spec Spec) {
	defer s.listeners.Add(-1)
	if s.listeners.Add(1) > maxListeners {
		s.refuse(stream, errors.New("too many listeners"))
		return
	}
	l, err := Listen(spec, s.conf)
	if err != nil {
		s.refuse(stream, err)
		return
	}
	ctx, cancel := context.WithCancel(s.context())
	defer cancel()
	var running sync.WaitGroup
	running.Go(func() { l.Run(ctx, fixed{s}) })
	if err := writeAnswer(stream, l.Addr(), nil); err == nil {
		s.conf.Log.Info("listening for a peer", "peer", s.conn.RemoteID(), "network", spec.Network, "address", l.Addr())
		_, _ = io.Copy(io.Discard, stream)
	}
	cancel()
	running.Wait()
	stream.CancelRead(aborted)
	_ = stream.Close()
}

// fixed is a session as [Sessions].
type fixed struct{ *Session }

func (f fixed) Wait(context.Context) (*Session, error) { return f.Session, nil }
func (f fixed) Now() *Session                          { return f.Session }

// String says which peer the session is with, and on which path.
func (s *Session) String() string {
	return fmt.Sprintf("%v, %v", s.conn.RemoteID(), s.conn.Path().Kind)
}
