package udp

import (
	"net"
	"net/netip"
)

// AddrPort returns the address and port of a *net.UDPAddr, with IPv4 addresses that are not
// mapped into IPv6. It returns the zero AddrPort for any other net.Addr.
func AddrPort(addr net.Addr) netip.AddrPort {
	udp, ok := addr.(*net.UDPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := udp.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
