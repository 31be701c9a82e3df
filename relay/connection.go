package relay

import (
	"context"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// serveConnections serves control connections until the server closes.
func (s *Server) serveConnections(listener http3.QUICListener) {
	defer listener.Close()
	for {
		conn, err := listener.Accept(s.closing)
		if err != nil {
			return
		}
		s.serving.Go(func() { s.serveConnection(conn) })
	}
}

// serveConnection serves one control connection until it is over. It is HTTP/3's
// server in place of that of http3, which gives a request all the time there is.
func (s *Server) serveConnection(conn *quic.Conn) {
	raw, err := s.http.NewRawServerConn(conn)
	if err != nil {
		_ = conn.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeInternalError), "")
		return
	}
	c := conn.Context().Value(clientKey{}).(*client)
	s.place(c)
	defer func() {
		c.over.Store(true)
		s.place(c)
	}()
	defer c.watch()()
	var streams sync.WaitGroup
	defer streams.Wait()
	streams.Go(func() {
		for {
			stream, err := conn.AcceptUniStream(s.closing)
			if err != nil {
				return
			}
			streams.Go(func() { raw.HandleUnidirectionalStream(stream) })
		}
	})
	for c.enterRequest() {
		stream, err := conn.AcceptStream(s.closing)
		if err != nil {
			break
		}
		_ = stream.SetReadDeadline(time.Now().Add(requestPatience))
		streams.Go(func() {
			defer c.leaveRequest()
			raw.HandleRequestStream(stream)
		})
	}
	c.end("")
}

// end ends the connection.
func (c *client) end(why string) {
	_ = c.conn.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeNoError), why)
}

// enterRequest waits until there is room for another request. It returns false if
// the connection is over.
func (c *client) enterRequest() bool {
	select {
	case c.requests <- struct{}{}:
		return true
	case <-c.conn.Context().Done():
		return false
	}
}

func (c *client) leaveRequest() { <-c.requests }

// newRequests has room for those of a stranger.
func newRequests() chan struct{} {
	requests := make(chan struct{}, maxRequests)
	for range maxRequests - strangersRequests {
		requests <- struct{}{}
	}
	return requests
}

// show notes that the client has shown a token or has a leg.
func (s *Server) show(c *client) {
	if c.shown.CompareAndSwap(false, true) {
		s.place(c)
		for range maxRequests - strangersRequests {
			<-c.requests
		}
	}
}

// listen notes that the client waits for offers of its own key until it calls done.
// That is no proof of anything, but what it is there for.
func (s *Server) listen(c *client) (done func()) {
	c.listening.Add(1)
	s.place(c)
	return func() {
		c.listening.Add(-1)
		s.place(c)
	}
}

// place moves the client to the lobby of its present state, and ends the client that
// gives way there.
func (s *Server) place(c *client) {
	if gone := s.move(c); gone != nil {
		_ = gone.conn.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeExcessiveLoad), errTooManyConnections.Error())
	}
}

func (s *Server) move(c *client) (gone *client) {
	c.placing.Lock()
	defer c.placing.Unlock()
	var to *lobby
	switch {
	case c.shown.Load() || c.over.Load():
	case c.listening.Load() > 0:
		to = s.listeners
	default:
		to = s.lobby
	}
	if to == c.place {
		return nil
	}
	c.place.leave(c)
	c.place = to
	return to.enter(c, remoteAddr(c.conn).Addr())
}

// watch ends the connection when it has shown nothing for too long.
func (c *client) watch() (stop func()) {
	ctx, cancel := context.WithCancel(c.conn.Context())
	var check func()
	var timer *time.Timer
	var mu sync.Mutex // guards timer
	check = func() {
		switch {
		case ctx.Err() != nil || c.shown.Load():
		case c.listening.Load() == 0:
			c.end("nothing shown")
		default:
			mu.Lock()
			defer mu.Unlock()
			timer.Reset(strangersPatience)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	timer = time.AfterFunc(strangersPatience, check)
	return func() {
		cancel()
		mu.Lock()
		defer mu.Unlock()
		timer.Stop()
	}
}
