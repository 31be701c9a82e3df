package nettest

import (
	"net/netip"
	"time"
)

// Link gives the packets between two addresses of the network conditions of
// their own, in both directions and from now on. A NAT is known by its outside
// address.
func (n *Network) Link(a, b string, c Conditions) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.links[pair(netip.MustParseAddr(a), netip.MustParseAddr(b))] = c
}

// Cut makes a black hole of the way between two addresses, both directions of
// it: what is sent is lost, and nobody is told.
func (n *Network) Cut(a, b string) { n.Link(a, b, Conditions{Loss: 1}) }

// Mend undoes Link and Cut.
func (n *Network) Mend(a, b string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.links, pair(netip.MustParseAddr(a), netip.MustParseAddr(b)))
}

// Outage loses all that is sent from or to these addresses for a while, or
// everything on the network if there are none. What is on its way arrives.
func (n *Network) Outage(d time.Duration, addrs ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	end := time.Now().Add(d)
	if len(addrs) == 0 {
		n.outages[netip.Addr{}] = end
	}
	for _, addr := range addrs {
		n.outages[netip.MustParseAddr(addr)] = end
	}
}

// pair is the key of a pair of addresses, whichever way round.
func pair(a, b netip.Addr) [2]netip.Addr {
	if b.Less(a) {
		a, b = b, a
	}
	return [2]netip.Addr{a, b}
}

// conditionsLocked returns those of a packet's way.
func (n *Network) conditionsLocked(p Packet) Conditions {
	if c, ok := n.links[pair(p.From.Addr(), p.To.Addr())]; ok {
		return c
	}
	return n.conditions
}

// outLocked says whether there is an outage on a packet's way.
func (n *Network) outLocked(p Packet) bool {
	now := time.Now()
	for _, addr := range []netip.Addr{{}, p.From.Addr(), p.To.Addr()} {
		if end, ok := n.outages[addr]; ok && now.Before(end) {
			return true
		}
	}
	return false
}
