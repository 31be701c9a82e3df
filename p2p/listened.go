package p2p

import (
	"context"
	"time"

	"github.com/quic-go/quic-go"
)

// serve accepts the streams of a connection in the background, if there is room for it.
func (l *listener) serve(c *Conn) {
	s := newSharedConn(c, func() {})
	if !l.add(s) {
		l.endpoint.log.Warn("connection refused: too many connections", "peer", c.RemoteID())
		_ = c.CloseWithError(CodeHandshake, "too many connections")
		return
	}
	l.endpoint.tasks.Go(func() {
		l.acceptStreams(s)
		l.remove(s)
	})
}

// add takes a connection, if need be in place of one that is not in use.
func (l *listener) add(c *sharedConn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	ofPeer := func(o *sharedConn) bool { return o.RemoteID() == c.RemoteID() && !c.RemoteID().IsZero() }
	all := func(*sharedConn) bool { return true }
	if !l.makeRoom(maxListenedPeer, ofPeer) || !l.makeRoom(maxListened, all) {
		return false
	}
	l.conns[c] = struct{}{}
	return true
}

// makeRoom closes the connection that has been longest without users if there are as many
// connections of a kind as allowed. It returns false if all are in use. l.mu is held.
func (l *listener) makeRoom(most int, ofKind func(*sharedConn) bool) bool {
	n := 0
	var oldest *sharedConn
	var since time.Time
	for c := range l.conns {
		if !ofKind(c) {
			continue
		}
		n++
		if t, idle := c.idleSince(); idle && (oldest == nil || t.Before(since)) {
			oldest, since = c, t
		}
	}
	if n < most {
		return true
	}
	if oldest == nil {
		return false
	}
	if !oldest.closeIdle(0) {
		return l.makeRoom(most, ofKind) // it has come into use meanwhile
	}
	delete(l.conns, oldest)
	return true
}

func (l *listener) remove(c *sharedConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, c)
}

// acceptStreams hands the streams of a connection to calls of Accept, until the connection
// ends.
func (l *listener) acceptStreams(c *sharedConn) {
	for l.ctx.Err() == nil {
		stream, err := c.AcceptStream(l.ctx)
		if err != nil || !c.use() {
			break // if there is a stream, the connection is being closed
		}
		s := c.acceptedConn(stream, c.release)
		select {
		case l.streams <- s:
		case <-l.ctx.Done():
			s.Reset(CodeStreamRefused)
		case <-c.Context().Done():
			s.Reset(CodeStreamRefused)
		}
	}
	c.closeAfter(listenedIdle)
	for {
		stream, err := c.AcceptStream(context.Background())
		if err != nil {
			return
		}
		refuse(stream)
	}
}

// refuse resets a stream.
func refuse(s *quic.Stream) {
	s.CancelRead(CodeStreamRefused)
	s.CancelWrite(CodeStreamRefused)
}
