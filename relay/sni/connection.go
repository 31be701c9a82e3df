package sni

import (
	"iter"
	"net/netip"
	"time"
)

// Connection is a connection of a client. It is a copy. The JSON names stay. Later
// versions may add fields.
type Connection struct {
	Client netip.AddrPort `json:"client"`
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
}

// Connections yields the connections that exist when the loop begins, in no order.
func (s *Server) Connections() iter.Seq[Connection] {
	return func(yield func(Connection) bool) {
		for _, c := range s.conns.all() {
			if !yield(c.snapshot()) {
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
		Client: c.hello.Client, ServerName: c.hello.ServerName, ALPN: append([]string(nil), c.hello.ALPN...), ECH: c.hello.ECH,
		Route: c.route, Began: c.began, FromClient: up, FromUpstream: down,
	}
	if c.upstream != nil {
		out.Upstream = c.upstream.RemoteAddr().String()
	}
	return out
}
