package relay

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"

	"github.com/quicway/quicway/internal/tunnel"
	"github.com/quicway/quicway/internal/udp"
)

// sockets are the sockets of a server, in groups with the same address.
type sockets struct {
	all     []*udp.Socket
	groups  []socketGroup
	tunnels *tunnels
	local   localAddrs // used only if a socket is bound to all addresses of the host
}

// socketGroup is the sockets of one address, each of which can send from it.
type socketGroup struct {
	addr    netip.AddrPort
	sockets []*udp.Socket
}

func groupSockets(all []*udp.Socket, log *slog.Logger) *sockets {
	s := &sockets{all: all, local: localAddrs{log: log}}
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

// find returns the index of the group with an address, or -1.
func (s *sockets) find(addr netip.AddrPort) int {
	for i := range s.groups {
		if s.groups[i].addr == addr {
			return i
		}
	}
	return -1
}

// toward returns the index of the group that sends from local or, if there is none, of
// the one that fits remote best.
func (s *sockets) toward(local, remote netip.Addr) int {
	best, score := 0, -1
	for i := range s.groups {
		if n := s.groups[i].suits(local, remote); n > score {
			best, score = i, n
		}
	}
	return best
}

// suits returns how well the group fits: best is a group that is bound to the local
// address, then one of the remote address's IP version, then one for both IP versions.
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

// locate returns the address of a client, which its connection has validated, and the
// socket group or the tunnel that leads there. It returns errLoop for an address of the
// relay itself, because packets to it would circulate for ever, and errAway for a client
// that has not come back after a restart, or whose tunnel has ended.
func (s *sockets) locate(c *client) (legAddr, error) {
	if c.conn == nil {
		return legAddr{}, errAway
	}
	addr := legAddr{remote: remoteAddr(c.conn)}
	if tunnel.IsAddress(addr.remote.Addr()) {
		if addr.tunnel = s.tunnels.find(addr.remote); addr.tunnel == nil {
			return legAddr{}, errAway
		}
		return addr, nil
	}
	addr.local = localAddr(c.conn)
	if s.own(addr.remote) {
		return legAddr{}, errLoop
	}
	addr.group = s.toward(addr.local, addr.remote.Addr())
	return addr, nil
}

// own says whether packets to addr come to one of the sockets.
func (s *sockets) own(addr netip.AddrPort) bool {
	for i := range s.groups {
		g := &s.groups[i]
		if g.addr == addr {
			return true
		}
		if g.addr.Port() == addr.Port() && g.addr.Addr().IsUnspecified() && s.local.has(addr.Addr()) {
			return true
		}
	}
	return false
}

// wildcard says whether a socket is bound to all addresses of the host.
func (s *sockets) wildcard() bool {
	return slices.ContainsFunc(s.groups, func(g socketGroup) bool { return g.addr.Addr().IsUnspecified() })
}

// openLocal lists the addresses of the host, if a socket is bound to all of them.
func (s *sockets) openLocal() {
	if !s.wildcard() {
		return
	}
	if err := s.local.open(); err != nil {
		s.local.fail(err)
	}
}

// watchLocal keeps that list current until ctx is done.
func (s *sockets) watchLocal(ctx context.Context) {
	if s.wildcard() {
		s.local.watch(ctx)
	}
}

// close closes the sockets.
func (s *sockets) close() error {
	var errs []error
	for _, socket := range s.all {
		errs = append(errs, socket.Close())
	}
	return errors.Join(errs...)
}
