package nettest

import (
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

const cutTable = "nettest-cut"

// Cut drops packets between two addresses on a host that forwards them, in both
// directions.
func (h *Host) Cut(a, b string) {
	h.tb.Helper()
	from, to := netip.MustParseAddr(a), netip.MustParseAddr(b)
	h.nftables(func(c *nftables.Conn) error {
		t := c.AddTable(&nftables.Table{Name: cutTable, Family: nftables.TableFamilyINet})
		hook(c, t, "forward", nftables.ChainTypeFilter, nftables.ChainHookForward, 0,
			join(between(from, to), drop()), join(between(to, from), drop()))
		return nil
	})
}

// Mend undoes all calls of Cut.
func (h *Host) Mend() {
	h.tb.Helper()
	h.nftables(func(c *nftables.Conn) error {
		c.DelTable(&nftables.Table{Name: cutTable, Family: nftables.TableFamilyINet})
		return nil
	})
}

// hook adds rules to a base chain. It makes the chain if there is none.
func hook(c *nftables.Conn, t *nftables.Table, name string, kind nftables.ChainType, at *nftables.ChainHook, priority nftables.ChainPriority, rules ...[]expr.Any) {
	chain := c.AddChain(&nftables.Chain{Name: name, Table: t, Type: kind, Hooknum: at, Priority: &priority})
	for _, rule := range rules {
		c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: rule})
	}
}

func join(parts ...[]expr.Any) []expr.Any { return slices.Concat(parts...) }

// out matches packets that leave by an interface.
func out(name string) []expr.Any { return meta(expr.MetaKeyOIFNAME, ifname(name)) }

// in matches packets that have come in by an interface.
func in(name string) []expr.Any { return meta(expr.MetaKeyIIFNAME, ifname(name)) }

func udp() []expr.Any { return meta(expr.MetaKeyL4PROTO, []byte{unix.IPPROTO_UDP}) }

func drop() []expr.Any { return []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}} }

// between matches packets from one address to another.
func between(from, to netip.Addr) []expr.Any { return join(sentBy(from), sentTo(to)) }

// address matches the address at an offset of the IP header.
func address(offset uint32, addr netip.Addr) []expr.Any {
	data := addr.AsSlice()
	return []expr.Any{
		&expr.Payload{DestRegister: unix.NFT_REG_1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: uint32(len(data))},
		&expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: data},
	}
}

func meta(key expr.MetaKey, data []byte) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: key, Register: unix.NFT_REG_1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: data},
	}
}

// ifname returns the name of an interface in the form that the kernel compares.
func ifname(name string) []byte {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, name)
	return b
}
