package main

import (
	"net"

	"github.com/quicway/quicway/quota"
)

// countedListener accepts the TCP connections that the quota admits, and closes others. A
// source has what it may have for TCP and QUIC together.
type countedListener struct {
	net.Listener
	controller *quota.Controller
}

// Accept implements [net.Listener].
func (l *countedListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		slot, err := l.controller.Admit(conn.RemoteAddr().(*net.TCPAddr).AddrPort(), true)
		if err != nil {
			conn.Close()
			continue
		}
		counted := &countedConn{conn, slot}
		slot.OnEnd(func() { counted.Close() })
		return counted, nil
	}
}

// countedConn is a TCP connection with its place in the quota.
type countedConn struct {
	net.Conn
	slot *quota.Slot
}

// Close implements [net.Conn].
func (c *countedConn) Close() error {
	c.slot.Release()
	return c.Conn.Close()
}
