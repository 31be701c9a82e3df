package nettest

import (
	"net/netip"
	"time"
)

// Link sets the conditions for packets between two addresses of the network, in both
// directions. Hosts behind a NAT have its outside address.
func (n *Network) Link(a, b string, c Conditions) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.links[pair(netip.MustParseAddr(a), netip.MustParseAddr(b))] = c
}

// Cut loses all packets between two addresses, in both directions and without an error.
func (n *Network) Cut(a, b string) { n.Link(a, b, Conditions{Loss: 1}) }

// Mend undoes Link and Cut.
func (n *Network) Mend(a, b string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.links, pair(netip.MustParseAddr(a), netip.MustParseAddr(b)))
}

// Outage loses all packets that are sent from or to these addresses during d, or all on
// the network if there are no addresses. Packets under way arrive.
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

// pair returns the key of two addresses, in whatever order.
func pair(a, b netip.Addr) [2]netip.Addr {
	if b.Less(a) {
		a, b = b, a
	}
	return [2]netip.Addr{a, b}
}

// conditionsLocked returns the conditions for a packet.
func (n *Network) conditionsLocked(p Packet) Conditions {
	if c, ok := n.links[pair(p.From.Addr(), p.To.Addr())]; ok {
		return c
	}
	return n.conditions
}

// outLocked reports whether an outage loses a packet.
func (n *Network) outLocked(p Packet) bool {
	now := time.Now()
	for _, addr := range []netip.Addr{{}, p.From.Addr(), p.To.Addr()} {
		if end, ok := n.outages[addr]; ok && now.Before(end) {
			return true
		}
	}
	return false
}
