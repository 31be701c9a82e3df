package p2p

import "net/netip"

// checkObserved logs, once, that the relay does not see where packets come from: it is at
// a public address and sees this host at a private one that is not this host's. A proxy
// or NAT in front of the relay has put its own address there (SNAT), which is useless to
// peers.
func (c *relayClient) checkObserved(seen netip.AddrPort) {
	if !isPrivateOrLoopback(seen.Addr()) || c.snatLogged.Load() {
		return
	}
	at := c.address().Addr()
	if at.IsLoopback() || at.IsLinkLocalUnicast() || privateRangeOf(at) >= 0 || !c.snatLogged.CompareAndSwap(false, true) {
		return
	}
	for _, own := range c.endpoint.hostAddrs() {
		if own.addr.Addr() == seen.Addr() {
			return
		}
	}
	c.endpoint.log.Warn("relay is behind a NAT that hides where packets come from (SNAT): few direct paths will be found",
		"relay", c.relay.Addr, "observed", seen)
}

// isPrivateOrLoopback says whether an address is one that a packet from the internet cannot have.
func isPrivateOrLoopback(a netip.Addr) bool { return a.IsPrivate() || a.IsLoopback() }
