package tcptest

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
)

// Relay relays TCP connections in userspace.
type Relay struct {
	// Dial opens the connection to the upstream.
	Dial func() (*net.TCPConn, error)

	// Prefix is sent to the upstream before the client's bytes.
	Prefix []byte

	// Each is called for each connection, on a goroutine of its own, while the relay
	// copies the connection's bytes. Nil relays only.
	Each func(*Conn)
}

// Serve relays until l is closed and all connections have ended.
func (r *Relay) Serve(l *net.TCPListener) {
	var running sync.WaitGroup
	defer running.Wait()
	for {
		client, err := l.AcceptTCP()
		if err != nil {
			return
		}
		running.Go(func() { r.serve(client) })
	}
}

func (r *Relay) serve(client *net.TCPConn) {
	upstream, err := r.Dial()
	if err != nil {
		reset(client)
		return
	}
	if _, err := upstream.Write(r.Prefix); err != nil {
		reset(client)
		reset(upstream)
		return
	}
	c := &Conn{client: client, upstream: upstream}
	c.copyBoth()
	if r.Each != nil {
		r.Each(c)
	}
	c.loops.Wait()
	_ = c.client.Close()
	_ = c.upstream.Close()
}

// Conn is a connection that a [Relay] relays. Only the function Relay.Each may call its
// methods.
type Conn struct {
	client, upstream *net.TCPConn
	loops            sync.WaitGroup
}

// Sockets returns the connection's sockets. The relay reads from both.
func (c *Conn) Sockets() (client, upstream *net.TCPConn) { return c.client, c.upstream }

// Continue goes on with other sockets, after somebody has closed the old ones.
func (c *Conn) Continue(client, upstream *net.TCPConn) {
	c.loops.Wait()
	c.client, c.upstream = client, upstream
	c.copyBoth()
}

func (c *Conn) copyBoth() {
	client, upstream := &socket{TCPConn: c.client}, &socket{TCPConn: c.upstream}
	c.loops.Go(func() { copyOne(upstream, client) })
	c.loops.Go(func() { copyOne(client, upstream) })
}

// copyOne copies one direction and its end. If that fails, both connections are reset,
// unless somebody else has closed the sockets, or ended the loop by a deadline.
func copyOne(dst, src *socket) {
	_, err := io.Copy(dst.TCPConn, src.TCPConn)
	if err == nil {
		err = src.ended()
	}
	if err == nil {
		err = dst.CloseWrite()
	}
	if err != nil && !errors.Is(err, net.ErrClosed) && !errors.Is(err, os.ErrDeadlineExceeded) {
		reset(dst.TCPConn)
		reset(src.TCPConn)
	}
}
