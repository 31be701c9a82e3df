package netmon

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
)

// destinations are addresses of both families on the internet, and in the private ranges,
// to which a VPN may have a route. Nothing is ever sent there.
var destinations = []netip.AddrPort{
	netip.MustParseAddrPort("1.1.1.1:9"), netip.MustParseAddrPort("[2606:4700:4700::1111]:9"),
	netip.MustParseAddrPort("10.255.255.254:9"), netip.MustParseAddrPort("172.31.255.254:9"),
	netip.MustParseAddrPort("192.168.255.254:9"), netip.MustParseAddrPort("100.127.255.254:9"),
	netip.MustParseAddrPort("[fd00::1]:9"),
}

// outside is how many of destinations are on the internet: the first ones.
const outside = 2

// sources lists the source addresses of packets to other hosts, which a connected socket
// knows without sending anything (connect and getsockname). A missing route is not an
// error.
func sources() ([]Address, error) {
	var addrs []Address
	var errs []error
	for i, to := range destinations {
		conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
		if err != nil {
			errs = append(errs, err)
			continue
		}
		a := Address{Addr: conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap().WithZone("")}
		if i < outside {
			a.Role = Uplink
		}
		errs = append(errs, conn.Close())
		if !has(addrs, a.Addr) {
			addrs = append(addrs, a)
		}
	}
	if err := errors.Join(errs...); len(addrs) == 0 && exhausted(err) {
		return nil, fmt.Errorf("ask for source addresses: %w", err)
	}
	return addrs, nil
}

func has(addrs []Address, a netip.Addr) bool {
	for i := range addrs {
		if addrs[i].Addr == a {
			return true
		}
	}
	return false
}
