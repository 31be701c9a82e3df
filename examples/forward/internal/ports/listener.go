package ports

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"
)

// Sessions are where forwarded connections go.
type Sessions interface {
	// Wait returns the session, and waits for it while there is none.
	Wait(ctx context.Context) (*Session, error)
	// Now returns the session, or nil while there is none.
	Now() *Session
}

// Listener accepts connections or datagrams at this host, and forwards them.
type Listener struct {
	spec Spec
	conf *Config
	tcp  *net.TCPListener // nil: it is UDP
	udp  *net.UDPConn
}

// Listen begins to listen. The caller must call Run or Close.
func Listen(spec Spec, conf *Config) (*Listener, error) {
	l := &Listener{spec: spec, conf: conf}
	ctx, cancel := context.WithTimeout(context.Background(), dialPatience) // a name may be the peer's
	defer cancel()
	lc := net.ListenConfig{Control: controlFor(spec.Listen)}
	if spec.Network == "udp" {
		c, err := lc.ListenPacket(ctx, "udp", spec.Listen)
		if err != nil {
			return nil, err
		}
		l.udp = c.(*net.UDPConn) // of network udp
		return l, nil
	}
	c, err := lc.Listen(ctx, "tcp", spec.Listen)
	if err != nil {
		return nil, err
	}
	l.tcp = c.(*net.TCPListener) // of network tcp
	return l, nil
}

// Addr returns the address.
func (l *Listener) Addr() net.Addr {
	if l.udp != nil {
		return l.udp.LocalAddr()
	}
	return l.tcp.Addr()
}

// Close closes a listener for which Run is not called.
func (l *Listener) Close() error {
	if l.udp != nil {
		return l.udp.Close()
	}
	return l.tcp.Close()
}

// Run forwards what arrives until ctx is done, and closes the listener. TCP connections that it
// has accepted go on until their session ends. It returns when all that it has begun has ended.
func (l *Listener) Run(ctx context.Context, sessions Sessions) {
	if l.udp != nil {
		l.runUDP(ctx, sessions)
		return
	}
	defer context.AfterFunc(ctx, func() { _ = l.tcp.Close() })()
	defer l.tcp.Close()
	var tasks sync.WaitGroup
	defer tasks.Wait()
	room := make(chan struct{}, maxStreams)
	for {
		select {
		case room <- struct{}{}: // beyond that the kernel's queue grows
		case <-ctx.Done():
			return
		}
		tcp, err := l.tcp.AcceptTCP()
		if err == nil {
			tasks.Go(func() {
				defer func() { <-room }()
				l.forward(ctx, tcp, sessions)
			})
			continue
		}
		<-room
		if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
			return
		}
		l.conf.Log.Warn("cannot accept a connection here", "address", l.Addr(), "err", err)
		select { // most probably there are too many open files
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// forward forwards one TCP connection.
func (l *Listener) forward(ctx context.Context, tcp *net.TCPConn, sessions Sessions) {
	from := tcp.RemoteAddr()
	session, err := sessions.Wait(ctx)
	if err != nil {
		_ = tcp.SetLinger(0)
		_ = tcp.Close()
	} else {
		err = session.forwardTCP(ctx, tcp, l.spec.Target)
	}
	if err != nil && ctx.Err() == nil {
		l.conf.Log.Warn("cannot forward", "from", from, "to", l.spec.Target, "err", err)
	}
}
