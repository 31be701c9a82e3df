package ports

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/quicway/quicway/p2p"
)

const (
	// linkPatience is how long a connection that arrives here waits for a session.
	linkPatience = 15 * time.Second
	// redialFirst and redialMax bound the time between two attempts, which doubles.
	redialFirst = time.Second
	redialMax   = 30 * time.Second
	// lasting is how long a session must last to be a success.
	lasting = time.Minute
)

// errNotConnected says that there is no connection to the peer at present.
var errNotConnected = errors.New("not connected to the peer")

// permanent are errors that another attempt does not cure.
var permanent = []error{
	p2p.ErrClosed, p2p.ErrConfig, p2p.ErrMalformedRelay, p2p.ErrPeerMismatch, p2p.ErrRelayMismatch, p2p.ErrUnauthorized,
}

// Link keeps a session with a peer. It dials again when the session has ended, and also when the
// peer does not answer on it. It implements [Sessions].
type Link struct {
	conf *Config
	dial func(context.Context) (*p2p.Conn, error)

	mu      sync.Mutex // guards the following
	session *Session
	changed chan struct{} // closed when session becomes another one
}

// NewLink makes a link, which calls dial for each session. The caller must call Run.
func NewLink(conf *Config, dial func(context.Context) (*p2p.Conn, error)) *Link {
	return &Link{conf: conf, dial: dial, changed: make(chan struct{})}
}

// Run dials, again and again, until ctx is done, and calls with each new session. It returns
// ctx's error, or that of the first attempt if another one would not help.
func (l *Link) Run(ctx context.Context, connected func(*Session)) error {
	wait := redialFirst
	var next *p2p.Conn // that has replaced the one before
	for first := true; ; {
		conn, err := next, error(nil)
		if conn == nil {
			conn, err = l.dial(ctx)
		}
		switch {
		case ctx.Err() != nil:
			if err == nil {
				_ = conn.CloseWithError(0, "")
			}
			return context.Cause(ctx)
		case err != nil && first && isPermanent(err):
			return err
		case err == nil:
			first = false
			began := time.Now()
			next, err = l.use(ctx, NewSession(conn, l.conf), connected)
			if time.Since(began) > lasting {
				wait = redialFirst
			}
		}
		if next != nil {
			continue
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		l.conf.Log.Warn("not connected to the peer; trying again", "in", wait, "err", err)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		wait = min(2*wait, redialMax)
	}
}

// use runs a session, and returns why it has ended, and the connection that has replaced it, if
// one has.
func (l *Link) use(ctx context.Context, s *Session, connected func(*Session)) (next *p2p.Conn, err error) {
	s.conf.Log.Info("connected", "peer", s)
	var tasks sync.WaitGroup
	tasks.Go(func() { connected(s) })
	tasks.Go(func() { next = l.replace(ctx, s) })
	l.set(s)
	err = s.Run(ctx)
	l.set(nil)
	tasks.Wait()
	return next, err
}

// replace dials while the peer does not answer on a session. It returns a connection on which it
// does and ends the session, unless the peer has been heard on that meanwhile. It returns nil if
// the session ends before.
func (l *Link) replace(ctx context.Context, s *Session) *p2p.Conn {
	wait := redialFirst
	for s.awaitSilence(ctx) {
		l.conf.Log.Warn("the peer does not answer; connecting again", "peer", s.conn.RemoteID())
		conn, err := l.dial(ctx)
		switch {
		case err != nil:
			l.conf.Log.Warn("cannot connect again", "in", wait, "err", err)
			select {
			case <-time.After(wait):
			case <-s.context().Done():
			}
			wait = min(2*wait, redialMax)
		case s.staysSilent(ctx):
			_ = s.conn.CloseWithError(0, "connected again")
			return conn
		default:
			_ = conn.CloseWithError(0, "the other connection is in use again")
			wait = redialFirst
		}
	}
	return nil
}

func (l *Link) set(s *Session) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.session = s
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *Link) get() (*Session, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.session != nil && l.session.context().Err() != nil {
		return nil, l.changed // Run is about to replace it
	}
	return l.session, l.changed
}

// Now implements [Sessions].
func (l *Link) Now() *Session {
	s, _ := l.get()
	return s
}

// Wait implements [Sessions]. It returns errNotConnected after 15 seconds.
func (l *Link) Wait(ctx context.Context) (*Session, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, linkPatience, errNotConnected)
	defer cancel()
	for {
		s, changed := l.get()
		if s != nil && s.answers(ctx) {
			return s, nil
		}
		if s != nil { // it may answer later, or replace replaces it
			changed = s.context().Done()
		}
		select {
		case <-changed:
		case <-time.After(lookEvery):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// KeepListening lets the peer listen for as long as the session lasts, and asks again while the
// peer cannot.
func (s *Session) KeepListening(specs []Spec) {
	var tasks sync.WaitGroup
	defer tasks.Wait()
	for _, spec := range specs {
		tasks.Go(func() { s.keepListening(spec) })
	}
}

func (s *Session) keepListening(spec Spec) {
	for wait := redialFirst; ; wait = min(2*wait, redialMax) {
		err := s.ListenAtPeer(s.context(), spec, func(addr string) {
			s.conf.Log.Info("the peer listens", "network", spec.Network, "address", addr, "target", spec.Target)
			wait = redialFirst
		})
		if s.context().Err() != nil {
			return
		}
		s.conf.Log.Warn("the peer does not listen; asking again", "spec", spec, "in", wait, "err", err)
		select {
		case <-time.After(wait):
		case <-s.context().Done():
			return
		}
	}
}

func isPermanent(err error) bool {
	for _, target := range permanent {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}
