package portmap

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// gateway returns the gateway of the IPv4 default route with the best metric, and this
// host's address towards it.
func gateway() (via, local netip.Addr, err error) {
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return netip.Addr{}, netip.Addr{}, fmt.Errorf("list routes: %w", err)
	}
	best := -1
	for i, r := range routes {
		isDefault := r.Dst == nil || r.Dst.IP.IsUnspecified()
		if isDefault && r.Gw != nil && (best < 0 || r.Priority < routes[best].Priority) {
			best = i
		}
	}
	if best < 0 {
		return netip.Addr{}, netip.Addr{}, errors.New("no default route")
	}
	via, _ = netip.AddrFromSlice(routes[best].Gw.To4())
	local, err = towards(via)
	return via, local, err
}
