package p2p

import "net/netip"

// judgeObserved says, once, when the relay cannot see where packets come from: it is
// at a public address and sees this host at a private one that is not this host's. A
// proxy or a NAT before the relay has put its own address there (SNAT), and peers that
// are told of it find nobody.
func (h *home) judgeObserved(seen netip.AddrPort) {
	if !isHidden(seen.Addr()) || h.hidden.Load() {
		return
	}
	at := h.address().Addr()
	if at.IsLoopback() || at.IsLinkLocalUnicast() || realmOf(at) >= 0 || !h.hidden.CompareAndSwap(false, true) {
		return
	}
	for _, own := range h.endpoint.hostAddrs() {
		if own.addr.Addr() == seen.Addr() {
			return
		}
	}
	h.endpoint.log.Warn("relay is behind a NAT that hides where packets come from (SNAT): few direct paths will be found",
		"relay", h.relay.Addr, "observed", seen)
}

// isHidden says whether an address is one that a packet from outside cannot have.
func isHidden(a netip.Addr) bool { return a.IsPrivate() || a.IsLoopback() }
