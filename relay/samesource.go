package relay

import (
	"net/netip"
	"sync"
)

// manyClients is how many clients with one private address, and none with another
// address, make it likely that the address is a NAT's or proxy's.
const manyClients = 4

// sameSource detects that all clients come from one private address, because a NAT or a
// proxy in front of the relay has replaced theirs (SNAT). Then the observed address that
// the relay tells its clients is of no use to their peers.
type sameSource struct {
	mu      sync.Mutex
	settled bool // there is another address, or note has returned true
	first   netip.Addr
	ports   []uint16 // of first; at most manyClients
}

// note records the address of a leg. It returns true once, when manyClients clients have
// the same private address.
func (s *sameSource) note(a netip.AddrPort) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.settled:
		return false
	case !s.first.IsValid():
		s.first = a.Addr()
	}
	if a.Addr() != s.first || !a.Addr().IsPrivate() {
		s.settled, s.ports = true, nil
		return false
	}
	for _, p := range s.ports {
		if p == a.Port() {
			return false
		}
	}
	s.ports = append(s.ports, a.Port())
	s.settled = len(s.ports) == manyClients
	return s.settled
}
