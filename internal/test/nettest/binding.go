package nettest

import (
	"net/netip"
	"time"
)

// binding is an entry of a gateway's NAT or firewall table.
type binding struct {
	inside, outside netip.AddrPort
	used            time.Time                    // when a packet refreshed it last
	peers           map[netip.AddrPort]time.Time // outside addresses it has sent to, and when last
	forwarded       bool                         // by Forward: lets in everything, and never expires
}

// bindingKey identifies a binding. peer is as much of the outside address as the
// mapping depends on.
type bindingKey struct {
	inside, peer netip.AddrPort
}

func (b *binding) live(lifetime time.Duration) bool {
	return b.forwarded || time.Since(b.used) < lifetime
}

// sent records a packet from inside.
func (b *binding) sent(to netip.AddrPort) {
	b.used = time.Now()
	b.peers[to] = b.used
}

// keep records a packet from outside that refreshes the binding.
func (b *binding) keep(from netip.AddrPort) {
	b.used = time.Now()
	if _, ok := b.peers[from]; ok {
		b.peers[from] = b.used
	}
}

// admits reports whether the filter lets a packet from outside in.
func (b *binding) admits(from netip.AddrPort, filtering Dependence, lifetime time.Duration) bool {
	if b.forwarded {
		return true
	}
	if !b.live(lifetime) {
		return false
	}
	if filtering == EndpointIndependent {
		return true
	}
	for peer, last := range b.peers {
		if time.Since(last) < lifetime && (peer == from ||
			filtering == AddressDependent && peer.Addr() == from.Addr()) {
			return true
		}
	}
	return false
}

// Forward maps a port of the gateway's address to an inside address, for packets from
// and to all outside addresses, as a port mapping protocol does (RFC 6887 §11).
func (l *LAN) Forward(port uint16, inside string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := &binding{
		inside:    netip.MustParseAddrPort(inside),
		outside:   netip.AddrPortFrom(l.address, port),
		peers:     make(map[netip.AddrPort]time.Time),
		forwarded: true,
	}
	l.owners[b.outside], l.forwards[b.inside] = b, b
}

// bindLocked returns the binding for packets from an inside to an outside address. It
// makes one if there is none.
func (l *LAN) bindLocked(from, to netip.AddrPort) *binding {
	if b := l.forwards[from]; b != nil {
		return b
	}
	key := bindingKey{inside: from, peer: l.conf.Mapping.of(to)}
	if from.Addr().Is6() {
		key.peer = netip.AddrPort{} // not translated
	}
	if b := l.bindings[key]; b != nil && b.live(l.conf.Lifetime) {
		return b
	}
	b := &binding{inside: from, outside: from, peers: make(map[netip.AddrPort]time.Time)}
	if from.Addr().Is4() {
		b.outside = l.freeLocked(from.Port())
	}
	l.bindings[key], l.owners[b.outside] = b, b
	return b
}

// of returns the part of an address that the dependence looks at.
func (d Dependence) of(peer netip.AddrPort) netip.AddrPort {
	switch d {
	case AddressPortDependent:
		return peer
	case AddressDependent:
		return netip.AddrPortFrom(peer.Addr(), 0)
	}
	return netip.AddrPort{}
}

// freeLocked returns an outside address that is not in use. It has this port if ports
// are preserved and the port is free, or a random one (RFC 4787 §4.2).
func (l *LAN) freeLocked(port uint16) netip.AddrPort {
	if !l.conf.PreservePorts {
		port = l.randomPort()
	}
	for {
		at := netip.AddrPortFrom(l.address, port)
		if b := l.owners[at]; b == nil || !b.live(l.conf.Lifetime) {
			return at
		}
		port = l.randomPort()
	}
}

func (l *LAN) randomPort() uint16 { return uint16(1024 + l.rng.IntN(1<<16-1024)) }
