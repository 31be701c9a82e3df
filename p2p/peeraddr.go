package p2p

import (
	"net"
	"net/netip"
)

// PeerAddr is the [net.Addr] of a [Conn]'s peer. It names the peer by its ID, and also
// holds the path at the time of the call. It is comparable.
type PeerAddr struct {
	// ID is the peer's ID. It is zero if [Config.TLS] lets peers connect without a
	// certificate.
	ID PeerID
	// Kind is the kind of the path.
	Kind PathKind
	// Via is the address that packets were sent to: the relay's if Kind is Relayed, that
	// of [Path.Remote] if Kind is Tunneled, and the peer's otherwise.
	Via netip.AddrPort
}

var _ net.Addr = PeerAddr{}

// Network returns "quicway".
func (PeerAddr) Network() string { return "quicway" }

// String returns the text form of the ID, or "anonymous" if it is zero.
func (a PeerAddr) String() string {
	if a.ID.IsZero() {
		return "anonymous"
	}
	return a.ID.String()
}

// RemoteAddr returns a [PeerAddr]. RemoteAddr of the embedded quic.Conn is the address at
// which the connection began, usually the relay's: servers that use only the quic.Conn,
// such as http3's, should identify the peer by [Conn.RemoteID].
func (c *Conn) RemoteAddr() net.Addr {
	p, _ := c.paths.latest()
	return PeerAddr{ID: c.remote, Kind: p.Kind, Via: p.Remote}
}
