package relay

import (
	"net"
	"net/netip"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/quicway/quicway/internal/control"
)

// locate says where a client is: the address that its connection has
// validated, and by which sockets it is reached. It returns errLoop for the
// relay's own address, where packets would go round for ever, and errAway for a
// client that has not come back to this server yet.
func (s *Server) locate(c *client) (legAddr, error) {
	if c.conn == nil {
		return legAddr{}, errAway
	}
	addr := legAddr{remote: remoteAddr(c.conn), local: localAddr(c.conn)}
	if s.own(addr.remote) {
		return legAddr{}, errLoop
	}
	addr.group = s.sockets.toward(addr.local, addr.remote.Addr())
	return addr, nil
}

// remoteAddr is the address that quic-go has validated last: the server's side
// of a connection follows its client only after a PATH_RESPONSE from there
// (RFC 9000 §9.3).
func remoteAddr(conn *quic.Conn) netip.AddrPort { return addrPort(conn.RemoteAddr()) }

// localAddr is the address at which the client sees the relay, or the zero
// Addr where the system does not tell, as where quic-go names the first socket,
// which may be of the other family.
func localAddr(conn *quic.Conn) netip.Addr {
	addr := addrPort(conn.LocalAddr()).Addr()
	if addr.IsUnspecified() || addr.Is4() != remoteAddr(conn).Addr().Is4() {
		return netip.Addr{}
	}
	return addr
}

func addrPort(a net.Addr) netip.AddrPort {
	udp, ok := a.(*net.UDPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := udp.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// follow moves a leg to where its client has gone, if it has.
func (s *Server) followLocked(ses *session, role control.Role) {
	l := &ses.legs[role]
	addr, err := s.locate(l.client)
	if err != nil {
		return
	}
	s.moveLocked(ses, role, addr)
}

// moveLocked puts a leg at an address: one write, whatever the number of its
// IDs.
func (s *Server) moveLocked(ses *session, role control.Role, addr legAddr) {
	l := &ses.legs[role]
	old := l.addr.Load()
	if old != nil && *old == addr {
		return
	}
	moved := addr // so that only a leg that moves takes memory
	l.addr.Store(&moved)
	s.offload.putSession(ses.num, s.ways(ses))
	if old == nil {
		return
	}
	s.counters.moved.Add(1)
	s.log.Info("leg moved", "session", ses.id, "role", role, "from", old.remote, "to", addr.remote)
	l.client.observe()
}

// sight is what the source of a packet says about it.
type sight uint8

const (
	stranger sight = iota // not from the leg
	stray                 // perhaps from the leg, whose NAT has just rebound it
	origin                // from where the leg is
)

// stray decides about packets that carry an ID of the other leg but do not
// come from where this leg is. If its client has moved there, the leg follows.
// If not, a few may pass: a NAT may have rebound it a moment ago. They are no
// sign of life, for they may be anybody's.
func (s *Server) stray(ses *session, role control.Role, from netip.AddrPort, packets int, now time.Time) sight {
	l := &ses.legs[role]
	if !ses.mu.TryLock() { // who has it may take longer than packets can wait
		return l.maybe(now, packets)
	}
	defer ses.mu.Unlock()
	if !l.present {
		return stranger
	}
	s.followLocked(ses, role)
	if l.remote() == from {
		return origin
	}
	return l.maybe(now, packets)
}

// maybe lets a few packets pass that may be from the leg.
func (l *leg) maybe(now time.Time, packets int) sight {
	if l.strays.take(now, packets) {
		return stray
	}
	return stranger
}
