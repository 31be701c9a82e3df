package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/quicway/quicway/internal/test/nettest"
)

// The network: the relay has an interface to each side and to the attackers, and
// its address on loopback.
//
//	left 10.2.0.2 — eth0 ┐
//	right 10.3.0.2 — eth1 ┼ relay 10.1.0.2
//	mallory 10.4.0.2 — eth2 ┘
const (
	relayAddr = "10.1.0.2:4433"
	relayNet  = "10.1.0.0/24"
	peerIface = "eth0"
)

var peerAddrs = [2]string{"10.2.0.2", "10.3.0.2"}

const malloryAddr = "10.4.0.2"

// build makes the hosts and connects them.
func (h *hosts) build() {
	h.relay, h.mallory = nettest.NewHost(h), nettest.NewHost(h)
	h.sides = [2]*nettest.Host{nettest.NewHost(h), nettest.NewHost(h)}
	for i, other := range []*nettest.Host{h.sides[0], h.sides[1], h.mallory} {
		subnet := fmt.Sprintf("10.%d.0.", i+2)
		nettest.Cable(h.relay, towards(i), []string{subnet + "1/24"}, other, peerIface, []string{subnet + "2/24"})
		other.Route(relayNet, subnet+"1")
		other.PassXDP(peerIface)
		h.relay.Sysctl("net/ipv4/conf/"+towards(i)+"/forwarding", "1")
	}
	h.relay.Address("lo", netip.MustParseAddrPort(relayAddr).Addr().String()+"/32")
}

// towards returns the name of the relay's interface to a side.
func towards(side int) string { return fmt.Sprintf("eth%d", side) }

// listen opens a socket in the network namespace of a host.
func listen(h *nettest.Host, addr string) (conn *net.UDPConn, err error) {
	err = h.Run(func() (err error) {
		conn, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(addr)))
		return err
	})
	return conn, err
}

// setLink sets an interface up or down.
func setLink(h *nettest.Host, name string, up bool) error {
	return h.Run(func() error {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		if up {
			return netlink.LinkSetUp(l)
		}
		return netlink.LinkSetDown(l)
	})
}

// setRoute adds or removes a side's route to the relay. Without it, sending fails with
// ENETUNREACH.
func setRoute(h *nettest.Host, side int, there bool) error {
	dst := netip.MustParsePrefix(relayNet)
	gateway := netip.MustParseAddr(fmt.Sprintf("10.%d.0.1", side+2))
	route := &netlink.Route{
		Dst: &net.IPNet{IP: dst.Addr().AsSlice(), Mask: net.CIDRMask(dst.Bits(), 32)},
		Gw:  gateway.AsSlice(),
	}
	return h.Run(func() error {
		if there {
			return netlink.RouteReplace(route)
		}
		return netlink.RouteDel(route)
	})
}

const refuseTable = "soak-refuse"

// setRefused has a host's firewall refuse outgoing UDP packets with EPERM, or stop doing so.
func setRefused(h *nettest.Host, refused bool) error {
	table := &nftables.Table{Name: refuseTable, Family: nftables.TableFamilyIPv4}
	return h.Run(func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		if !refused {
			c.DelTable(table)
			return c.Flush()
		}
		chain := c.AddChain(&nftables.Chain{Name: "output", Table: c.AddTable(table), Type: nftables.ChainTypeFilter,
			Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityFilter})
		c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: unix.NFT_REG_1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: []byte{unix.IPPROTO_UDP}},
			&expr.Verdict{Kind: expr.VerdictDrop},
		}})
		return c.Flush()
	})
}

// mend repairs the faults that are left at the end of a stage.
func (h *hosts) mend() error {
	var errs []error
	for side, host := range h.sides {
		errs = append(errs, setLink(h.relay, towards(side), true), setRoute(host, side, true))
	}
	return errors.Join(errs...)
}
