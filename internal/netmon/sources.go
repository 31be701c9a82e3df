package netmon

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
)

// destinations are of both families, outside, and in the private ranges, which a
// VPN may have a route to. Nothing is ever sent there.
var destinations = []netip.AddrPort{
	netip.MustParseAddrPort("1.1.1.1:9"), netip.MustParseAddrPort("[2606:4700:4700::1111]:9"),
	netip.MustParseAddrPort("10.255.255.254:9"), netip.MustParseAddrPort("172.31.255.254:9"),
	netip.MustParseAddrPort("192.168.255.254:9"), netip.MustParseAddrPort("100.127.255.254:9"),
	netip.MustParseAddrPort("[fd00::1]:9"),
}

// outside is how many of destinations are reached by a default route.
const outside = 2

// sources lists the addresses that packets to other hosts would come from: a
// connected socket has one, though nothing is sent (connect and getsockname). No
// route is no error.
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
