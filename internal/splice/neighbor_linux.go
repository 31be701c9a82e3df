package splice

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// hop is how packets leave to an end of a connection.
type hop struct {
	ifindex uint32
	macs    [12]byte // the link-layer addresses: destination and source
}

var errNoNeighbor = errors.New("no link-layer address")

// findHop asks the network namespace of the calling thread for the next hop of a connection that
// uses an interface. mark is the mark of its socket.
func findHop(e tuple, a *attachment, mark int) (hop, error) {
	h := hop{ifindex: uint32(a.index)}
	copy(h.macs[6:], a.mac)
	routes, err := netlink.RouteGetWithOptions(e.remote.Addr().AsSlice(), &netlink.RouteGetOptions{
		OifIndex: a.index, SrcAddr: e.local.Addr().AsSlice(), Mark: uint32(mark),
	})
	if err != nil {
		return h, fmt.Errorf("find route to %v: %w", e.remote.Addr(), err)
	}
	next := e.remote.Addr()
	if len(routes) > 0 {
		next = gateway(&routes[0], next)
	}
	mac, err := neighbor(a.index, next)
	if err != nil {
		return h, err
	}
	copy(h.macs[:6], mac)
	return h, nil
}

// gateway returns the gateway of a route, or to if there is none.
func gateway(r *netlink.Route, to netip.Addr) netip.Addr {
	ip := r.Gw
	if via, ok := r.Via.(*netlink.Via); ok && via != nil {
		ip = via.Addr
	}
	if addr, ok := netip.AddrFromSlice(ip); ok {
		return addr.Unmap()
	}
	return to
}

// neighbor returns the link-layer address of a neighbor. It asks for that neighbor only, since an
// interface may have thousands.
func neighbor(ifindex int, addr netip.Addr) (net.HardwareAddr, error) {
	family := unix.AF_INET
	if addr.Is6() {
		family = unix.AF_INET6
	}
	request := nl.NewNetlinkRequest(unix.RTM_GETNEIGH, 0)
	request.AddData(&netlink.Ndmsg{Family: uint8(family), Index: uint32(ifindex)})
	request.AddData(nl.NewRtAttr(netlink.NDA_DST, addr.AsSlice()))
	messages, err := request.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWNEIGH)
	if err != nil {
		return nil, fmt.Errorf("%w of %v: %w", errNoNeighbor, addr, err)
	}
	for _, m := range messages {
		n, err := netlink.NeighDeserialize(m)
		if err == nil && len(n.HardwareAddr) == 6 {
			return n.HardwareAddr, nil
		}
	}
	return nil, fmt.Errorf("%w of %v", errNoNeighbor, addr)
}
