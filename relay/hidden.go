package relay

import (
	"net/netip"
	"sync"
)

// manyClients is how many clients with one private address, and none with another,
// make it likely that the address is not theirs.
const manyClients = 4

// sameSource notices that all clients come from one private address: a proxy or a
// NAT before the relay has put its own there (SNAT). Then the relay tells all of them
// an address at which nobody finds them.
type sameSource struct {
	mu      sync.Mutex
	settled bool // there is another address, or it has been said
	first   netip.Addr
	ports   []uint16 // at most manyClients
}

// note takes note of a leg's address. It returns true once, when there is something
// to be said.
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
