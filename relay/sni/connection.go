package sni

import (
	"iter"
	"net/netip"
	"time"
)

// Connection is a connection of a client. It is a copy. The JSON names stay. Later
// versions may add fields.
type Connection struct {
	// Network is "tcp", or "udp" for QUIC. A QUIC connection counts once for each address
	// of its client.
	Network string         `json:"network"`
	Client  netip.AddrPort `json:"client"`
	// ServerName, ALPN and ECH are those of [Hello]. They are empty until the
	// ClientHello is complete.
	ServerName string   `json:"name,omitempty"`
	ALPN       []string `json:"alpn,omitempty"`
	ECH        bool     `json:"ech,omitempty"`
	// Route is the name of the route, and Upstream the host:port that the connection
	// goes to. They are empty before.
	Route    string `json:"route,omitempty"`
	Upstream string `json:"upstream,omitempty"`
	// Began is when the connection was accepted.
	Began time.Time `json:"began"`
	// FromClient and FromUpstream are the numbers of bytes so far.
	FromClient   uint64 `json:"from_client"`
	FromUpstream uint64 `json:"from_upstream"`
	// InKernel reports whether the kernel relays the connection, as [Splice] says.
	InKernel bool `json:"in_kernel,omitempty"`
	// Adopted reports whether another process has accepted the connection, and has left
	// it in the kernel. Its ClientHello and its route are not known, Began is when this
	// process began, and the bytes are those since.
	Adopted bool `json:"adopted,omitempty"`
}

// Connections yields the connections that exist when the loop begins, in no order.
func (s *Server) Connections() iter.Seq[Connection] {
	return func(yield func(Connection) bool) {
		for _, c := range s.conns.all() {
			if !yield(c.snapshot()) {
				return
			}
		}
		for _, c := range s.quic.connections() {
			if !yield(c) {
				return
			}
		}
	}
}

func (c *conn) snapshot() Connection {
	up, down := c.relayed()
	c.mu.Lock()
	defer c.mu.Unlock()
	out := Connection{
		Network: "tcp", Client: c.hello.Client, ServerName: c.hello.ServerName, ALPN: append([]string(nil), c.hello.ALPN...), ECH: c.hello.ECH,
		Route: c.route, Began: c.began, FromClient: up, FromUpstream: down,
		InKernel: c.pair != nil, Adopted: c.adopted.IsValid(),
	}
	switch {
	case c.adopted.IsValid():
		out.Upstream = c.adopted.String()
	case c.reached.IsValid():
		out.Upstream = c.reached.String()
	}
	return out
}
