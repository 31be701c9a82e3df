package p2p

import (
	"net"
	"net/netip"
)

// PeerAddr is the [net.Addr] of the peer at the other end of a [Conn]: who it is,
// wherever it is. It is comparable.
type PeerAddr struct {
	// ID is the peer's. It is zero if [Config.TLS] lets peers connect without a
	// certificate.
	ID PeerID
	// Kind is that of the path, and Via where its packets went when the address was
	// asked for: the peer, or, if Kind is Relayed, the relay.
	Kind PathKind
	Via  netip.AddrPort
}

var _ net.Addr = PeerAddr{}

// Network returns "quicway".
func (PeerAddr) Network() string { return "quicway" }

// String returns the ID, and for a peer without one "anonymous".
func (a PeerAddr) String() string {
	if a.ID.IsZero() {
		return "anonymous"
	}
	return a.ID.String()
}

// RemoteAddr returns a [PeerAddr], which names the peer and not the relay. That of
// the embedded quic.Conn is where the connection began: servers that are given only
// that, as http3's, should take the peer's name from [Conn.RemoteID].
func (c *Conn) RemoteAddr() net.Addr {
	p, _ := c.paths.latest()
	return PeerAddr{ID: c.remote, Kind: p.Kind, Via: p.Remote}
}
