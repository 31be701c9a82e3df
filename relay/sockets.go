package relay

import (
	"errors"
	"net/netip"
	"slices"

	"github.com/quicway/quicway/internal/udp"
)

// sockets are all that a server listens on, in groups that share an address.
type sockets struct {
	all    []*udp.Socket
	groups []socketGroup
}

// socketGroup is the shards of one address: any of them can send for it.
type socketGroup struct {
	addr    netip.AddrPort
	sockets []*udp.Socket
}

func groupSockets(all []*udp.Socket) *sockets {
	s := &sockets{all: all}
	for _, socket := range all {
		i := s.find(socket.LocalAddr())
		if i < 0 {
			i = len(s.groups)
			s.groups = append(s.groups, socketGroup{addr: socket.LocalAddr()})
		}
		s.groups[i].sockets = append(s.groups[i].sockets, socket)
	}
	return s
}

func (s *sockets) find(addr netip.AddrPort) int {
	for i := range s.groups {
		if s.groups[i].addr == addr {
			return i
		}
	}
	return -1
}

// toward returns the group that sends from local, or else the one that suits
// remote best.
func (s *sockets) toward(local, remote netip.Addr) int {
	best, score := 0, -1
	for i := range s.groups {
		if n := s.groups[i].suits(local, remote); n > score {
			best, score = i, n
		}
	}
	return best
}

// suits scores a group: bound to the local address, else of the remote's
// family, else a socket for both families.
func (g *socketGroup) suits(local, remote netip.Addr) int {
	bound := g.addr.Addr()
	switch {
	case bound == local:
		return 3
	case bound.Is4() == remote.Is4() && (bound.IsUnspecified() || !local.IsValid()):
		return 2
	case bound.Is6() && bound.IsUnspecified():
		return 1
	}
	return 0
}

// own says whether addr is one of the addresses that the server's sockets hear.
func (s *Server) own(addr netip.AddrPort) bool {
	for i := range s.sockets.groups {
		g := &s.sockets.groups[i]
		if g.addr == addr {
			return true
		}
		if g.addr.Port() == addr.Port() && g.addr.Addr().IsUnspecified() && s.addrs.has(addr.Addr()) {
			return true
		}
	}
	return false
}

// hearsAll says whether a socket hears all addresses of the host.
func (s *sockets) hearsAll() bool {
	return slices.ContainsFunc(s.groups, func(g socketGroup) bool { return g.addr.Addr().IsUnspecified() })
}

// close closes all.
func (s *sockets) close() error {
	var errs []error
	for _, socket := range s.all {
		errs = append(errs, socket.Close())
	}
	return errors.Join(errs...)
}
