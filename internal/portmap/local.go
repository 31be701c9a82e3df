package portmap

import (
	"fmt"
	"net"
	"net/netip"
)

// towards returns the source address of packets to addr. It sends nothing.
func towards(addr netip.Addr) (netip.Addr, error) {
	conn, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, serverPort)))
	if err != nil {
		return netip.Addr{}, fmt.Errorf("no route to %v: %w", addr, err)
	}
	defer conn.Close()
	return conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap(), nil
}
