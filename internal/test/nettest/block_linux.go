package nettest

import (
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

const blockTable = "nettest-block"

// BlockUDP drops the UDP packets that the host sends, receives or forwards, as a firewall does.
// The system tells a sender on the host itself (EPERM), and nobody else. With a peer, only
// the packets to and from that address are dropped.
func (h *Host) BlockUDP(peer string) {
	h.tb.Helper()
	from, to := udp(), udp()
	if peer != "" {
		from, to = join(udp(), sentBy(netip.MustParseAddr(peer))), join(udp(), sentTo(netip.MustParseAddr(peer)))
	}
	h.nftables(func(c *nftables.Conn) error {
		t := c.AddTable(&nftables.Table{Name: blockTable, Family: nftables.TableFamilyINet})
		hook(c, t, "input", nftables.ChainTypeFilter, nftables.ChainHookInput, 0, join(from, drop()))
		hook(c, t, "output", nftables.ChainTypeFilter, nftables.ChainHookOutput, 0, join(to, drop()))
		hook(c, t, "forward", nftables.ChainTypeFilter, nftables.ChainHookForward, 0, join(from, drop()), join(to, drop()))
		return nil
	})
}

// UnblockUDP undoes all calls of BlockUDP.
func (h *Host) UnblockUDP() {
	h.tb.Helper()
	h.nftables(func(c *nftables.Conn) error {
		c.DelTable(&nftables.Table{Name: blockTable, Family: nftables.TableFamilyINet})
		return nil
	})
}

// sentBy matches packets from an address.
func sentBy(addr netip.Addr) []expr.Any {
	if addr.Is6() {
		return join(meta(expr.MetaKeyNFPROTO, []byte{unix.NFPROTO_IPV6}), address(8, addr))
	}
	return join(meta(expr.MetaKeyNFPROTO, []byte{unix.NFPROTO_IPV4}), address(12, addr))
}

// sentTo matches packets to an address.
func sentTo(addr netip.Addr) []expr.Any {
	if addr.Is6() {
		return join(meta(expr.MetaKeyNFPROTO, []byte{unix.NFPROTO_IPV6}), address(24, addr))
	}
	return join(meta(expr.MetaKeyNFPROTO, []byte{unix.NFPROTO_IPV4}), address(16, addr))
}
